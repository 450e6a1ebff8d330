"""An operator who has seen how a checkpoint is answered has only some of its questions asked, until there is a new version."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from policies.tables import audit_records
from tests.fakes.house import House, house
from tests.fakes.workflows import Workflows

PAY = """
do:
- pay:
    call: gateway.approve
    with: {prompt: 'Pay?'}
- result: {set: {paid: "${ .approved }"}}
"""
STEP = "/do/0/pay"
WAITS, DONE = "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"


@pytest.fixture
async def workflows(home: House) -> Workflows:
    built = Workflows(home)
    await built.add("pay", PAY)
    return built


async def relax(workflows: Workflows, user: str = "admin", **body: Any) -> int:
    answer = await workflows.desk.ask("POST", "/api/workflows/pay/relaxations", user, {"step": STEP, **body})
    return answer.status_code


async def outcome(workflows: Workflows, given: Any = None) -> str:
    """The state of a new run once it has ended or waits for people."""
    run = await workflows.start("pay", given)
    return str((await workflows.reached(run, "SUSPENDED", "COMPLETED"))["state"])


async def test_the_record_says_how_often_people_answered_how(workflows: Workflows) -> None:
    for approved in (True, True, False):
        run = await workflows.start("pay")
        await workflows.reached(run, "SUSPENDED")
        (checkpoint,) = await workflows.checkpoints("admin")
        await workflows.answer(checkpoint["id"], {"approved": approved}, "admin")
        await workflows.ended(run)
    answer = await workflows.desk.ask("GET", "/api/workflows/pay/checkpoints")
    (record,) = answer.json()["items"]
    assert (record["step"], record["opened"], record["relaxation"]) == (STEP, 3, None)
    assert record["answers"] == [{"answer": "approved", "count": 2}, {"answer": "denied", "count": 1}]


async def test_each_kth_question_is_asked(workflows: Workflows) -> None:
    assert await relax(workflows, every=3, reason="always approved") == 200
    assert [await outcome(workflows) for _ in range(4)] == [DONE, DONE, WAITS, DONE]
    query = select(audit_records.c.kind, audit_records.c.body).where(audit_records.c.kind.startswith("checkpoint-"))
    rows = await workflows.home.gateway.database.read(lambda connection: connection.execute(query).all())
    kinds = [row.kind for row in rows]
    assert (kinds.count("checkpoint-relaxed"), kinds.count("checkpoint-opened")) == (3, 1)
    (rule,) = [json.loads(row.body) for row in rows if row.kind == "checkpoint-relaxation-set"]
    assert (rule["every"], rule["reason"], rule["by"]) == (3, "always approved", "default|interlock-development|admin")


async def test_what_is_above_a_limit_is_asked(workflows: Workflows) -> None:
    assert await relax(workflows, above=".total > 1000") == 200
    assert await outcome(workflows, {"total": 10}) == DONE
    assert await outcome(workflows, {"total": 5000}) == WAITS
    assert await outcome(workflows, {"total": {}}) == WAITS  # jq: an object is more than any number
    assert await relax(workflows, above=".total | tonumber > 1000") == 200
    assert await outcome(workflows, {"total": "many"}) == WAITS  # a rule that fails asks


async def test_a_new_version_asks_again(workflows: Workflows) -> None:
    await relax(workflows, every=1000)
    assert await outcome(workflows) == DONE
    await workflows.add("pay", PAY.replace("Pay?", "Really pay?"))
    assert await outcome(workflows) == WAITS


async def test_a_relaxation_can_be_taken_back(workflows: Workflows) -> None:
    await relax(workflows, every=1000)
    assert (await workflows.desk.ask("DELETE", f"/api/workflows/pay/relaxations?step={STEP}")).status_code == 204
    assert await outcome(workflows) == WAITS


@pytest.mark.parametrize(
    ("user", "body", "status"),
    [
        ("alice", {"every": 2}, 403),
        ("admin", {}, 422),
        ("admin", {"above": ".("}, 422),
        ("admin", {"every": 2, "step": "/do/1/result"}, 404),
    ],
)
async def test_only_an_operator_relaxes_a_checkpoint_by_a_rule(workflows: Workflows, user: str, body: Any, status: int) -> None:
    assert await relax(workflows, user, **body) == status
    assert await outcome(workflows) == WAITS


async def test_a_policys_question_is_never_relaxed(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "policies").mkdir()
    ask = '@id("ask") @ask("Really?") forbid(principal, action == Action::"callTool", resource == Tool::"bank.transfer");\n'
    (tmp_path / "policies" / "ask.cedar").write_text(ask)
    async with house(tmp_path / "home", database_url, policies=str(tmp_path / "policies")) as home:
        server, workflows = await home.server("bank", "transfer"), Workflows(home)
        await workflows.add("pay", PAY + "- transfer:\n    call: gateway.tool\n    with: {tool: bank.transfer, arguments: {}}\n")
        assert await relax(workflows, every=1000) == 200
        run = await workflows.start("pay", user="admin")
        await workflows.reached(run, "SUSPENDED", user="admin")
        assert server.calls == []
        (approval,) = (await workflows.desk.ask("GET", "/api/approvals")).json()["items"]
        assert approval["resource"] == "bank.transfer"
