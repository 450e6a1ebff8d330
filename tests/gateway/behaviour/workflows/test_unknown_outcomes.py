"""A redrive repeats a step that may have had its effect only where the document or the operator says so."""

from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Gate, Workflows

ASK = """
do:
- first: {call: gateway.tool, with: {tool: inventory.check, arguments: {}}}
- pay:
    call: gateway.agent
    with: {agent: bank, input: pay}
    metadata: {gateway: {kind: ai%s}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
SAGA = """
use: {functions: {release: {call: gateway.tool, with: {tool: inventory.release, arguments: {}}}}}
do:
- reserve:
    call: gateway.tool
    with: {tool: inventory.reserve, arguments: {}}
    metadata: {gateway: {compensate: release}}
- fail: {raise: {error: {type: 'urn:tests:no', status: 409, title: No}}}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def redriven(workflows: Workflows, run: str, **body: Any) -> Any:
    return await workflows.desk.ask("POST", f"/api/runs/{run}/redrive", "alice", body)


async def canceled_at_work(home: House, workflows: Workflows, declared: str) -> tuple[str, CallbackAgent]:
    """A run that was canceled while the bank was at work."""
    gate = Gate()
    await home.server("inventory", "check")
    bank = await home.agent(CallbackAgent("bank", gate.act))
    await workflows.add("payment", ASK % declared)
    run = await workflows.start("payment")
    await gate.reached.wait()
    assert (await workflows.desk.ask("POST", f"/api/runs/{run}/cancel", "alice", {})).status_code < 300
    gate.opened.set()
    await workflows.ended(run)
    return run, bank


async def test_a_step_that_was_at_work_is_repeated_only_when_the_owner_says_so(home: House, workflows: Workflows) -> None:
    run, bank = await canceled_at_work(home, workflows, "")
    refused = await redriven(workflows, run)
    assert (refused.status_code, refused.json()["reason_id"]) == (409, "run-repeats-unknown")
    assert "/do/1/pay" in refused.json()["detail"] and len(bank.requests) == 1
    following = (await redriven(workflows, run, repeat_unknown=True)).json()["id"]
    assert await workflows.output(following) == "done: pay"
    (record,) = (await workflows.desk.ask("GET", "/api/audit?kind=run-redriven", "admin")).json()["items"]
    assert record["repeated"] == ["/do/1/pay"] and len(bank.requests) == 2


async def test_a_step_that_is_declared_idempotent_is_repeated(home: House, workflows: Workflows) -> None:
    run, _ = await canceled_at_work(home, workflows, ", idempotent: true")
    assert await workflows.output((await redriven(workflows, run)).json()["id"]) == "done: pay"


async def test_a_step_that_could_not_be_undone_is_not_repeated(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "reserve", "release")
    plain = server.result
    broken = {"content": [], "isError": True, "resultType": "complete"}
    server.result = lambda params: broken if params.get("name") == "release" else plain(params)  # type: ignore[method-assign]  # one tool
    await workflows.add("saga", SAGA)
    run = await workflows.start("saga")
    await workflows.ended(run)
    refused = await redriven(workflows, run)
    assert refused.json()["reason_id"] == "run-repeats-unknown" and "/do/0/reserve" in refused.json()["detail"]
    server.result = plain  # type: ignore[method-assign]  # one tool
    await workflows.ended((await redriven(workflows, run, repeat_unknown=True)).json()["id"])
    assert [tool for tool, _ in server.calls] == ["reserve", "release", "reserve", "release"]
