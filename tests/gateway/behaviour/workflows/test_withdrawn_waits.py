"""What a run waits for no longer is withdrawn: checkpoints, tasks and listening steps of branches that lost, and all of ended runs."""

from typing import Any

import pytest
from sqlalchemy import text

from adapters.contract import Failed
from tests.fakes.house import CallbackAgent, House
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
ASK = "{call: gateway.choose, with: {prompt: 'Which?', options: [a, b]}}"
COMPETE = """
do:
- race:
    fork:
      compete: true
      branches:
      - slow: %s
      - fast: {wait: PT1H}
- later: {wait: PT2H}
"""
LATE = """
do:
- attempt:
    try:
    - ask: {call: gateway.choose, with: {prompt: 'Which?', options: [a, b]}, timeout: {after: PT1H}}
    catch: {do: [{late: {wait: PT2H}}]}
"""
FAILING = """
do:
- attempt:
    try:
    - both:
        fork:
          branches:
          - ask: {call: gateway.choose, with: {prompt: 'Which?', options: [a, b]}}
          - fail: {do: [{pause: {wait: PT1H}}, {no: {raise: {error: {type: 'urn:tests:no', status: 409}}}}]}
    catch: {do: [{late: {wait: PT2H}}]}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def gone_on(workflows: Workflows, body: str) -> dict[str, Any]:
    """A run that has gone on without one of its branches, and waits for something else."""
    await workflows.add("race", body)
    run = await workflows.start("race")
    await workflows.reached(run, "SUSPENDED", "INPUT_REQUIRED")
    await workflows.pass_time(3601)

    async def has_gone_on() -> bool:
        note = (await workflows.show(run))["note"]
        return "/later" in note or "/late:" in note

    await until(has_gone_on)
    return await workflows.show(run)


async def recorded(workflows: Workflows) -> list[str]:
    items = (await workflows.desk.ask("GET", "/api/audit?kind=checkpoint-withdrawn", "admin")).json()["items"]
    return [each["step"] for each in items]


@pytest.mark.parametrize(
    ("body", "step"),
    [
        (COMPETE % ASK, "/do/0/race/fork/branches/0/slow"),
        (LATE, "/do/0/attempt/try/0/ask"),
        (FAILING, "/do/0/attempt/try/0/both/fork/branches/0/ask"),
    ],
    ids=["compete", "timeout", "failed"],
)
async def test_the_checkpoint_of_a_branch_that_lost_is_withdrawn(workflows: Workflows, body: str, step: str) -> None:
    shown = await gone_on(workflows, body)
    assert shown["state"] == "TASK_STATE_WORKING" and "Which?" not in shown["note"]
    (checkpoint,) = shown["checkpoints"]
    assert checkpoint["state"] == "withdrawn" and await workflows.checkpoints("alice") == []
    assert await recorded(workflows) == [step]
    assert (await workflows.answer(checkpoint["id"], "a", "alice")).json()["reason_id"] == "checkpoint-closed"
    await workflows.pass_time(7201)
    assert (await workflows.ended(shown["id"]))["state"] == "TASK_STATE_COMPLETED"


async def test_the_task_of_a_branch_that_lost_is_canceled(home: House, workflows: Workflows) -> None:
    (await home.agent(CallbackAgent("sales"))).state = "TASK_STATE_INPUT_REQUIRED"
    shown = await gone_on(workflows, COMPETE % f"{{call: gateway.agent, with: {{agent: sales, input: x}}, {AI}}}")

    async def is_canceled() -> bool:
        tasks = (await workflows.desk.ask("GET", "/api/tasks", "alice")).json()["items"]
        return [each["state"] for each in tasks if each["agent"] == "sales"] == ["TASK_STATE_CANCELED"]

    await until(is_canceled)
    assert (await workflows.show(shown["id"]))["state"] == "TASK_STATE_WORKING"


async def test_a_branch_that_lost_listens_no_more(home: House, workflows: Workflows) -> None:
    await gone_on(workflows, COMPETE % "{listen: {to: {one: {with: {type: test.paid}}}}}")
    count = text("SELECT COUNT(*) FROM workflow_listens")
    assert await home.gateway.database.read(lambda connection: connection.execute(count).scalar()) == 0


async def test_a_run_that_is_taken_up_while_it_is_paused_withdraws_nothing(home: House, workflows: Workflows) -> None:
    await workflows.add("asks", f"do:\n- ask: {ASK}\n")
    run = await workflows.start("asks")
    shown = await workflows.reached(run, "INPUT_REQUIRED")
    assert (await workflows.desk.ask("POST", f"/api/runs/{run}/pause", "alice", {})).status_code == 204
    await home.gateway.takeover.resume(await home.gateway.stores.tasks.find("default", shown["owner"], run), Failed("ended"))

    async def is_paused() -> bool:
        return "is paused" in (await workflows.show(run))["note"]

    await until(is_paused)
    assert (await workflows.show(run))["checkpoints"][0]["state"] == "pending"


@pytest.mark.parametrize("verb", ["cancel", "kill"])
async def test_checkpoints_of_a_stopped_run_are_withdrawn(home: House, workflows: Workflows, verb: str) -> None:
    await workflows.add("asks", f"do:\n- ask: {ASK}\n")
    run = await workflows.start("asks")
    await workflows.reached(run, "INPUT_REQUIRED")
    if verb == "kill":
        await workflows.desk.ask("POST", "/api/kill", "admin", {"kind": "agent", "name": "asks"})
    else:
        assert (await workflows.desk.ask("POST", f"/api/runs/{run}/cancel", "alice", {})).status_code < 300
    (checkpoint,) = (await workflows.ended(run))["checkpoints"]
    assert checkpoint["state"] == "withdrawn"
    await home.gateway.workflows.prune_events()
    assert await recorded(workflows) == ["/do/0/ask"]
