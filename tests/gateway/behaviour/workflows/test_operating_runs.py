"""Operating runs: they are paused and resumed, get signals, go on from a failed step, and are forked from any step."""

from typing import Any

import pytest

from gateway.workflows.runs.store import RunKey, Suspension
from tests.fakes.house import CallbackAgent, House
from tests.fakes.waiting import until
from tests.fakes.workflows import Gate, Workflows

AI = """
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
TWO = """
do:
- first:
    call: gateway.agent
    with: {agent: sales, input: one}
@
- second:
    call: gateway.agent
    with: {agent: slow, input: '${ . }'}
@
- result: {set: {said: '${ . }'}}
""".replace("@", AI.strip("\n"))
SIGNAL = """
do:
- arrival:
    call: gateway.signal
    with: {name: arrived, schema: {type: object, required: [pallets]}, expires: P2D}
- result: {set: {pallets: '${ .pallets }'}}
"""
SAGA = (
    """
use:
  functions:
    unreserve: {call: gateway.tool, with: {tool: inventory.release, arguments: {}}}
do:
- check: {call: gateway.tool, with: {tool: inventory.check, arguments: {}}}
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


async def act(workflows: Workflows, run: str, verb: str, user: str = "alice", **body: Any) -> Any:
    return await workflows.desk.ask("POST", f"/api/runs/{run}/{verb}", user, body)


async def began(workflows: Workflows, run: str, verb: str, **body: Any) -> str:
    """The id of the run that goes on from another one."""
    answer = await act(workflows, run, verb, **body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def recorded(workflows: Workflows, kind: str) -> list[dict[str, Any]]:
    items = (await workflows.desk.ask("GET", f"/api/audit?kind={kind}", "admin")).json()["items"]
    return [each for each in items if each["kind"] == kind]


async def paused_at_second(home: House, workflows: Workflows) -> tuple[str, Gate, CallbackAgent]:
    """A run whose pause was asked for during its first step."""
    gate, slow = Gate(), CallbackAgent("slow")
    await home.agent(CallbackAgent("sales", gate.act))
    await home.agent(slow)
    await workflows.add("two", TWO)
    run = await workflows.start("two")
    await gate.reached.wait()
    assert (await act(workflows, run, "pause")).status_code == 204
    gate.opened.set()
    return run, gate, slow


async def test_a_paused_run_ends_the_step_at_work_and_starts_no_other(home: House, workflows: Workflows) -> None:
    run, _, slow = await paused_at_second(home, workflows)
    shown = await workflows.reached(run, "SUSPENDED")
    assert "/do/1/second: is paused" in shown["note"] and shown["paused"]["by"] == shown["owner"]
    await workflows.pass_time(3600)
    assert slow.requests == [] and [step["step"] for step in (await workflows.show(run))["steps"]] == ["/do/0/first"]
    assert (await act(workflows, run, "resume")).status_code == 204
    assert await workflows.output(run) == {"said": "slow got: done: one"}
    assert (await workflows.show(run))["paused"] is None


async def test_a_pause_is_recorded_once_and_refused_after_the_end(home: House, workflows: Workflows) -> None:
    run, _, _ = await paused_at_second(home, workflows)
    assert (await act(workflows, run, "pause")).status_code == 204
    await workflows.reached(run, "SUSPENDED")
    assert [each["task_id"] for each in await recorded(workflows, "run-paused")] == [run]
    for _ in range(2):
        assert (await act(workflows, run, "resume")).status_code == 204
    await workflows.output(run)
    assert len(await recorded(workflows, "run-resumed")) == 1
    assert (await act(workflows, run, "pause")).json()["reason_id"] == "run-not-open"


async def test_others_do_not_operate_a_run_but_operators_do(home: House, workflows: Workflows) -> None:
    run, _, _ = await paused_at_second(home, workflows)
    assert (await act(workflows, run, "resume", "bob")).status_code == 404
    await workflows.reached(run, "SUSPENDED")
    assert (await act(workflows, run, "redrive", "admin")).status_code == 404
    assert (await act(workflows, run, "resume", "admin")).status_code == 204
    await workflows.output(run)
    (record,) = await recorded(workflows, "run-resumed")
    assert record["decision_id"] and "admin" in record["by"]


async def test_a_paused_run_ends_at_its_deadline(home: House, workflows: Workflows) -> None:
    run, _, _ = await paused_at_second(home, workflows)
    await workflows.reached(run, "SUSPENDED")
    await workflows.pass_time(31 * 86400)
    assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"


async def test_a_run_whose_pause_is_over_before_it_stops_goes_on(home: House, workflows: Workflows) -> None:
    gate = Gate()
    await home.agent(CallbackAgent("sales", gate.act))
    await home.agent(CallbackAgent("slow"))
    await workflows.add("two", TWO)
    key = RunKey("default", await workflows.start("two"))
    await gate.reached.wait()
    store = home.gateway.workflows._parts.store
    await store.suspend(key, Suspension(is_paused=True))
    assert (await store.find(key)).wake_at is not None
    await act(workflows, key.id, "pause")
    await store.suspend(key, Suspension(is_paused=True))
    assert (await store.find(key)).wake_at is None
    await act(workflows, key.id, "resume")
    gate.opened.set()
    await workflows.output(key.id)


async def test_a_signal_reaches_the_run_that_waits_for_it_once(workflows: Workflows) -> None:
    await workflows.add("goods", SIGNAL)
    run = await workflows.start("goods")
    shown = await workflows.reached(run, "SUSPENDED")
    assert "waits for the signal arrived" in shown["note"]
    assert await workflows.checkpoints("alice") == []
    assert (await act(workflows, run, "signal", name="left", data={})).json()["reason_id"] == "signal-not-awaited"
    assert (await act(workflows, run, "signal", name="arrived", data={})).status_code == 422
    assert (await act(workflows, run, "signal", name="arrived", data={"pallets": 3})).status_code == 204
    assert await workflows.output(run) == {"pallets": 3}
    assert (await act(workflows, run, "signal", name="arrived", data={"pallets": 4})).status_code == 409
    assert len(await recorded(workflows, "run-signaled")) == 1


async def failed_at_second(home: House, workflows: Workflows) -> tuple[str, CallbackAgent, CallbackAgent]:
    sales, slow = await home.agent(CallbackAgent("sales")), await home.agent(CallbackAgent("slow"))
    slow.state = "TASK_STATE_FAILED"
    await workflows.add("two", TWO)
    run = await workflows.start("two")
    assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"
    return run, sales, slow


async def test_a_redriven_run_goes_on_from_the_failed_step(home: House, workflows: Workflows) -> None:
    run, sales, slow = await failed_at_second(home, workflows)
    slow.state = "TASK_STATE_COMPLETED"
    again = await began(workflows, run, "redrive")
    assert await workflows.output(again) == {"said": "slow got: sales got: one"}
    assert (len(sales.requests), len(slow.requests)) == (1, 2)
    shown = await workflows.show(again)
    assert shown["origin"] == {"run": run, "kind": "redrive", "step": "/do/1/second"}
    assert (await workflows.show(run))["continued_by"] == [again]


async def test_a_run_is_redriven_once(home: House, workflows: Workflows) -> None:
    run, _, slow = await failed_at_second(home, workflows)
    slow.state = "TASK_STATE_COMPLETED"
    first, second = await began(workflows, run, "redrive"), await began(workflows, run, "redrive")
    assert first == second
    await workflows.output(first)
    assert (await act(workflows, first, "redrive")).json()["reason_id"] == "run-not-failed"
    (record,) = await recorded(workflows, "run-redriven")
    assert (record["task_id"], record["origin"]) == (first, run)


async def test_a_redrive_repeats_what_was_undone(home: House, workflows: Workflows) -> None:
    server, sales = await home.server("inventory", "check", "reserve", "release"), await home.agent(CallbackAgent("sales"))
    sales.state = "TASK_STATE_FAILED"
    await workflows.add("saga", SAGA)
    run = await workflows.start("saga")
    await workflows.ended(run)
    sales.state = "TASK_STATE_COMPLETED"
    again = await began(workflows, run, "redrive")
    assert await workflows.output(again) == "sales got: offer"
    assert [tool for tool, _ in server.calls] == ["check", "reserve", "release", "reserve"]


async def test_a_fork_does_not_go_on_from_what_was_undone(home: House, workflows: Workflows) -> None:
    server, sales = await home.server("inventory", "check", "reserve", "release"), await home.agent(CallbackAgent("sales"))
    sales.state = "TASK_STATE_FAILED"
    await workflows.add("saga", SAGA)
    run = await workflows.start("saga")
    await workflows.ended(run)
    sales.state = "TASK_STATE_COMPLETED"
    refused = await act(workflows, run, "fork", step="offer")
    assert (refused.status_code, refused.json()["reason_id"]) == (409, "run-undone")
    assert "/do/1/reserve" in refused.json()["detail"]
    assert await workflows.output(await began(workflows, run, "fork", step="reserve")) == "sales got: offer"
    assert [tool for tool, _ in server.calls] == ["check", "reserve", "release", "reserve"]


async def test_a_redrive_takes_the_new_version_only_where_its_steps_stay(home: House, workflows: Workflows) -> None:
    run, sales, slow = await failed_at_second(home, workflows)
    await home.agent(CallbackAgent("other"))
    await workflows.add("two", TWO.replace("- first", "- begin"))
    assert (await act(workflows, run, "redrive", latest=True)).json()["reason_id"] == "run-steps-changed"
    await workflows.add("two", TWO.replace("agent: slow", "agent: other"))
    again = await began(workflows, run, "redrive", latest=True)
    assert await workflows.output(again) == {"said": "other got: sales got: one"}
    assert (len(sales.requests), len(slow.requests)) == (1, 1)


async def test_a_fork_goes_on_from_a_step_with_another_input(home: House, workflows: Workflows) -> None:
    sales, slow = await home.agent(CallbackAgent("sales")), await home.agent(CallbackAgent("slow"))
    await workflows.add("two", TWO)
    run = await workflows.start("two")
    await workflows.output(run)
    fork = await began(workflows, run, "fork", step="second", input="changed")
    assert await workflows.output(fork) == {"said": "slow got: changed"}
    assert (len(sales.requests), len(slow.requests)) == (1, 2)
    last = await began(workflows, fork, "fork", step="/do/2/result", input="end")
    assert await workflows.output(last) == {"said": "end"}
    assert len(slow.requests) == 2
    assert await began(workflows, run, "fork", step="second", input="changed") == fork


@pytest.mark.parametrize("step", ["third", "/do/0/second", "second"])
async def test_a_fork_at_a_step_that_was_not_reached_is_refused(home: House, workflows: Workflows, step: str) -> None:
    gate = Gate()
    await home.agent(CallbackAgent("sales", gate.act))
    await home.agent(CallbackAgent("slow"))
    await workflows.add("two", TWO)
    run = await workflows.start("two")
    await gate.reached.wait()

    async def has_begun() -> bool:
        return bool((await workflows.show(run))["version"])

    await until(has_begun)
    assert (await act(workflows, run, "fork", step=step)).json()["reason_id"] == "run-step"
    gate.opened.set()
    await workflows.output(run)
