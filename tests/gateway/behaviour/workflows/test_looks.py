"""Who sees which questions of runs: in pages, without the secrets of others. A look at another person's question is recorded."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House, house
from tests.fakes.planners import ScriptedPlanner, call_tool, plan_of
from tests.fakes.workflows import Workflows

ROLES = {
    "operator": ["*"],
    "member": ["agent:*", "tool:*"],
    "approver": ["agent:*", "approval:decide"],
    "auditor": ["audit:read"],
}
USERS = {"ada": {"roles": ["approver"]}, "gus": {"roles": ["auditor"]}}
FORM = "do:\n- fill: {call: gateway.form, with: {prompt: 'Who?', schema: {type: object}}}\n"
APPROVE = "do:\n- look: {call: gateway.approve, with: {prompt: 'Pay?', expires: PT1H}}\n"
PLAN = """
do:
- solve:
    call: gateway.plan
    with: {agent: planner, goal: restock, among: {agents: [], tools: [inventory.check]}, approve: true}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
SECRET = "hunter2"


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, roles=ROLES, users=USERS) as built:
        yield built


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def records(workflows: Workflows, kind: str) -> list[dict[str, Any]]:
    return list((await workflows.desk.ask("GET", f"/api/audit?kind={kind}", "admin")).json()["items"])


async def opened(workflows: Workflows, body: str, count: int = 1) -> list[str]:
    """The runs of a workflow that wait for people."""
    await workflows.add("ask", body)
    started = [await workflows.start("ask") for _ in range(count)]
    for run in started:
        await workflows.reached(run, "INPUT_REQUIRED", "SUSPENDED")
    return started


async def pages(workflows: Workflows, user: str, limit: int) -> list[int]:
    """The number of questions in each page."""
    counts, cursor = list[int](), ""
    while len(counts) < 10:
        page = (await workflows.desk.ask("GET", f"/api/checkpoints?limit={limit}&cursor={cursor}", user)).json()
        counts.append(len(page["items"]))
        if page["next"] is None:
            return counts
        cursor = page["next"]
    return counts


async def test_a_page_looks_through_a_bounded_number_of_rows(workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> None:
    await opened(workflows, APPROVE, 5)
    monkeypatch.setattr("gateway.workflows.runs.people.open_checkpoints.SCAN_ROWS", 2)
    monkeypatch.setattr("gateway.workflows.runs.people.open_checkpoints.SCAN_MAX", 3)
    assert await pages(workflows, "ada", 2) == [2, 2, 1]
    assert await pages(workflows, "ada", 50) == [4, 1]
    assert await pages(workflows, "alice", 3) == [3, 2]
    assert await pages(workflows, "bob", 50) == [0]


async def test_a_look_at_the_question_of_another_person_is_recorded_once(workflows: Workflows) -> None:
    (run,) = await opened(workflows, APPROVE)
    await workflows.checkpoints("alice")
    assert await records(workflows, "checkpoint-seen") == []
    for _ in range(2):
        ((asked),) = await workflows.checkpoints("ada")
        await workflows.desk.ask("GET", "/api/checkpoints/events", "ada")
    (seen,) = await records(workflows, "checkpoint-seen")
    assert (seen["by"], seen["checkpoint_id"], seen["task_id"]) == ("default|interlock-development|ada", asked["id"], run)


async def test_a_look_by_the_feed_is_recorded(workflows: Workflows) -> None:
    await opened(workflows, APPROVE)
    await workflows.desk.ask("GET", "/api/checkpoints/events", "ada")
    assert [each["by"].rpartition("|")[2] for each in await records(workflows, "checkpoint-seen")] == ["ada"]


async def test_an_expiry_is_recorded(workflows: Workflows) -> None:
    (run,) = await opened(workflows, APPROVE)
    await workflows.pass_time(3601)
    await workflows.ended(run)
    (expired,) = await records(workflows, "checkpoint-expired")
    assert (expired["task_id"], expired["step"]) == (run, "/do/0/look")


async def test_an_auditor_sees_no_secret_of_an_answer(workflows: Workflows) -> None:
    (run,) = await opened(workflows, FORM)
    ((asked),) = await workflows.checkpoints("alice")
    await workflows.answer(asked["id"], {"password": SECRET, "name": "Ann"}, "alice")
    await workflows.ended(run)
    shown = await workflows.show(run, "gus")
    assert shown["checkpoints"][0]["answer"] == {"password": "***", "name": "Ann"}
    assert SECRET not in str(shown)


async def test_an_auditor_sees_no_secret_of_a_plan_and_the_approver_all_of_it(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "check")
    await home.agent(ScriptedPlanner("planner", plan_of(look=call_tool("inventory.check", {"token": SECRET}))))
    (run,) = await opened(workflows, PLAN)
    shown = await workflows.show(run, "gus")
    assert "subject" in shown["checkpoints"][0] and shown["plans"]
    assert SECRET not in str(shown["checkpoints"]) + str(shown["plans"])
    ((asked),) = await workflows.checkpoints("ada")
    assert SECRET in str(asked["subject"])
