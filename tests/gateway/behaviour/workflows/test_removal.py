"""A workflow with open runs is removed only by force, and each of its runs then ends and says why."""

from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Gate, Workflows

REMOVED = "The workflow was removed"
WAITS = "do:\n- pause: {wait: PT1H}\n"
ASKS = "do:\n- ask: {call: gateway.form, with: {prompt: Name?, schema: {type: object}}}\n"
SIGNAL = "do:\n- ask: {call: gateway.signal, with: {name: go}}\n"
AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
FIRST = f"""
do:
- first: {{call: gateway.agent, with: {{agent: worker, input: one}}, {AI}}}
"""
SECOND = f"- second: {{call: gateway.agent, with: {{agent: worker, input: two}}, {AI}}}\n"


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def removed(workflows: Workflows, name: str, path: str = "/api/workflows/{name}?force=true") -> Any:
    return await workflows.desk.ask("DELETE", path.format(name=name))


async def reason(workflows: Workflows, run: str) -> str:
    shown = await workflows.ended(run)
    assert shown["state"] == "TASK_STATE_FAILED"
    task = (await workflows.desk.ask("GET", f"/api/tasks/{run}", "alice")).json()
    return str(task["status"]["message"]["parts"][0]["text"])


async def test_a_workflow_with_open_runs_stays(workflows: Workflows) -> None:
    await workflows.add("flow", WAITS)
    run = await workflows.start("flow")
    await workflows.reached(run, "SUSPENDED")
    answer = await removed(workflows, "flow", "/api/workflows/{name}")
    assert (answer.status_code, answer.json()["reason_id"]) == (409, "workflow-has-runs"), answer.text
    assert "1 run" in answer.json()["detail"]
    assert (await workflows.show(run))["state"] == "TASK_STATE_WORKING"
    await workflows.desk.ask("POST", f"/api/runs/{run}/cancel", "alice")
    await workflows.ended(run)
    assert (await removed(workflows, "flow", "/api/workflows/{name}")).status_code == 204


async def test_a_workflow_is_not_removed_as_an_agent(workflows: Workflows) -> None:
    await workflows.add("flow", WAITS)
    answer = await removed(workflows, "flow", "/api/agents/{name}")
    assert answer.status_code == 422 and "/api/workflows/flow" in answer.json()["detail"]
    assert (await workflows.desk.ask("GET", "/api/workflows/flow")).status_code == 200


async def test_runs_that_wait_or_are_paused_end_with_the_reason(workflows: Workflows) -> None:
    runs = {}
    for name, body in {"waits": WAITS, "asks": ASKS, "signal": SIGNAL, "paused": WAITS}.items():
        await workflows.add(name, body)
        runs[name] = await workflows.start(name)
        await workflows.reached(runs[name], "SUSPENDED", "INPUT_REQUIRED")
    assert (await workflows.desk.ask("POST", f"/api/runs/{runs['paused']}/pause", "alice")).status_code == 204
    for name, run in runs.items():
        assert (await removed(workflows, name)).status_code == 204
        assert REMOVED in await reason(workflows, run)


async def test_a_run_at_work_ends_at_its_next_step_with_the_reason(home: House, workflows: Workflows) -> None:
    gate = Gate()
    await home.agent(CallbackAgent("worker", gate.act))
    await workflows.add("flow", FIRST + SECOND)
    run = await workflows.start("flow")
    await gate.reached.wait()
    assert (await removed(workflows, "flow")).status_code == 204
    gate.opened.set()
    assert "the workflow was removed" in await reason(workflows, run)
    assert gate.calls == ["one"]


async def test_a_run_that_waits_only_after_the_removal_ends_too(home: House, workflows: Workflows) -> None:
    gate = Gate()
    await home.agent(CallbackAgent("worker", gate.act))
    await workflows.add("flow", FIRST + WAITS.partition("\n")[2])
    run = await workflows.start("flow")
    await gate.reached.wait()
    assert (await removed(workflows, "flow")).status_code == 204
    await home.gateway.database.refresh_epochs()
    await home.gateway.workflows.wake_once()  # the removal is dealt with before the run waits
    gate.opened.set()
    assert REMOVED in await reason(workflows, run)
