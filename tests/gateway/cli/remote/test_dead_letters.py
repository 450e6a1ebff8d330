"""deadletter: what an operator sees of notifications that never arrived."""

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

LETTER = {
    "id": "n_1",
    "kind": "notification",
    "target": "https://hook.example",
    "agent": "sales",
    "task_id": "t_1",
    "attempts": 7,
    "updated": "2027-01-15T08:00:00.000Z",
    "reason": "the webhook answered with HTTP 503",
}


def test_dead_letters_are_listed_with_their_reason(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/deadletters", {"items": [LETTER], "next": "n_1"})
    api.on("GET /api/deadletters?cursor=n_1", {"items": [{**LETTER, "id": "n_0"}], "next": None})
    shown = interlock("deadletter", "list").out
    assert "HTTP 503" in shown and "https://hook.example" in shown and "n_0" in shown
    assert [letter["id"] for letter in interlock("deadletter", "list", "--json").json["items"]] == ["n_1", "n_0"]


def test_a_dead_letter_of_an_event_names_its_event_and_subject(interlock: CommandLine, api: GatewayApi) -> None:
    letter = {**LETTER, "kind": "trigger", "target": "welcome", "agent": None, "task_id": None, "event_id": "e1", "subject": "customer/1"}
    api.on("GET /api/deadletters", {"items": [letter], "next": None})
    shown = interlock("deadletter", "list").out
    assert "trigger" in shown and "welcome" in shown and "e1 customer/1" in shown


def test_a_dead_letter_is_sent_again_by_its_id(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/deadletters/n_1/retry", status=204)
    assert interlock("deadletter", "retry", "n_1").code == 0
    assert interlock("deadletter", "retry", "n_1", "--json").json == {"id": "n_1", "retried": True}
    assert interlock("deadletter", "retry", "n_2").code == 1


def test_rm_deletes_a_dead_letter(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("DELETE /api/deadletters/n_1", None, 204)
    assert interlock("deadletter", "rm", "n_1").out == "n_1 is removed\n"
    assert interlock("deadletter", "rm", "n_1", "--json").json == {"id": "n_1", "removed": True}


def test_a_schedule_is_paused_and_resumed(interlock: CommandLine, api: GatewayApi) -> None:
    for verb, paused, said in (("pause", True, "starts nothing"), ("resume", False, "goes on")):
        api.on(f"POST /api/triggers/nightly/{verb}", {"workflow": "nightly", "paused": paused})
        assert interlock("trigger", verb, "nightly").out == f"nightly: {said}\n"


def test_settings_are_shown_with_their_sources(interlock: CommandLine, api: GatewayApi) -> None:
    items = [{"name": "port", "value": 8080, "source": "default"}, {"name": "notify", "value": ["https://a.example/…"], "source": "file"}]
    api.on("GET /api/settings", {"items": items, "next": None})
    assert "8080" in interlock("settings").out
    assert "8080" not in (shown := interlock("settings", "--changed").out) and "https://a.example" in shown
