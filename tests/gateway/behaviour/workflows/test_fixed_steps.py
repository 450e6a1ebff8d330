"""Fixed steps reach only tools that operators marked as model-free, computations are exact, and people decide where agents disagree."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.workflows import Workflows, output_of

FIXED = """
do:
- check:
    call: gateway.tool
    with: {tool: inventory.check, arguments: {sku: one}}
    metadata: {gateway: {kind: deterministic}}
"""
SUM = """
do:
- total:
    call: gateway.compute
    with: {code: 'sum(price * count for price, count in lines)', inputs: {lines: '${ .lines }'}}
"""
CHECKED = """
do:
- ask:
    call: gateway.agent
    with: {agent: sales, input: hi}
    metadata: {gateway: {kind: ai, check: {agent: audit}}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
DISAGREES = {"data": {"agrees": False, "reason": "too cheap"}}


@pytest.fixture
async def workflows(home: House) -> Workflows:
    await home.server("inventory", "check")
    return Workflows(home)


async def mark(workflows: Workflows, *tools: str) -> None:
    changed = await workflows.desk.ask("PATCH", "/api/servers/inventory", body={"model_free": list(tools)})
    assert changed.json()["model_free"] == list(tools)
    await workflows.home.gateway.database.refresh_epochs()


async def test_a_fixed_step_reaches_marked_tools_alone(workflows: Workflows) -> None:
    (problem,) = await workflows.refused("fixed", FIXED)
    assert (problem["path"], problem["line"]) == ("/do/0/check/with/tool", 7)
    assert "no operator marked the tool `inventory.check` as model-free" in problem["reason"]
    await mark(workflows, "check")
    await workflows.add("fixed", FIXED)
    assert (await workflows.run("fixed"))["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_mark_that_is_gone_stops_the_step(workflows: Workflows) -> None:
    await mark(workflows, "check")
    await workflows.add("fixed", f"{FIXED.rstrip()}\n".replace("- check:", "- first: {wait: PT1H}\n- check:"))
    run = await workflows.start("fixed")
    await workflows.reached(run, "SUSPENDED")
    await mark(workflows)
    await workflows.pass_time(3601)
    assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"
    task = (await workflows.desk.ask("GET", f"/api/tasks/{run}", "alice")).json()
    assert "tool inventory.check is not marked as model-free" in str(task["status"])


@pytest.fixture
async def computing(tmp_path: Path, database_url: str) -> AsyncIterator[Workflows]:
    async with house(tmp_path / "computing", database_url, sandbox="on") as home:
        yield Workflows(home)


async def test_a_computation_is_exact(computing: Workflows) -> None:
    added = await computing.add("total", SUM)
    assert added["ceiling"] == ["tool:sandbox.python"]
    task = await computing.run("total", {"lines": [[0.1, 3], [19.99, 2]]}, user="carol")
    assert output_of(task) == "40.28"


async def test_a_computation_that_fails_or_is_inexact_is_an_error(computing: Workflows) -> None:
    await computing.add("total", SUM.replace("sum(price * count for price, count in lines)", "1 / 3"))
    task = await computing.run("total", {"lines": []}, user="carol")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert "/do/0/total" in str(task["status"]) and "float" in str(task["status"])


async def test_a_computation_without_the_sandbox_is_refused(workflows: Workflows) -> None:
    (problem,) = await workflows.refused("total", SUM)
    assert problem["path"] == "/do/0/total/call" and "sandbox" in problem["reason"]


@pytest.mark.parametrize(("chosen", "state"), [("accept", "TASK_STATE_COMPLETED"), ("reject", "TASK_STATE_FAILED")])
async def test_people_decide_where_agents_disagree(home: House, workflows: Workflows, chosen: str, state: str) -> None:
    await home.agent(CallbackAgent("sales"))
    audit = await home.agent(CallbackAgent("audit"))
    audit.more = [DISAGREES]
    added = await workflows.add("checked", CHECKED)
    assert added["ceiling"] == ["agent:audit", "agent:sales"]
    run = await workflows.start("checked")
    await workflows.reached(run, "INPUT_REQUIRED")
    (checkpoint,) = await workflows.checkpoints()
    assert "too cheap" in checkpoint["prompt"] and checkpoint["schema"] == {"type": "string", "enum": ["accept", "reject"]}
    assert (await workflows.answer(checkpoint["id"], chosen, "alice")).status_code == 200
    assert (await workflows.ended(run))["state"] == state
