"""db prune and legal holds at the terminal."""

from typing import Any

from tests.fakes.gateway_api import Answer, GatewayApi
from tests.gateway.cli.conftest import CommandLine

HOLD = {"id": "h_1", "kind": "person", "name": "t|i|alice", "reason": "case 17", "by": "t|i|olga", "at": "2027-01-15T08:00:00.000Z"}
DUE = {"before": "2026-01-15T08:00:00.000Z", "tasks": 7, "records": {"approvals": 2, "errands": 0}, "dry_run": True}


def answers_of_prune(api: GatewayApi, *steps: dict[str, Any], due: dict[str, Any] = DUE) -> None:
    """The answers in their order: what is due, and each step. The last one comes again and again."""
    api.answers["POST /api/retention/prune"] = [Answer(each, 200) for each in (due, *steps)]


def test_a_dry_run_shows_what_is_due_and_deletes_nothing(interlock: CommandLine, api: GatewayApi) -> None:
    answers_of_prune(api)
    ran = interlock("db", "prune", "--days", "30", "--dry-run")
    assert ran.code == 0 and "7 tasks, 2 of approvals" in ran.out
    assert [asked.body for asked in api.asked] == [{"days": 30, "dry_run": True}]
    assert interlock("db", "prune", "--dry-run", "--json").json == DUE


def test_a_prune_goes_on_until_nothing_is_due(interlock: CommandLine, api: GatewayApi) -> None:
    first = {"tasks": 4, "records": {}, "complete": False, "dry_run": False}
    last = {"tasks": 3, "records": {"approvals": 2}, "complete": True, "dry_run": False}
    answers_of_prune(api, first, last)
    assert interlock("db", "prune", "--tasks", "10", "--json").json == {"tasks": 7, "records": {"approvals": 2}}
    assert [asked.body for asked in api.asked][1:] == [{"tasks": 10}] * 2


def test_a_prune_beside_another_one_says_so(interlock: CommandLine, api: GatewayApi) -> None:
    answers_of_prune(api, {"tasks": 0, "records": {}, "complete": False, "dry_run": False})
    ran = interlock("db", "prune")
    assert ran.code == 1 and "another process prunes now" in ran.err


def test_settings_that_keep_everything_are_named(interlock: CommandLine, api: GatewayApi) -> None:
    answers_of_prune(api, {"tasks": 0, "records": {}, "complete": True, "dry_run": False}, due={**DUE, "before": None, "tasks": 0})
    assert "keep everything" in interlock("db", "prune").err
    answers_of_prune(api, due={**DUE, "before": None, "tasks": 0})
    assert "keep everything" in interlock("db", "prune", "--dry-run").out


def test_holds_are_placed_shown_and_released(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/holds", HOLD, 201)
    api.on("GET /api/holds", {"items": [HOLD], "next": None})
    api.on("DELETE /api/holds/h_1", None, 204)
    placed = interlock("db", "hold", "person", "alice", "--reason", "case 17")
    assert "h_1 holds person" in placed.out and "db release h_1" in placed.err
    assert api.asked[-1].body == {"kind": "person", "name": "alice", "reason": "case 17"}
    assert "case 17" in interlock("db", "holds").out and interlock("db", "holds", "--json").json["items"] == [HOLD]
    assert "h_1 is released" in interlock("db", "release", "h_1").out


def test_a_hold_names_its_target(interlock: CommandLine, api: GatewayApi) -> None:
    assert interlock("db", "hold", "person").code == 2 and interlock("db", "hold", "tenant", "acme").code == 2
    assert not api.asked
