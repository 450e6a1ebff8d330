"""The trail of a run: what each step received and returned, who ruled on it, and what a stopped run has left open."""

from typing import Any

import pytest

from gateway.workflows.runs.values import digest_of
from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Gate, Workflows

AI = """
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
ASK = "do:\n- ask:\n    call: gateway.agent\n    with: {agent: sales, input: {sku: 7, password: letmein-now}}" + AI
SAGA = (
    """
use:
  functions:
    unreserve: {call: gateway.tool, with: {tool: inventory.release, arguments: {}}}
do:
- reserve:
    call: gateway.tool
    with: {tool: inventory.reserve, arguments: {}}
    metadata: {gateway: {compensate: unreserve}}
- offer:
    call: gateway.agent
    with: {agent: sales, input: offer}
"""
    + AI
)


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def records(workflows: Workflows, kind: str) -> list[dict[str, Any]]:
    return list((await workflows.desk.ask("GET", f"/api/audit?kind={kind}", "admin")).json()["items"])


async def answered(home: House, workflows: Workflows, answer: Any) -> dict[str, Any]:
    """A run whose only step got this answer."""
    agent = await home.agent(CallbackAgent("sales"))
    agent.more = [{"data": answer}]
    await workflows.add("ask", ASK)
    run = await workflows.start("ask")
    await workflows.output(run)
    return await workflows.show(run)


async def test_a_step_shows_what_it_received_and_returned_and_who_ruled(home: House, workflows: Workflows) -> None:
    shown = await answered(home, workflows, {"price": 3})
    (step,) = shown["steps"]
    assert step["input"]["input"]["sku"] == 7 and step["value"] == {"price": 3}
    assert (step["target"], step["attempt"], step["usage"]) == ("agent sales", 1, None)
    decision = await workflows.desk.ask("GET", f"/api/decisions/{step['decision_id']}", "alice")
    assert decision.json()["resource"] == "sales"
    assert shown["summary"].startswith("The run completed after ") and "1 step had ended" in shown["summary"]


async def test_the_audit_has_digests_of_a_step_and_no_secret(home: House, workflows: Workflows) -> None:
    shown = await answered(home, workflows, {"price": 3})
    (record,) = await records(workflows, "step")
    (step,) = shown["steps"]
    assert record["output_digest"] == digest_of({"price": 3}) == step["output_digest"]
    assert record["input_digest"] == digest_of(step["input"]) and record["decision_id"] == step["decision_id"]
    assert step["input"]["input"]["password"] == "***"
    assert "letmein" not in str(shown) and "letmein" not in str(record)


async def test_large_values_are_references_to_rows_of_their_own(home: House, workflows: Workflows) -> None:
    large = {"text": "x" * 70_000}
    shown = await answered(home, workflows, large)
    (step,) = shown["steps"]
    assert "value" not in step and step["value_reference"]["digest"] == digest_of(large)
    path = f"/api/runs/{shown['id']}/values/{step['value_reference']['digest']}"
    assert (await workflows.desk.ask("GET", path, "alice")).json() == large
    assert (await workflows.desk.ask("GET", path, "bob")).status_code == 404
    assert (await workflows.desk.ask("GET", path, "admin")).json() == large
    looks = [record for record in await records(workflows, "decision") if "readAudit" in str(record) and record["task_id"]]
    assert [record["task_id"] for record in looks] == [shown["id"]]


async def test_a_large_value_is_there_when_the_run_goes_on(home: House, workflows: Workflows) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    agent.more = [{"data": {"text": "x" * 70_000}}]
    body = ASK + "- pause: {wait: PT1H}\n- size: {set: {size: '${ .text | length }'}}\n"
    await workflows.add("sized", body.replace("- pause", "\n- pause"))
    run = await workflows.start("sized")
    await workflows.reached(run, "SUSPENDED")
    await workflows.pass_time(3601)
    assert await workflows.output(run) == {"size": 70_000}


async def test_a_failed_run_names_its_step_and_its_reason(home: House, workflows: Workflows) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    agent.state = "TASK_STATE_FAILED"
    await workflows.add("ask", ASK)
    run = await workflows.start("ask")
    shown = await workflows.ended(run)
    assert "failed at the step ask: Runtime Error at /do/0/ask: agent sales" in shown["summary"]
    assert shown["fault"]["instance"] == "/do/0/ask" and f"interlock run redrive {run}" in shown["summary"]


async def test_a_killed_run_does_nothing_more_and_lists_open_effects(home: House, workflows: Workflows) -> None:
    server, gate = await home.server("inventory", "reserve", "release"), Gate()
    await home.agent(CallbackAgent("sales", gate.act))
    await workflows.add("saga", SAGA)
    run = await workflows.start("saga")
    await gate.reached.wait()
    killed = await workflows.desk.ask("POST", "/api/kill", "admin", {"kind": "agent", "name": "saga"})
    assert killed.status_code in (200, 201, 204), killed.text
    shown = await workflows.ended(run)
    gate.opened.set()
    assert [tool for tool, _ in server.calls] == ["reserve"]
    effects = {effect["step"]: effect for effect in shown["open_effects"]}
    assert effects["/do/0/reserve"]["function"] == "unreserve" and "not undone" in effects["/do/0/reserve"]["why"]
    assert "Effects left open: /do/0/reserve" in shown["summary"]


async def test_a_run_past_its_deadline_has_left_nothing_open(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "reserve", "release")
    await home.agent(CallbackAgent("sales"))
    await workflows.add("saga", SAGA.replace("- offer", "- pause: {wait: P60D}\n- offer"))
    run = await workflows.start("saga")
    await workflows.reached(run, "SUSPENDED")
    await workflows.pass_time(31 * 86400)
    shown = await workflows.ended(run)
    assert shown["open_effects"] == [] and [tool for tool, _ in server.calls] == ["reserve", "release"]


async def test_a_run_that_undid_its_steps_has_left_nothing_open(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "reserve", "release")
    agent = await home.agent(CallbackAgent("sales"))
    agent.state = "TASK_STATE_FAILED"
    await workflows.add("saga", SAGA)
    run = await workflows.start("saga")
    assert (await workflows.ended(run))["open_effects"] == []
