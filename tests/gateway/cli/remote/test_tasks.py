"""task, trace, why and revoke: what happened, from the command line."""

import json
from typing import Any

import pytest

from gateway.cli.remote import tasks
from tests.fakes.gateway_api import Answer, GatewayApi, stream
from tests.gateway.cli.conftest import CommandLine

TIME = "2026-11-21T03:04:05.678Z"
TASK = {
    "id": "t_1",
    "context_id": "c_1",
    "agent": "sales",
    "state": "TASK_STATE_WORKING",
    "owner": "default|interlock-development|alice",
    "parent_id": "",
    "decision_id": "d_1",
    "grant_id": "g_1",
    "created": TIME,
    "updated": TIME,
}
DECISION = {
    "id": "d_9",
    "allowed": False,
    "reason_id": "user-lacks-permission",
    "reason": "Neither a role of the user nor a policy permits it.",
    "principal": "default|https://idp.example|auth0|bob",
    "roles": ["support"],
    "chain": [{"agent": "support", "permissions": ["agent:*"]}, {"agent": "sales", "permissions": []}],
    "action": "callTool",
    "resource": "inventory.reserve",
    "policies": [],
    "missing": ["tool:inventory.reserve (user)"],
    "task_id": "t_2",
    "at": TIME,
}


def status(seq: int, state: str) -> dict[str, Any]:
    return {"seq": seq, "at": TIME, "kind": "status", "status": {"state": f"TASK_STATE_{state}"}}


def span(span_id: str, parent: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    times = {"start": "2026-11-21T03:04:05.000000Z", "end": "2026-11-21T03:04:06.500000Z"}
    return {"id": span_id, "parent": parent, "kind": kind, "name": name, "actor": "alice", "outcome": "ok", "reason": "", **times, **more}


def test_tasks_are_listed_up_to_a_limit(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/tasks", {"items": [TASK, {**TASK, "id": "t_2"}], "next": "x"})
    assert [task["id"] for task in interlock("task", "list", "--limit", "1", "--json").json["items"]] == ["t_1"]
    assert len(api.asked) == 1
    assert "working" in interlock("task", "list", "--limit", "2").out


def test_everybodys_tasks_are_listed_with_whose_they_are(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/tasks?everybody=true", {"items": [TASK], "next": None})
    shown = interlock("task", "list", "--all").out
    assert "whose" in shown and "alice" in shown


def test_a_task_is_shown_with_what_was_said(interlock: CommandLine, api: GatewayApi) -> None:
    history = [{"role": "ROLE_USER", "parts": [{"text": "Two"}]}, {"role": "ROLE_AGENT", "parts": [{"text": "Which?"}]}]
    api.on("GET /api/tasks/t_1", {**TASK, "history": history, "artifacts": [{"artifactId": "a", "parts": [{"text": "R-1"}]}]})
    shown = interlock("task", "show", "t_1").out
    for text in ("you: Two", "sales: Which?", "a: R-1", "d_1"):
        assert text in shown


def test_a_task_that_failed_is_shown_with_the_reason(interlock: CommandLine, api: GatewayApi) -> None:
    noted = {"urn:interlock:a2a:error": {"reason": "AGENT_BUDGET"}}
    message = {"role": "ROLE_AGENT", "parts": [{"text": "The agent has no budget left."}], "metadata": noted}
    failed = {
        **TASK,
        "state": "TASK_STATE_FAILED",
        "status": {"state": "TASK_STATE_FAILED", "message": message},
        "history": [],
        "artifacts": [],
    }
    api.on("GET /api/tasks/t_1", failed)
    assert "reason: The agent has no budget left. (AGENT_BUDGET)" in interlock("task", "show", "t_1").out


def test_cancel_says_what_became_of_the_task(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/tasks/t_1/cancel", {**TASK, "state": "TASK_STATE_CANCELED", "caused_tasks": {}})
    ran = interlock("task", "cancel", "t_1")
    assert (ran.code, ran.out) == (0, "t_1 is canceled\n")


def test_watch_shows_each_event_and_ends_with_the_stream(interlock: CommandLine, api: GatewayApi) -> None:
    artifact = {"seq": 2, "at": TIME, "kind": "artifact", "artifact": {"artifactId": "a", "parts": [{"text": "R-1"}]}}
    api.answers["GET /api/tasks/t_1/events"] = stream(status(1, "WORKING"), artifact, status(3, "COMPLETED"))
    ran = interlock("task", "watch", "t_1")
    assert ran.code == 0
    assert [line.split("  ")[1] for line in ran.out.splitlines()] == ["working", "artifact: R-1", "completed"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "RETRY_SECONDS", 0)


@pytest.mark.usefixtures("impatient")
def test_watch_takes_a_broken_stream_up_behind_the_last_event(interlock: CommandLine, api: GatewayApi) -> None:
    broken = stream(status(1, "WORKING"), cut=True)
    api.answers["GET /api/tasks/t_1/events"] = [broken, stream(status(2, "FAILED"))]
    ran = interlock("task", "watch", "t_1", "--json")
    assert [json.loads(line)["seq"] for line in ran.out.splitlines()] == [1, 2]
    assert api.asked[1].headers["last-event-id"] == "1"
    assert ran.code == 1


@pytest.mark.usefixtures("impatient")
def test_watch_goes_on_where_a_gateway_that_stops_ends_the_stream(interlock: CommandLine, api: GatewayApi) -> None:
    api.answers["GET /api/tasks/t_1/events"] = [
        stream(status(1, "WORKING")),
        Answer({"title": "Ends", "status": 503, "reason_id": "shutting-down"}, 503),
        stream(status(2, "COMPLETED")),
    ]
    ran = interlock("task", "watch", "t_1", "--json")
    assert [json.loads(line)["seq"] for line in ran.out.splitlines()] == [1, 2]
    assert ran.code == 0 and len(api.asked) == 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize(("kind", "path"), [("task", "/api/tasks/t_1/events"), ("run", "/api/runs/r_1/events")])
def test_watch_says_how_to_go_on_after_a_gateway_that_has_stopped(
    interlock: CommandLine, api: GatewayApi, kind: str, path: str, form: tuple[str, ...]
) -> None:
    task_id = path.split("/")[3]
    api.answers[f"GET {path}"] = [stream({**status(1, "WORKING"), "state": "working"}), stream()]
    api.on("GET /api/runs/r_1", {"id": "r_1", "state": "working", "workflow": "w", "steps": [], "checkpoints": [], "note": ""})
    ran = interlock(kind, "watch", task_id, *form)
    assert ran.code == 4
    assert "the gateway has stopped" in ran.err and f"interlock {kind} watch {task_id}" in ran.err


@pytest.mark.usefixtures("impatient")
def test_watch_gives_up_on_a_stream_that_always_breaks(interlock: CommandLine, api: GatewayApi) -> None:
    api.answers["GET /api/tasks/t_1/events"] = [stream(status(1, "WORKING"), cut=True), Answer("", 200, "text/event-stream", cut=True)]
    assert interlock("task", "watch", "t_1").code == 4
    assert len(api.asked) == tasks.ATTEMPTS_MAX


def test_trace_draws_each_hop_below_its_cause_and_the_refusal_with_its_reason(interlock: CommandLine, api: GatewayApi) -> None:
    refusal = {"outcome": "refused", "reason": "user-lacks-permission: tool:inventory.reserve (user)", "decision_id": "d_9"}
    spans = [
        span("t_1", "", "task", "support"),
        span("d_1", "t_1", "agent", "support"),
        span("t_2", "t_1", "task", "sales", start="2026-11-21T03:04:05.500000Z", end=None, outcome="working"),
        span("d_9", "t_2", "decision", "inventory.reserve", end="2026-11-21T03:04:05.000000Z", **refusal),
    ]
    api.on("GET /api/tasks/t_1/trace", {"task_id": "t_1", "txn": "x_1", "spans": spans, "truncated": False})
    ran = interlock("trace", "t_1")
    lines = ran.out.splitlines()
    assert [line.index(mark) for line, mark in zip(lines[1:4], "●●✗", strict=True)] == [0, 2, 4]
    assert "1.50 s" in lines[1]
    assert lines[-1].startswith("inventory.reserve refused: user-lacks-permission: tool:inventory.reserve (user)")
    assert "interlock why d_9" in ran.err
    assert interlock("trace", "t_1", "--json").json["spans"] == spans


def test_a_trace_fits_a_narrow_screen_and_a_span_without_length_is_seen(interlock: CommandLine, api: GatewayApi) -> None:
    interlock.environment["COLUMNS"] = "60"
    api.on("GET /api/tasks/t_1/trace", {"spans": [span("t_1", "", "task", "a" * 80, end="2026-11-21T03:04:05.000000Z")]})
    ran = interlock("trace", "t_1")
    assert ran.code == 0
    assert all(len(line) <= 60 for line in ran.out.splitlines())
    assert any(mark in ran.out for mark in "█▌▐▏▎▍▋▊▉")


def test_why_tells_who_through_whom_what_and_what_was_missing(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/decisions/d_9", DECISION)
    shown = interlock("why", "d_9").out
    for text in (
        "refused",
        "user-lacks-permission: Neither a role",
        "auth0|bob > support > sales",
        "callTool inventory.reserve",
        "tool:inventory.reserve (user)",
        "nothing",
    ):
        assert text in shown
    assert interlock("why", "d_9", "--json").json == DECISION


def test_why_tells_what_was_left_after_each_agent_and_where_the_act_fell_out(interlock: CommandLine, api: GatewayApi) -> None:
    chain = [{"agent": "support", "permissions": ["agent:*", "tool:inventory.*"]}, {"agent": "sales", "permissions": ["agent:*"]}]
    told = {**DECISION, "permission": "tool:inventory.reserve", "scope": ["agent:*", "tool:inventory.*"], "chain": chain}
    api.on("GET /api/decisions/d_9", told)
    lines = interlock("why", "d_9").out.splitlines()
    assert any("narrowed to agent:* tool:inventory.*" in line for line in lines)
    support, sales = (next(line for line in lines if line.strip().startswith(name)) for name in ("support ", "sales "))
    assert support.rstrip().endswith("yes") and sales.rstrip().endswith("no")


def test_revoke_ends_a_grant(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("DELETE /api/grants/g_1", status=204)
    assert interlock("revoke", "g_1", "--json").json == {"id": "g_1", "revoked": True}


def test_why_without_an_id_lists_the_last_refusals(api: GatewayApi, interlock: CommandLine) -> None:
    for path in ("/api/decisions", "/api/decisions?everybody=true"):
        api.on(f"GET {path}", {"items": [{**DECISION, "at": "2026-01-31T12:00:00Z"}], "next": None})
    assert "d_9" in interlock("why").out
    assert interlock("why", "--all", "--json").json["items"][0]["id"] == "d_9"
