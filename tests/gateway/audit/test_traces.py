"""A trace is put together from what is always kept: the task rows and the audit."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.audit.traces import TraceRows, TraceSpan, _in_tree_order, build_spans
from tests.fakes.house import CallbackAgent, House
from tests.gateway.behaviour.authority.test_delegation import chain


@dataclass(frozen=True)
class Row:
    """A row of `tasks`, as far as a trace looks at it."""

    id: str
    agent: str
    parent_id: str = ""
    owner: str = "default|https://idp.example|auth0|bob"
    state: str = "TASK_STATE_COMPLETED"
    grant_id: str = ""
    decision_id: str = ""
    created: int = 0
    updated: int = 1000


def decided(decision_id: str, task_id: str = "", **more: Any) -> dict[str, Any]:
    return {
        "kind": "decision",
        "decision_id": decision_id,
        "task_id": task_id,
        "grant_id": "",
        "at": 10,
        "action": "callTool",
        "resource": "inventory.reserve",
        "allowed": True,
        "reason_id": "allowed",
        "missing": [],
        "path": [{"agent": "sales", "permissions": []}],
        "principal": {"issuer": "https://idp.example", "subject": "auth0|bob"},
        **more,
    }


def ended(decision_id: str, outcome: str, at: int, duration: int) -> dict[str, Any]:
    return {"kind": "outcome", "decision_id": decision_id, "outcome": outcome, "at": at, "duration_us": duration}


def spans(rows: list[Row], records: list[dict[str, Any]], reasons: dict[str, str] | None = None) -> dict[str, TraceSpan]:
    found = build_spans(TraceRows(rows, records, reasons or {}))  # type: ignore[arg-type]  # rows by their attributes only
    return {span.id: span for span in found}


def test_a_tool_call_lasts_as_long_as_its_outcome_says_whenever_that_was_written() -> None:
    found = spans([Row("t_1", "sales")], [decided("d_1", "t_1"), ended("d_1", "ok", 5000, 20)])["d_1"]
    assert (found.kind, found.parent, found.name, found.actor) == ("tool", "t_1", "inventory.reserve", "sales")
    assert (found.start, found.end, found.outcome, found.reason) == (10, 30, "ok", "")


def test_a_turn_ends_with_its_record_but_not_after_its_task() -> None:
    records = [decided("d_1", "t_1", action="invokeAgent"), ended("d_1", "ok", 1010, 900)]
    assert spans([Row("t_1", "sales")], records)["d_1"].end == 1000
    assert spans([Row("t_1", "sales", state="TASK_STATE_WORKING")], records)["d_1"].end == 1010


def test_a_refusal_takes_no_time_and_has_its_reason() -> None:
    refusal = decided("d_1", "t_1", allowed=False, reason_id="user-lacks-permission", missing=["tool:a.b (user)"])
    found = spans([Row("t_1", "sales")], [refusal])["d_1"]
    assert (found.kind, found.start, found.end, found.outcome) == ("decision", 10, 10, "refused")
    assert found.reason == "user-lacks-permission: tool:a.b (user)"


def test_a_call_without_an_outcome_runs_until_its_task_has_ended() -> None:
    records = [decided("d_1", "t_1")]
    running = spans([Row("t_1", "sales", state="TASK_STATE_WORKING")], records)["d_1"]
    cut = spans([Row("t_1", "sales", state="TASK_STATE_FAILED")], records)["d_1"]
    assert (running.outcome, running.end) == ("running", None)
    assert (cut.outcome, cut.end) == ("unknown", 1000)


def test_what_was_refused_to_an_agent_hangs_below_the_task_whose_grant_it_used() -> None:
    refusal = decided("d_1", "t_never_opened", grant_id="g_1", allowed=False, action="invokeAgent", resource="billing")
    assert spans([Row("t_1", "sales", grant_id="g_1")], [refusal])["d_1"].parent == "t_1"


def test_a_task_is_its_callers_and_says_how_it_ended() -> None:
    rows = [
        Row("t_1", "support"),
        Row("t_2", "sales", "t_1", state="TASK_STATE_FAILED"),
        Row("t_3", "hr", "t_0", state="TASK_STATE_WORKING"),
    ]
    found = spans(rows, [], {"t_2": "No answer in time."})
    assert (found["t_1"].actor, found["t_2"].actor, found["t_2"].parent) == ("auth0|bob", "support", "t_1")
    assert (found["t_2"].outcome, found["t_2"].reason) == ("failed", "No answer in time.")
    assert (found["t_3"].parent, found["t_3"].end, found["t_3"].outcome) == ("", None, "working")


def test_records_of_other_kinds_are_no_spans() -> None:
    assert spans([], [{"kind": "revocation", "decision_id": ""}, {"kind": "exchange", "decision_id": "d_1"}]) == {}


def placed(span_id: str, parent: str, start: int) -> TraceSpan:
    return TraceSpan(span_id, parent, "task", span_id, "", start, None, "ok")


def test_a_trace_holds_a_task_and_what_it_caused_each_after_its_cause() -> None:
    tree = [
        placed("a", "", 0),
        placed("b", "a", 1),
        placed("c", "b", 4),
        placed("d", "a", 3),
        placed("other", "", 2),
        placed("e", "other", 5),
    ]
    for seed in range(20):
        shuffled = random.Random(seed).sample(tree, len(tree))
        assert [span.id for span in _in_tree_order("a", shuffled)] == ["a", "b", "c", "d"]
    assert [span.id for span in _in_tree_order("b", tree)] == ["b", "c"]


def test_rows_that_name_each_other_end_all_the_same() -> None:
    assert [span.id for span in _in_tree_order("a", [placed("a", "b", 0), placed("b", "a", 1)])] == ["a", "b"]


async def trace(home: House, user: str, task_id: str) -> Any:
    answer = await home.http.get(f"/api/tasks/{task_id}/trace", headers={"authorization": f"Bearer {home.token(user)}"})
    return answer.json()


async def test_the_trace_of_a_request_shows_both_agents_and_the_tool(home: House) -> None:
    await chain(home, "reserve")
    task = (await home.send(home.token("alice"), "support", "SKU-7"))["result"]["task"]
    await home.gateway.database.write(lambda batch: None)  # the outcome of the tool call is posted, and kept with the next commit
    found = await trace(home, "alice", task["id"])
    seen = [(span["kind"], span["name"], span["actor"], span["outcome"]) for span in found["spans"]]
    assert seen == [
        ("task", "support", "alice", "completed"),
        ("agent", "support", "alice", "ok"),
        ("task", "sales", "support", "completed"),
        ("agent", "sales", "support", "ok"),
        ("tool", "inventory.reserve", "sales", "ok"),
    ]
    by_id = {span["id"]: span for span in found["spans"]}
    for span in found["spans"][1:]:
        parent = by_id[span["parent"]]
        assert parent["start"] <= span["start"] <= span["end"] <= parent["end"]


async def test_the_trace_of_a_refusal_names_the_decision_to_ask_about(home: House) -> None:
    async def act(token: str, text: str) -> str:
        return (await home.call(token, "/mcp/inventory", "reserve", {})).text

    await home.server("inventory", "check", "reserve")
    agent = CallbackAgent("support")

    async def calls_back(token: str, text: str) -> str:
        onward = await home.exchanged("support", token, "/mcp/inventory", "tool:inventory.reserve")
        return await act(onward, text)

    agent.act = calls_back
    await home.agent(agent)
    task = (await home.send(home.token("bob"), "support", "SKU-7"))["result"]["task"]
    last = (await trace(home, "bob", task["id"]))["spans"][-1]
    assert (last["outcome"], last["name"], last["actor"]) == ("refused", "inventory.reserve", "support")
    assert "tool:inventory.reserve (user)" in last["reason"]
    headers = {"authorization": f"Bearer {home.token('bob')}"}
    assert (await home.http.get(f"/api/decisions/{last['decision_id']}", headers=headers)).json()["allowed"] is False


async def test_the_trace_of_a_delegated_task_is_only_what_it_caused_itself(home: House) -> None:
    await chain(home, "reserve")
    whole = (await home.send(home.token("alice"), "support", "SKU-7"))["result"]["task"]["id"]
    inner = next(span["id"] for span in (await trace(home, "alice", whole))["spans"] if span["name"] == "sales")
    assert {span["name"] for span in (await trace(home, "alice", inner))["spans"]} == {"sales", "inventory.reserve"}


@pytest.mark.parametrize("user", ["bob", "nora"])
async def test_a_foreign_trace_is_unknown(home: House, user: str) -> None:
    await home.agent(CallbackAgent("support"))
    task = (await home.send(home.token("alice"), "support", "Hi"))["result"]["task"]
    foreign, unknown = await trace(home, user, task["id"]), await trace(home, user, "t_nothing")
    assert foreign == unknown
    assert (foreign["status"], foreign["reason_id"]) == (404, "unknown")
