"""Undoing: it survives suspensions, a full journal and the deadline, and runs before the run's last state."""

import pytest

from gateway.workflows.interpreter.compensations import ORDER
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.interpreter.errors import WorkflowError
from gateway.workflows.runs import journal
from gateway.workflows.runs.journal import NO_STEP, Journal, Result, StepRow
from gateway.workflows.runs.store import RunKey
from tests.fakes.house import CallbackAgent, House
from tests.fakes.waiting import until
from tests.fakes.workflows import Gate, Workflows

AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
FORK = f"""
use:
  functions:
    undo:
      do:
      - pause: {{wait: PT1H}}
      - tell: {{call: gateway.agent, with: {{agent: sales, input: '${{ "undo " + .output }}'}}, {AI}}}
do:
- seen: {{set: '${{ . }}', export: {{as: '{{seen: true}}'}}}}
- both:
    fork:
      branches:
      - good:
          do:
          - a: {{set: '${{ . }}'}}
          - b: {{set: '${{ . }}'}}
          - act: {{call: gateway.agent, with: {{agent: sales, input: do}}, {AI}}}
          metadata: {{gateway: {{compensate: undo}}}}
      - bad: {{do: [{{x: {{wait: PT1S}}}}, {{y: {{call: gateway.agent, with: {{agent: fails, input: x}}, {AI}}}}}]}}
"""
RESERVE = """
use:
  functions:
    release: {do: [{pause: {wait: PT%s}}, {free: {call: gateway.tool, with: {tool: inventory.release, arguments: {}}}}]}
do:
- reserve:
    call: gateway.tool
    with: {tool: inventory.reserve, arguments: {}}
    metadata: {gateway: {compensate: release}}
- rest: %s
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def test_undoing_goes_on_after_a_suspension_within_it(home: House, workflows: Workflows) -> None:
    seen: list[str] = []

    async def act(_token: str, text: str) -> str:
        seen.append(text)
        return "done"

    await home.agent(CallbackAgent("sales", act))
    (await home.agent(CallbackAgent("fails"))).state = "TASK_STATE_FAILED"
    await workflows.add("forked", FORK)
    run = await workflows.start("forked")
    assert "compensate" in (await workflows.reached(run, "SUSPENDED"))["note"]
    await workflows.pass_time(3601)
    shown = await workflows.ended(run)
    assert seen == ["do", "undo done"]
    assert shown["fault"]["instance"] == "/do/1/both/fork/branches/1/bad/do/1/y"
    assert shown["open_effects"] == [] and "not undone" not in shown["fault"]["detail"]


async def test_a_run_that_fills_its_journal_is_undone(home: House, workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ENTRIES_MAX", 5)
    server = await home.server("inventory", "reserve", "release")
    again = "{for: {in: '${ [range(9)] }'}, do: [{again: {call: gateway.tool, with: {tool: inventory.reserve, arguments: {}}}}]}"
    await workflows.add("full", RESERVE % ("0S", again))
    shown = await workflows.ended(await workflows.start("full"))
    assert "effects" in shown["fault"]["detail"] and "not undone" not in shown["fault"]["detail"]
    assert [tool for tool, _ in server.calls] == ["reserve"] * 5 + ["release"]


@pytest.mark.parametrize(("place", "bound"), [(NO_STEP, "^the run has more than 2 "), (ORDER, "^the undoing of the run has more than 6 ")])
async def test_a_full_journal_names_the_bound_that_applies(
    workflows: Workflows, monkeypatch: pytest.MonkeyPatch, place: StepKey, bound: str
) -> None:
    monkeypatch.setattr(journal, "ENTRIES_MAX", 2)
    monkeypatch.setattr(journal, "UNDO_ENTRIES", 3)
    steps = {str(each): StepRow(str(each), journal.CALL, "", 0, 0, Result(value=each), place) for each in range(6)}
    with pytest.raises(WorkflowError, match=bound):
        Journal(workflows.home.gateway.workflows._parts.store, RunKey("t", "r"), steps).check_room(place)


@pytest.mark.parametrize(("place", "bound"), [(NO_STEP, 20), (ORDER, 40)])
async def test_a_result_that_is_too_large_names_the_bound_that_applies(
    workflows: Workflows, monkeypatch: pytest.MonkeyPatch, place: StepKey, bound: int
) -> None:
    monkeypatch.setattr(journal, "RESULT_MAX", 20)
    monkeypatch.setattr(journal, "PLAN_MAX", 40)
    step = StepRow("k", journal.CALL, "", 0, 0, Result(value="x" * 50), place)
    with pytest.raises(WorkflowError, match=f"more than {bound}$"):
        await Journal(workflows.home.gateway.workflows._parts.store, RunKey("t", "r"), {}).add(step)


@pytest.mark.parametrize("rest", ["{set: {x: '${ [range(200000)] }'}}", "{set: {x: 1}, export: {as: '[range(200000)]'}}"])
async def test_values_that_a_run_sets_and_exports_count_towards_its_size(
    home: House, workflows: Workflows, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    monkeypatch.setattr(journal, "RUN_MAX", 1 << 20)
    server = await home.server("inventory", "reserve", "release")
    await workflows.add("large", RESERVE % ("0S", rest))
    shown = await workflows.ended(await workflows.start("large"))
    assert "of values that it has set or exported" in shown["fault"]["detail"], shown
    assert [tool for tool, _ in server.calls] == ["reserve", "release"]


async def test_values_that_replace_each_other_count_once(workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "RUN_MAX", 1 << 20)
    keep = "{keep: {set: {x: '${ [range(10000)] }'}, export: {as: .}}}"
    loop = f"do:\n- each: {{for: {{in: '${{ [range(50)] }}'}}, do: [{keep}]}}\n- end: {{set: {{x: 1}}}}\n"
    await workflows.add("loop", loop)
    assert (await workflows.ended(await workflows.start("loop")))["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize(("seconds", "is_undone"), [("30M", True), ("2H", False)])
async def test_a_run_is_undone_at_its_deadline_within_an_hour(home: House, workflows: Workflows, seconds: str, is_undone: bool) -> None:
    server = await home.server("inventory", "reserve", "release")
    await workflows.add("late", RESERVE % (seconds, "{wait: P60D}"))
    run = await workflows.start("late")
    await workflows.reached(run, "SUSPENDED")
    await workflows.pass_time(30 * 86400 + 10)

    async def is_undoing() -> bool:
        return "compensate" in (await workflows.show(run))["note"]

    await until(is_undoing)
    await workflows.pass_time(31 * 60 if is_undone else 61 * 60)
    shown = await workflows.ended(run)
    assert shown["state"] == "TASK_STATE_FAILED" and shown["fault"]["title"] == "Deadline Passed"
    assert [tool for tool, _ in server.calls] == ["reserve"] + ["release"] * is_undone
    assert bool(shown["open_effects"]) is not is_undone


async def test_a_step_at_work_at_the_deadline_is_canceled_and_the_others_undone(home: House, workflows: Workflows) -> None:
    server, gate = await home.server("inventory", "reserve", "release"), Gate()
    await home.agent(CallbackAgent("slow", gate.act))
    rest = "{do: [{pause: {wait: P29D}}, {ask: {call: gateway.agent, with: {agent: slow, input: x}, " + AI + "}}]}"
    await workflows.add("late", RESERVE % ("0S", rest))
    run = await workflows.start("late")
    await workflows.reached(run, "SUSPENDED")
    await workflows.pass_time(30 * 86400 - 3)
    await gate.reached.wait()
    shown = await workflows.ended(run)
    gate.opened.set()
    assert shown["fault"]["title"] == "Deadline Passed"
    assert [tool for tool, _ in server.calls] == ["reserve", "release"]
    assert [effect["target"] for effect in shown["open_effects"]] == ["agent slow"]


async def test_a_paused_run_is_undone_at_its_deadline(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "reserve", "release")
    await workflows.add("late", RESERVE % ("0S", "{wait: P60D}"))
    run = await workflows.start("late")
    await workflows.reached(run, "SUSPENDED")
    assert (await workflows.desk.ask("POST", f"/api/runs/{run}/pause", "alice", {})).status_code == 204
    await workflows.pass_time(31 * 86400)
    assert (await workflows.ended(run))["open_effects"] == []
    assert [tool for tool, _ in server.calls] == ["reserve", "release"]
