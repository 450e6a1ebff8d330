"""A run outlives the token that started it, and its steps count on roles that the person's provider vouched for lately."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.task import TaskState
from gateway.server.composition.process import Gateway
from gateway.storage.tables import metadata as gateway_tables
from policies.tables import metadata as policy_tables
from tests.fakes.provider_runs import DAY, PAUSE, ProviderRuns, provider_runs
from tests.fakes.waiting import until

BRIEF = "document: {dsl: 1.0.3, namespace: tests, name: brief, version: 1.0.0, metadata: {gateway: {deadline: PT1H}}}\n"
BRIEF += "do:\n- go: {run: {workflow: {namespace: tests, name: quick}, await: false}}\n"
HOUR = PAUSE.replace("PT48H", "PT23H")


@pytest.fixture
async def people(tmp_path: Path, database_url: str) -> AsyncIterator[ProviderRuns]:
    async with provider_runs(tmp_path, database_url) as built:
        await built.workflows.add("patient", PAUSE)
        await built.workflows.add("quick", HOUR)
        yield built


async def reach(people: ProviderRuns, run: str, state: TaskState) -> None:
    async def is_there() -> bool:
        row = await people.row(run)
        return row.state is state and (state is not TaskState.WORKING or not row.runner)

    await until(is_there)


async def reason(people: ProviderRuns, run: str) -> str:
    task = (await people.workflows.desk.ask("GET", f"/api/tasks/{run}", token=people.token())).json()
    return str(task["status"]["message"]["parts"][0]["text"])


async def wait_for_sign_in(people: ProviderRuns, workflow: str = "patient") -> str:
    """A run that has waited for two days, and now waits for its owner."""
    run = await people.start(workflow)
    await reach(people, run, TaskState.WORKING)
    await people.pass_time(2 * DAY + 1)
    await reach(people, run, TaskState.AUTH_REQUIRED)
    return run


async def test_a_run_outlives_the_token_that_started_it(people: ProviderRuns) -> None:
    run = await people.start("quick")
    await reach(people, run, TaskState.WORKING)
    await people.pass_time(23 * 3600 + 1)
    await reach(people, run, TaskState.COMPLETED)
    assert await people.output(run, people.token()) == "sales got: hi"


async def test_a_detached_run_outlives_the_authority_of_the_one_that_started_it(people: ProviderRuns) -> None:
    desk = people.workflows.desk
    assert (await desk.post("/api/workflows", document=BRIEF)).status_code == 201
    await people.home.gateway.database.refresh_epochs()
    run = await people.start("brief")
    await reach(people, run, TaskState.COMPLETED)
    shown = (await desk.ask("GET", f"/api/runs/{run}", token=people.token())).json()
    child = str(shown["steps"][0]["task_id"])
    await people.pass_time(23 * 3600 + 1)
    await reach(people, child, TaskState.COMPLETED)
    assert await people.output(child, people.token()) == "sales got: hi"


async def test_roles_that_count_no_more_suspend_the_run_at_its_next_step(people: ProviderRuns) -> None:
    run = await wait_for_sign_in(people)
    await people.workflows.pass_time(1)
    assert (await people.row(run)).state is TaskState.AUTH_REQUIRED


@pytest.mark.parametrize("door", ["GetTask", "SendMessage", "/api/tasks", "/api/runs", "resume"])
async def test_the_run_goes_on_when_its_owner_signs_in_and_touches_it(people: ProviderRuns, door: str) -> None:
    run = await wait_for_sign_in(people)
    token, desk = people.token(), people.workflows.desk
    if door == "GetTask":
        await people.home.send_get(token, "patient", run)
    elif door == "SendMessage":
        await people.home.send(token, "patient", "go on", taskId=run)
    elif door == "resume":
        assert (await desk.ask("POST", f"/api/runs/{run}/resume", token=token)).status_code == 204
    else:
        assert (await desk.ask("GET", f"{door}/{run}", token=token)).status_code == 200
    await reach(people, run, TaskState.COMPLETED)
    assert await people.output(run, token) == "sales got: hi"


class StuckTakeover:
    """A takeover that resumes one run, and never comes to an end with another."""

    def __init__(self, gateway: Gateway, fast: str) -> None:
        self._resume = gateway.workflows._waker._takeover.resume
        self._fast = fast

    async def resume(self, row: Any, ending: Any) -> str:
        if row.id != self._fast:
            await asyncio.Event().wait()
        return await self._resume(row, ending)


async def test_a_look_at_a_run_waits_for_no_run_of_others(people: ProviderRuns) -> None:
    run, other = await wait_for_sign_in(people), await people.start("quick")
    await reach(people, other, TaskState.WORKING)
    gateway = people.home.gateway
    await gateway.periodic_tasks.stop()
    waker = gateway.workflows._waker
    waker._takeover = StuckTakeover(gateway, run)  # type: ignore[assignment]  # the part of it that is used
    wake = "UPDATE workflow_runs SET wake_at = 1 WHERE id = ?"
    await gateway.database.write(lambda batch: batch.run(wake, (other,)))
    async with asyncio.timeout(20):
        shown = await people.workflows.desk.ask("GET", f"/api/runs/{run}", token=people.token())
    assert shown.status_code == 200
    await reach(people, run, TaskState.COMPLETED)


async def test_nobody_else_renews_the_roles_of_a_run(people: ProviderRuns) -> None:
    run = await wait_for_sign_in(people)
    assert "error" in await people.home.send_get(people.home.token("admin"), "patient", run)
    assert "error" in await people.home.send_get(people.issuer.mint(sub="eve", roles=["sales"]), "patient", run)
    await people.workflows.pass_time(1)
    assert (await people.row(run)).state is TaskState.AUTH_REQUIRED


async def test_the_roles_of_the_new_token_count_and_not_those_of_the_first(people: ProviderRuns) -> None:
    run = await wait_for_sign_in(people)
    token = people.token("nobody")
    await people.workflows.desk.ask("POST", f"/api/runs/{run}/resume", token=token)
    await reach(people, run, TaskState.REJECTED)
    assert "may not run patient any more (user-lacks-permission)" in await reason(people, run)


async def test_a_look_every_day_keeps_a_run_from_waiting(people: ProviderRuns) -> None:
    run = await people.start("patient")
    await reach(people, run, TaskState.WORKING)
    for _ in range(3):
        await people.pass_time(20 * 3600)
        await people.home.send_get(people.token(), "patient", run)
    await reach(people, run, TaskState.COMPLETED)
    assert await people.output(run, people.token()) == "sales got: hi"


async def test_no_token_is_stored_with_a_run(people: ProviderRuns) -> None:
    token = people.token()
    body = {"workflow": "patient", "input": {}}
    run = (await people.workflows.desk.ask("POST", "/api/runs", body=body, token=token)).json()["id"]
    await reach(people, run, TaskState.WORKING)
    signature = token.rpartition(".")[2]
    tables = ("grants", "tasks", "task_events", "workflow_runs", "workflow_steps")
    found = [await _count(people, table, signature) for table in tables]
    assert found == [0] * len(tables)


async def _count(people: ProviderRuns, table: str, text: str) -> int:
    """How many rows of a table have the text."""
    tables = {**gateway_tables.tables, **policy_tables.tables}
    rows = await people.home.gateway.database.read(lambda connection: connection.execute(tables[table].select()).all())
    assert rows or table == "workflow_steps"
    return sum(text in str(row) for row in rows)


async def test_the_operator_bounds_the_authority_of_runs(tmp_path: Path, database_url: str) -> None:
    async with provider_runs(tmp_path, database_url, identity={"run_ttl": 3600}) as people:
        await people.workflows.add("quick", HOUR)
        run = await people.start("quick")
        await reach(people, run, TaskState.WORKING)
        await people.pass_time(23 * 3600 + 1)
        await reach(people, run, TaskState.FAILED)
        assert "the rights under which it was started have ended" in await reason(people, run)


async def test_development_users_have_the_roles_of_the_settings_at_any_time(people: ProviderRuns) -> None:
    run = await people.workflows.start("patient")
    await people.workflows.reached(run, "SUSPENDED")
    await people.pass_time(2 * DAY + 1)
    assert await people.workflows.output(run) == "sales got: hi"
