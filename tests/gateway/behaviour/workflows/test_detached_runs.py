"""Runs that another run starts and does not wait for."""

import pytest
from sqlalchemy import select

from gateway.storage.tables import tasks
from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Workflows

CHILD = """
do:
- pause: {wait: PT1H}
- ask:
    call: gateway.agent
    with: {agent: sales, input: '${ "about " + (.about // "nothing") }'}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
PARENT = """
do:
- start: {run: {workflow: {namespace: tests, name: child, input: {about: '${ .about }'}}, await: false}}
- pause: {wait: PT30M}
- result: {set: {about: '${ .about }'}}
"""
BACK = "do:\n- pause: {wait: PT1S}\n- start: {run: {workflow: {namespace: tests, name: parent, input: {}}, await: false}}\n"


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def runs_of(home: House, name: str) -> list[tuple[str, str, str, str]]:
    """Id, owner, parent and state of each."""
    query = select(tasks.c.id, tasks.c.owner, tasks.c.parent_id, tasks.c.state).where(tasks.c.agent == name).order_by(tasks.c.created)
    return [tuple(row) for row in await home.gateway.database.read(lambda connection: connection.execute(query).all())]


async def test_a_detached_run_outlives_the_one_that_started_it(home: House, workflows: Workflows) -> None:
    sales = await home.agent(CallbackAgent("sales"))
    await workflows.add("child", CHILD)
    await workflows.add("parent", PARENT)
    parent = await workflows.start("parent", {"about": "tea"})
    await workflows.reached(parent, "SUSPENDED")
    ((child, owner, cause, _),) = await runs_of(home, "child")
    assert (owner.endswith("|alice"), cause) == (True, "")
    await workflows.pass_time(1801)
    assert await workflows.output(parent) == {"about": "tea"}
    assert (await workflows.reached(child, "SUSPENDED"))["state"] == "TASK_STATE_WORKING"
    await workflows.pass_time(1801)
    assert await workflows.output(child) == "sales got: about tea"
    assert (len(await runs_of(home, "child")), len(sales.requests)) == (1, 1)
    (step, *_) = (await workflows.show(parent))["steps"]
    assert step["task_id"] == child


async def test_canceling_a_run_leaves_what_it_detached(home: House, workflows: Workflows) -> None:
    await home.agent(CallbackAgent("sales"))
    await workflows.add("child", CHILD)
    await workflows.add("parent", PARENT)
    parent = await workflows.start("parent", {"about": "tea"})
    await workflows.reached(parent, "SUSPENDED")
    await workflows.desk.ask("POST", f"/api/runs/{parent}/cancel", "alice")
    ((child, *_),) = await runs_of(home, "child")
    await workflows.ended(parent)
    assert (await workflows.reached(child, "SUSPENDED"))["state"] == "TASK_STATE_WORKING"


async def test_detached_runs_do_not_start_each_other_for_ever(home: House, workflows: Workflows) -> None:
    await home.agent(CallbackAgent("sales"))
    await workflows.add("child", CHILD)
    await workflows.add("parent", PARENT)
    (problem,) = await workflows.refused("child", BACK)
    assert problem["path"] == "/do/1/start/run/workflow/name" and "leads back to this workflow" in problem["reason"]
