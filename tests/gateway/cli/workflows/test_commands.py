"""workflow, run and event: documents, runs and events from the command line."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.gateway_api import Answer, GatewayApi, stream
from tests.fakes.house import CallbackAgent, open_house
from tests.fakes.workflows import Workflows, document
from tests.gateway.cli.conftest import CommandLine, Ran

ASK = """
do:
- ask:
    call: gateway.agent
    with: {agent: sales, input: '${ .text }'}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
- which: {call: gateway.choose, with: {prompt: Which size, options: [small, large]}}
"""
SAY = document("say", "do:\n- say: {set: {text: '${ .text }'}}\n")
CASES = "cases:\n- {name: it says it, input: {text: hi}, expect: {output: {text: %s}}}\n"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_workflow_is_added_run_answered_and_removed(interlock: CommandLine, tmp_path: Path, database_url: str) -> None:
    (tmp_path / "ask.yaml").write_text(document("ask", ASK))
    async with open_house(tmp_path / "gateway", database_url) as home:
        await home.agent(CallbackAgent("sales"))

        async def ran(user: str, *arguments: str) -> Ran:
            interlock.environment.update({"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token(user)})
            return await asyncio.to_thread(interlock, *arguments)

        added = await ran("admin", "workflow", "add", "ask.yaml")
        assert added.code == 0 and "agent:sales" in added.out
        assert "ask" in (await ran("alice", "workflow", "list")).out
        assert "ask  ◆ ai agent sales" in (await ran("alice", "workflow", "show", "ask")).out
        assert (await ran("alice", "workflow", "show", "ask", "--format", "mermaid")).out.startswith("flowchart TD")
        assert (await ran("alice", "workflow", "show", "ask", "--format", "svg")).out.startswith("<svg ")
        started = await ran("alice", "workflow", "run", "ask", '{"text": "hello"}')
        assert started.code == 0 and "Which size" in started.err
        run = (await ran("alice", "run", "list", "--json")).json["items"][0]["id"]
        shown = (await ran("alice", "run", "show", run)).out
        assert any(line.split()[:2] == ["ask", "done"] for line in shown.splitlines()), shown
        checkpoint = (await ran("alice", "run", "checkpoints", "--json")).json["items"][0]["id"]
        assert (await ran("alice", "run", "answer", checkpoint, '"large"')).code == 0
        assert (await ran("alice", "run", "watch", run)).code == 0
        waiting = await ran("alice", "workflow", "run", "ask", '{"text": "again"}')
        assert waiting.code == 0 and "Which size" in waiting.err and waiting.out == ""
        assert "completed" in (await ran("alice", "run", "show", run)).out
        assert (await ran("alice", "workflow", "rm", "ask")).code == 3
        refused = await ran("admin", "workflow", "rm", "ask")
        assert refused.code == 1 and "1 run that has not ended" in refused.err
        assert (await ran("admin", "workflow", "rm", "ask", "--force")).code == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_workflow_run_prints_what_the_run_returned(interlock: CommandLine, tmp_path: Path, database_url: str) -> None:
    async with open_house(tmp_path / "gateway", database_url) as home:
        await Workflows(home).add("say", SAY.partition("\ndo:")[2].join(["do:", ""]))
        interlock.environment.update({"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token("alice")})

        async def ran(*arguments: str) -> Ran:
            return await asyncio.to_thread(interlock, "workflow", "run", "say", *arguments)

        assert (await ran('{"text": "hi"}')).json == {"text": "hi"}
        run = (await ran('{"text": "hi"}', "--json")).json
        assert (run["state"], run["output"]) == ("TASK_STATE_COMPLETED", {"text": "hi"})
        assert (await ran("--detach")).out.startswith("t_")
        failed = await ran('"no object"')
        assert failed.code == 1 and "interlock run show" in failed.err
        unknown = await asyncio.to_thread(interlock, "workflow", "run", "nowhere")
        assert unknown.code == 1 and "workflow list" in unknown.err
        shown = await asyncio.to_thread(interlock, "run", "show", run["id"])
        assert 'output    {"text": "hi"}' in shown.out
        answer = await Workflows(home).desk.ask("GET", "/api/workflows/say/runs", "alice")
        assert run["id"] in {each["id"] for each in answer.json()["items"]}


def test_a_refused_document_is_shown_line_by_line(interlock: CommandLine, api: GatewayApi, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("x")
    problem: dict[str, Any] = {"line": 7, "path": "/do/0/a", "reason": "is wrong"}
    api.on("POST /api/workflows", {"reason_id": "workflow-refused", "detail": "x", "problems": [problem]}, 422)
    ran = interlock("workflow", "add", "bad.yaml")
    assert ran.code == 1 and "line 7  /do/0/a  is wrong" in ran.err


COST = {"amount": "0.42", "currency": "USD", "unpriced": 2, "priced": 3, "input_tokens": 1000, "output_tokens": 500}


def test_costs_of_all_pages_are_shown_with_their_total(interlock: CommandLine, api: GatewayApi) -> None:
    other = {**COST, "amount": None, "unpriced": 1, "workflow": ""}
    for query in ("by=workflow&everybody=false&since=2026-01-01", "by=day&everybody=false"):
        api.on(f"GET /api/cost?{query}", {"items": [{**COST, "workflow": "offer"}, other], "next": None, "total": COST})
    ran = interlock("cost", "--by", "workflow", "--since", "2026-01-01")
    assert ran.code == 0, ran.err
    assert "0.42 USD + 2 unpriced calls" in ran.out and "total  0.42 USD" in ran.out
    assert [line.strip().split("  ")[0] for line in ran.out.splitlines() if "unknown" in line] == ["(no workflow)"]
    assert interlock("cost", "--json").json["total"]["amount"] == "0.42"
    assert interlock("cost", "--by", "planet").code == 2


def test_what_is_left_of_budgets_is_shown_by_scope(interlock: CommandLine, api: GatewayApi) -> None:
    amounts = {"budget": "0.50", "spent": "0.02", "reserved": "0.01", "left": "0.47", "currency": "USD"}
    of_day = {"who": "user:*", "what": "agent:*", "subject": "default|x|alice", "callee": "sales", "run": None, **amounts}
    of_run = {**of_day, "who": "", "subject": "", "what": "workflow:refund", "callee": "refund", "run": "t_1", "left": None}
    for period, each in (("day", of_day), ("run", of_run)):
        api.on(f"GET /api/cost/budgets?period={period}&everybody=false", {"items": [each], "next": None})
    ran = interlock("cost", "--budgets")
    assert ran.code == 0, ran.err
    lines = [re.split(r"\s{2,}", line.strip()) for line in ran.out.splitlines()]
    assert ["alice, agent sales, today", "0.47", "0.50", "0.02", "0.01", "USD"] in lines
    assert ["workflow refund, run t_1", "unknown", "0.50", "0.02", "0.01", "USD"] in lines
    assert interlock("cost", "--budgets", "--estimate", "x").code == 2


def test_an_estimate_says_what_it_rests_on(interlock: CommandLine, api: GatewayApi) -> None:
    past = {"kind": "agent", "amount": "0.01", "most": "0.02", "currency": "USD", "source": "past-calls", "calls": 3}
    api.on("GET /api/cost/estimate?target=sales", {"target": "sales", **past})
    ran = interlock("cost", "--estimate", "sales")
    assert all(text in ran.out for text in ("0.01 USD", "0.02 USD", "3 past calls")), ran.err
    api.on("GET /api/cost/estimate?target=idle", {"target": "idle", **past, "amount": None, "most": None, "source": "unknown"})
    assert "unknown" in interlock("cost", "--estimate", "idle").out
    calls = [{"path": "/do/0/ask/with/agent", "target": "sales", **past}]
    sums = {"amount": "0.01", "most": "0.02", "currency": "USD", "unpriced": 1}
    api.on("GET /api/cost/estimate?target=flow", {"kind": "workflow", "cost": None, "calls": calls, "calls_cost": sums})
    shown = interlock("cost", "--estimate", "flow").out
    assert "0.01 USD + 1 unpriced call" in shown and "/do/0/ask/with/agent" in shown


def test_prices_are_set_for_agents_servers_and_tools(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("PATCH /api/servers/crm", {"name": "crm", "status": "active", "prices": {"*": "0.50"}})
    api.on("PATCH /api/agents/sales", {"name": "sales", "status": "active", "price": "0.02"})
    assert "0.02" in interlock("agent", "set", "sales", "--price", "0.02").out
    assert "*=0.50" in interlock("server", "set", "crm", "--price", "0.5", "--price", "find=0.01").out
    assert interlock("server", "set", "crm", "--price", "").code == interlock("agent", "set", "sales", "--price", "").code == 0
    bodies = [asked.body for asked in api.asked]
    assert bodies == [{"price": "0.02"}, {"prices": {"*": "0.5", "find": "0.01"}}, {"prices": {}}, {"price": ""}]


def test_the_schema_for_editors_needs_no_gateway(interlock: CommandLine) -> None:
    ran = interlock("workflow", "schema")
    assert ran.code == 0 and ran.json["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(("expected", "code"), [("hi", 0), ("ho", 1)])
def test_a_rehearsal_tells_what_is_not_as_expected(interlock: CommandLine, tmp_path: Path, expected: str, code: int) -> None:
    (tmp_path / "say.yaml").write_text(SAY)
    (tmp_path / "say.test.yaml").write_text(CASES % expected)
    ran = interlock("workflow", "test", "say.yaml")
    assert ran.code == code
    assert "it says it" in ran.out
    assert ("the output is" in ran.out) == bool(code)


def test_a_document_without_cases_is_checked(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "say.yaml").write_text(SAY)
    ran = interlock("workflow", "test", "say.yaml")
    assert ran.code == 0 and "interlock workflow record RUN_ID >say.test.yaml" in ran.out
    (tmp_path / "say.yaml").write_text(SAY.replace("set:", "sett:"))
    assert "/do/0/say" in interlock("workflow", "test", "say.yaml").err


def test_a_document_that_can_not_be_used_is_not_rehearsed(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "say.yaml").write_text(SAY.replace("set:", "sett:"))
    (tmp_path / "say.test.yaml").write_text(CASES % "hi")
    ran = interlock("workflow", "test", "say.yaml")
    assert ran.code == 1 and "/do/0/say" in ran.err


TWICE = """
do:
- ask:
    call: gateway.agent
    with: {agent: sales, input: '${ .text }'}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
- size: {set: {length: '${ length }'}}
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_run_is_shown_redriven_forked_and_compared(interlock: CommandLine, tmp_path: Path, database_url: str) -> None:
    (tmp_path / "ask.yaml").write_text(document("ask", TWICE))
    async with open_house(tmp_path / "gateway", database_url) as home:
        sales = await home.agent(CallbackAgent("sales"))
        sales.state = "TASK_STATE_FAILED"

        async def ran(*arguments: str, user: str = "alice") -> Ran:
            interlock.environment.update({"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token(user)})
            return await asyncio.to_thread(interlock, *arguments)

        await ran("workflow", "add", "ask.yaml", user="admin")
        run = (await ran("workflow", "run", "ask", '{"text": "hello"}', "--detach")).out.strip()
        watched = await ran("run", "watch", run)
        assert watched.code == 1 and "✗ ask  agent sales" in watched.out
        shown = await ran("run", "show", run, "--steps")
        assert "failed at the step ask" in shown.out and '"input": "hello"' in shown.out
        sales.state = "TASK_STATE_COMPLETED"
        again = (await ran("run", "redrive", run)).out.strip()
        assert (await ran("run", "watch", again, "--json")).code == 0
        assert f"redrive of {run}" in (await ran("run", "show", again)).out
        fork = (await ran("run", "fork", again, "--from", "size", "--input", '"four"')).out.strip()
        assert (await ran("run", "watch", fork)).code == 0
        assert "did not run" not in (await ran("run", "diff", again, fork)).out
        assert "/do/0/ask" in (await ran("run", "diff", run, again)).out
        assert (await ran("run", "pause", fork)).code == 1
        estimate = (await ran("workflow", "estimate", "ask", "--json")).json
        assert (estimate["runs"], estimate["completed"], estimate["seconds"]) == (1, 0, None)
        assert [(each["step"], each["failed"]) for each in estimate["by_step"]] == [("/do/0/ask", 1)]


def test_a_rehearsal_that_can_not_be_used_is_shown_line_by_line(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "say.yaml").write_text(SAY)
    (tmp_path / "say.test.yaml").write_text("cases:\n- name: one\n  expects: {}\n")
    ran = interlock("workflow", "test", "say.yaml")
    assert ran.code == 1 and "say.test.yaml is no rehearsal:\nline 3  /cases/0/expects" in ran.err
    (tmp_path / "say.test.yaml").write_text("cases: [\n")
    assert "say.test.yaml can't be used" in interlock("workflow", "test", "say.yaml").err
    assert interlock("workflow", "test", "say.yaml", "say.test.yaml", "--from", "t_1").code == 2


def test_an_event_is_sent_with_its_own_id_unless_one_is_given(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/events", {"accepted": 1, "repeated": 0, "not_started": []}, 202)
    assert interlock("event", "send", "shop.paid", "--data", '{"order": 7}').code == 0
    ran = interlock("event", "send", "shop.paid", "--id", "4711", "--source", "https://shop.example", "--subject", "order/7")
    first, second = (asked.body for asked in api.asked)
    assert first["data"] == {"order": 7} and len(first["id"]) == 36
    assert second == {"specversion": "1.0", "id": "4711", "source": "https://shop.example", "type": "shop.paid", "subject": "order/7"}
    assert "4711 is sent" in ran.out


def test_an_event_that_was_sent_before_is_told(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/events", {"accepted": 1, "repeated": 1, "not_started": []}, 202)
    assert "4711 was sent before" in interlock("event", "send", "shop.paid", "--id", "4711").out


def test_a_start_that_an_event_did_not_bring_is_told(interlock: CommandLine, api: GatewayApi) -> None:
    dropped = [{"workflow": "orders", "source": "urn:cli", "id": "4711"}]
    api.on("POST /api/events", {"accepted": 1, "repeated": 0, "not_started": dropped}, 202)
    assert "starts no run of orders" in interlock("event", "send", "shop.paid", "--id", "4711").out


def item(number: int, **data: object) -> dict[str, object]:
    event = {"specversion": "1.0", "id": f"e{number}", "source": "urn:shop", "type": "shop.paid", "data": data}
    return {"id": str(number), "kind": "event", "at": "2026-01-31T12:00:00Z", "sender": "default|x|alice", "event": event}


def test_events_are_shown_from_before_and_as_they_come(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/events?limit=2&type=shop.paid", {"items": [item(7), item(6)], "next": None})
    api.answers["GET /api/events?type=shop.paid"] = [stream(item(8)), Answer({"title": "No", "status": 403, "reason_id": "denied"}, 403)]
    ran = interlock("event", "tail", "--last", "2", "--type", "shop.paid", "--json")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == ["6", "7", "8"] and ran.code == 3
    assert [each.headers.get("last-event-id") for each in api.asked] == [None, "7", "1"]
    shown = interlock("event", "tail", "--last", "2", "--type", "shop.paid", "--no-follow")
    assert shown.code == 0 and "shop.paid  urn:shop  e7" in shown.out


def test_triggers_are_listed_and_tested(interlock: CommandLine, api: GatewayApi) -> None:
    trigger = {
        "workflow": "flow", "run_as": "nightly", "cron": None, "every_seconds": None, "after_seconds": None, "event_types": ["shop.paid"],
        "next_at": None, "last_run": "t_1", "waiting": 2, "dead": 0, "problem": None, "name": None, "agent": None, "tool": None,
        "paused": None,
    }  # fmt: skip
    other = trigger | {"name": "take", "workflow": None, "tool": "inventory.reserve", "dead": 3}
    api.on("GET /api/triggers?limit=200", {"items": [trigger, other], "next": None})
    api.on("GET /api/triggers", {"items": [trigger, other], "next": None})
    listed = interlock("trigger", "list")
    assert "event shop.paid" in listed.out and "t_1" in listed.out and "take: tool inventory.reserve" in listed.out
    assert interlock("trigger", "list", "--json").json == {"items": [trigger, other]} and "paused" not in listed.out
    outcome = {"name": None, "workflow": "flow", "agent": None, "tool": None, "starts": False, "reason": "an expression"}
    api.on("POST /api/triggers/test", {"items": [outcome, outcome | {"name": "ask", "workflow": None, "agent": "sales"}], "next": None})
    tested = interlock("trigger", "test", "shop.paid", "--data", '{"amount": 7}')
    assert "flow" in tested.out and "an expression" in tested.out and "ask: agent sales" in tested.out
    assert api.asked[-1].body["type"] == "shop.paid" and api.asked[-1].body["data"] == {"amount": 7}


def test_runs_are_listed_by_state_and_of_all_people(interlock: CommandLine, api: GatewayApi) -> None:
    run = {"id": "t_1", "state": "TASK_STATE_FAILED", "workflow": "flow", "updated": "2026-11-01T00:00:00Z", "owner": "default|x|alice"}
    run |= {"note": "", "paused": None, "fault": {"type": "urn:no", "status": 409, "title": "Sold Out", "instance": "/do/1/fail"}}
    query = "workflow=flow&state=TASK_STATE_INPUT_REQUIRED&everybody=true"
    api.on(f"GET /api/runs?{query}", {"items": [run], "next": None})
    listed = interlock("run", "list", "--state", "input-required", "--workflow", "flow", "--all")
    assert "t_1" in listed.out and "default|x|alice" in listed.out and "Sold Out at /do/1/fail" in listed.out


def test_runs_that_rest_are_listed_with_what_they_wait_for(interlock: CommandLine, api: GatewayApi) -> None:
    run = {"id": "t_1", "state": "TASK_STATE_WORKING", "workflow": "flow", "updated": "2026-11-01T00:00:00Z", "fault": None, "note": "a\nb"}
    api.on("GET /api/runs?state=waiting", {"items": [run | {"paused": None}], "next": None})
    api.on("GET /api/runs?state=paused", {"items": [run | {"paused": {"at": "", "by": ""}}], "next": None})
    assert "a; b" in interlock("run", "list", "--state", "waiting").out
    paused = interlock("run", "list", "--state", "paused").out
    assert "paused" in paused and "a; b" not in paused


def test_a_wrong_state_of_runs_names_the_right_ones(interlock: CommandLine, api: GatewayApi) -> None:
    ran = interlock("run", "list", "--state", "done")
    assert ran.code == 2 and "input-required" in ran.err and "paused, waiting" in ran.err and api.asked == []


def test_an_empty_tail_says_which_permission_events_need(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/events?limit=10", {"items": [], "next": None})
    ran = interlock("event", "tail", "--no-follow")
    assert ran.code == 0 and "state:read:events/TYPE" in ran.err
    assert interlock("event", "tail", "--no-follow", "--json").err == ""
