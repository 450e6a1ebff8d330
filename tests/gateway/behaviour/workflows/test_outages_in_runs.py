"""Outages: a run whose database fails goes on by itself when it is back. Nothing is lost, nothing is done twice, nothing is canceled."""

import pytest

from gateway.tasks import log as task_log
from gateway.workflows.runs.store import RunKey, RunStore
from tests.fakes.house import CallbackAgent, House
from tests.fakes.outages import Fate, Shaky, read_only
from tests.fakes.waiting import until
from tests.fakes.workflows import Gate, Workflows

AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
BOTH = f"""
do:
- both:
    fork:
      branches:
      - one: {{call: gateway.agent, with: {{agent: sales, input: one}}, {AI}}}
      - other:
          do:
          - pause: {{wait: {{milliseconds: 1}}}}
          - ask: {{call: gateway.agent, with: {{agent: stock, input: other}}, {AI}}}
- end: {{call: gateway.agent, with: {{agent: sales, input: end}}, {AI}}}
"""
SLOW = f"""
do:
- both:
    fork:
      branches:
      - one: {{call: gateway.agent, with: {{agent: slow, input: one}}, {AI}}}
      - other: {{for: {{in: '${{ [range(500)] }}'}}, do: [{{pause: {{wait: {{milliseconds: 5}}}}}}]}}
"""
BROKEN = f"""
use: {{functions: {{release: {{call: gateway.tool, with: {{tool: inventory.release, arguments: {{}}}}}}}}}}
do:
- reserve:
    call: gateway.tool
    with: {{tool: inventory.reserve, arguments: {{}}}}
    metadata: {{gateway: {{compensate: release}}}}
- ask: {{call: gateway.agent, with: {{agent: sales, input: one}}, {AI}}}
"""


@pytest.fixture
async def workflows(home: House, monkeypatch: pytest.MonkeyPatch) -> Workflows:
    monkeypatch.setattr(task_log, "RECENTLY_MOVED_US", 0)
    return Workflows(home)


def store_of(home: House) -> RunStore:
    return home.gateway.workflows._parts.store


async def recovered(home: House, workflows: Workflows, run: str) -> str:
    """The state of a run once it has ended, whichever turn ends it."""
    state = ""

    async def has_ended() -> bool:
        nonlocal state
        await home.gateway.takeover.run_once()
        state = (await workflows.desk.ask("GET", f"/api/tasks/{run}", "alice")).json()["state"]
        return state not in ("TASK_STATE_WORKING", "TASK_STATE_SUBMITTED")

    await until(has_ended)
    return state


@pytest.mark.parametrize("fate", ["refused", "kept unseen"])
async def test_a_write_that_fails_neither_ends_a_run_nor_repeats_a_step(home: House, workflows: Workflows, fate: Fate) -> None:
    sales, stock = await home.agent(CallbackAgent("sales")), await home.agent(CallbackAgent("stock"))
    await workflows.add("both", BOTH)
    store = store_of(home)
    shaky = Shaky(store.database)
    store.database = shaky  # type: ignore[assignment]  # as far as runs use it
    for number in range(6):
        shaky.writes = [*(["kept"] * number), fate]
        run = await workflows.start("both")
        assert await recovered(home, workflows, run) == "TASK_STATE_COMPLETED"
        assert not shaky.writes
        assert (len(sales.requests), len(stock.requests)) == (2 * (number + 1), number + 1)


async def test_a_read_that_fails_does_not_end_a_run(home: House, workflows: Workflows) -> None:
    gate = Gate()
    slow = await home.agent(CallbackAgent("slow", gate.act))
    await workflows.add("beside", SLOW.replace("range(500)", "range(2)"))
    store = store_of(home)
    shaky = Shaky(store.database)
    store.database = shaky  # type: ignore[assignment]  # as far as runs use it
    shaky.reads = 3
    run = await workflows.start("beside")
    gate.opened.set()
    assert await recovered(home, workflows, run) == "TASK_STATE_COMPLETED"
    assert (shaky.reads, len(slow.requests)) == (0, 1)


async def test_an_outage_in_one_branch_leaves_the_step_of_another_at_work(home: House, workflows: Workflows) -> None:
    gate = Gate()
    slow = await home.agent(CallbackAgent("slow", gate.act))
    await workflows.add("beside", SLOW)
    run = await workflows.start("beside")
    await gate.reached.wait()
    async with read_only(home.gateway.database):

        async def is_left() -> bool:
            return run not in home.gateway.calls.parts.in_flight

        await until(is_left)
    gate.opened.set()
    assert await recovered(home, workflows, run) == "TASK_STATE_COMPLETED"
    assert len(slow.requests) == 1


async def test_a_defect_of_the_gateway_undoes_the_run_and_says_so(
    home: House, workflows: Workflows, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await home.server("inventory", "reserve", "release")
    await home.agent(CallbackAgent("sales"))
    await workflows.add("broken", BROKEN)
    calls = home.gateway.calls.agents
    start = calls.start

    async def break_down(caller: object, request: object) -> object:
        if request.agent == "sales":  # type: ignore[attr-defined]  # of the steps alone
            raise KeyError("sales")
        return await start(caller, request)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(calls, "start", break_down)
    run = await workflows.start("broken")
    shown = await workflows.ended(run)
    assert shown["fault"]["type"] == "urn:interlock:error:gateway-failure" and "KeyError" in shown["fault"]["detail"]
    assert [tool for tool, _ in server.calls] == ["reserve", "release"] and shown["open_effects"] == []


async def test_a_step_that_was_begun_with_another_input_is_not_repeated(home: House, workflows: Workflows) -> None:
    server, gate = await home.server("inventory", "reserve", "release"), Gate()
    await home.agent(CallbackAgent("sales", gate.act))
    await workflows.add("broken", BROKEN)
    run = await workflows.start("broken")
    await gate.reached.wait()
    change = "UPDATE tasks SET request_digest = 'another' WHERE parent_id = ? AND agent = 'sales'"
    await home.gateway.database.write(lambda batch: batch.run(change, (run,)))
    turn = home.gateway.calls.parts.in_flight._waiting_tasks.pop(run)
    turn.cancel()
    assert await recovered(home, workflows, run) == "TASK_STATE_FAILED"
    gate.opened.set()
    shown = await workflows.show(run)
    assert shown["fault"]["type"] == "urn:interlock:error:outcome-unknown"
    assert [tool for tool, _ in server.calls] == ["reserve", "release"]


async def test_a_run_waits_for_a_release_that_takes_its_document(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "reserve", "release")
    await home.agent(CallbackAgent("sales"))
    await workflows.add("broken", BROKEN.replace("- ask", "- pause: {wait: PT1H}\n- ask"))
    run = await workflows.start("broken")
    await workflows.reached(run, "SUSPENDED")
    versions = home.gateway.workflows._parts.versions
    set_document = "UPDATE workflow_versions SET document = ? WHERE name = 'broken'"
    text = await versions._store.document_of("default", "broken", (await workflows.show(run))["version"])
    versions._documents.clear()
    await home.gateway.database.write(lambda batch: batch.run(set_document, ("do: [later]",)))
    await workflows.pass_time(3601)

    async def is_left() -> bool:
        return "another release" in (await workflows.show(run))["note"]

    await until(is_left)
    row = await store_of(home).find(RunKey("default", run))
    assert row is not None and (row.wake_at or 0) > store_of(home).now()
    await home.gateway.database.write(lambda batch: batch.run(set_document, (text,)))
    await workflows.pass_time(61)
    assert (await workflows.ended(run))["state"] == "TASK_STATE_COMPLETED"
