"""A checkpoint that stays without an answer is put to more people after a time."""

import json
from typing import Any

import pytest
from sqlalchemy import select

from policies.tables import audit_records
from tests.fakes.house import House
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

ASK = """
do:
- pay:
    call: gateway.approve
    with: {prompt: 'Pay?', expires: P5D, escalate: {after: P1D, to: {%s}}}
"""
DAY = 86_400


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def opened(workflows: Workflows, audience: str) -> tuple[str, str]:
    """A run of alice's that waits for an approval, and the checkpoint."""
    await workflows.add("pay", ASK % audience)
    run = await workflows.start("pay")
    await workflows.reached(run, "SUSPENDED")
    (checkpoint,) = await workflows.checkpoints("admin")
    return run, str(checkpoint["id"])


@pytest.mark.parametrize("audience", ["roles: [support]", "permissions: ['tool:inventory.check']"])
async def test_more_people_may_answer_after_a_time(workflows: Workflows, audience: str) -> None:
    run, checkpoint = await opened(workflows, audience)
    assert await workflows.checkpoints("bob") == []
    assert (await workflows.answer(checkpoint, {"approved": True}, "bob")).status_code == 404
    await workflows.pass_time(DAY + 1)

    async def records() -> list[Any]:
        query = select(audit_records.c.body).where(audit_records.c.kind == "checkpoint-escalated")
        rows = await workflows.home.gateway.database.read(lambda connection: connection.execute(query).all())
        return [json.loads(row.body) for row in rows]

    await _until_escalated(workflows, checkpoint)
    (record,) = await records()
    assert record["checkpoint_id"] == checkpoint
    assert [each["id"] for each in await workflows.checkpoints("bob")] == [checkpoint]
    assert await workflows.checkpoints("nora") == []
    assert (await workflows.answer(checkpoint, {"approved": True}, "bob")).status_code == 200
    assert await workflows.output(run) == {"approved": True}


async def test_an_escalation_never_lets_the_requester_approve(workflows: Workflows) -> None:
    _, checkpoint = await opened(workflows, "roles: [sales]")
    await workflows.pass_time(DAY + 1)
    await _until_escalated(workflows, checkpoint)
    assert (await workflows.answer(checkpoint, {"approved": True}, "alice")).status_code == 403


async def test_a_token_for_other_agents_answers_no_escalated_question(workflows: Workflows) -> None:
    _, checkpoint = await opened(workflows, "roles: [support]")
    await workflows.pass_time(DAY + 1)
    await _until_escalated(workflows, checkpoint)
    path = f"/api/checkpoints/{checkpoint}/answer"
    narrow = await workflows.desk.ask("POST", path, "bob", {"value": {"approved": True}}, scope="tool:nothing.x")
    assert narrow.status_code == 404
    wide = await workflows.desk.ask("POST", path, "bob", {"value": {"approved": True}}, scope="agent:pay")
    assert wide.status_code == 200


async def test_an_escalation_without_an_audience_fails_the_step(workflows: Workflows) -> None:
    await workflows.add("pay", ASK % "roles: '${ [] }'")
    run = await workflows.start("pay")
    assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"


async def _until_escalated(workflows: Workflows, checkpoint: str) -> None:
    async def has_begun() -> bool:
        shown = next(each for each in await workflows.checkpoints("admin") if each["id"] == checkpoint)
        return bool(shown["escalation"]["begun"])

    await until(has_begun)
