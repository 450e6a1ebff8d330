"""Calls with a declared effect that wait for an answer or an approval, and what rulings on the calls after them go by."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from gateway.state.effects.tables import subject_effects
from policies.ids import new_id, now_us
from tests.fakes.a2a_agents import serving
from tests.fakes.house import CAPABILITIES, USERS, House
from tests.gateway.behaviour.state.test_conflict_rules import ASKING, MAIL, declare, mail, open_scene, put
from tests.gateway.calls.consent.test_approval_requests import ANSWER, QUESTION, Replying

CLAIMING = {"send": {**MAIL["send"], "claim": True, "cool_down": 3600}}
BOTH = {**USERS, "boss": {"roles": ["operator"]}}
ABLE = {**CAPABILITIES, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}
HEADERS = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "send"}


@asynccontextmanager
async def asking_tool(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    """A gateway with a tool that asks for an answer at its first call, and claims the customer meanwhile."""
    tool = Replying()
    async with open_scene(tmp_path, database_url, users=BOTH) as home:
        await home.server("post", "send", url=(await home.stack.enter_async_context(serving(tool))).rstrip("/"))
        await declare(home, "post", CLAIMING)
        tool.answers = [QUESTION | {"requestState": "theirs"}]
        yield home


async def post(home: House, user: str = "admin", **more: Any) -> Any:
    params = {"name": "send", "arguments": {"customer_id": 42}, "_meta": ABLE, **more}
    answer = (await home.rpc("/mcp/post", home.token(user), "tools/call", params, **HEADERS)).json()
    return answer["result"] if "result" in answer else answer["error"]["data"]["reason_id"]


async def test_a_tool_that_asks_keeps_its_claim_until_it_was_answered(tmp_path: Path, database_url: str) -> None:
    async with asking_tool(tmp_path, database_url) as home:
        asked = await post(home)
        assert asked["resultType"] == "input_required"
        assert await post(home, "boss") == "claim-denied"
        answered = await post(home, requestState=asked["requestState"], inputResponses=ANSWER)
        assert answered["resultType"] == "complete"
        assert [await post(home, user) for user in ("admin", "boss")] == ["cool-down"] * 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_late_answer_is_not_refused_by_the_cool_down_of_its_own_call(tmp_path: Path, database_url: str) -> None:
    async with asking_tool(tmp_path, database_url) as home:
        asked, database = await post(home), home.gateway.database
        await database.write(lambda batch: batch.connection.execute(update(subject_effects).values(until=now_us())))
        await home.gateway.authorizer.effects.sweep()
        assert await post(home, "boss") == "cool-down"
        answered = await post(home, requestState=asked["requestState"], inputResponses=ANSWER)
        assert answered["resultType"] == "complete"
        assert await post(home, "boss") == "cool-down"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_approval_does_not_have_work_done_twice(tmp_path: Path, database_url: str) -> None:
    async with open_scene(tmp_path, database_url, ASKING, users=BOTH) as home:
        await declare(home, "mail", {"send": {**MAIL["send"], "once": True}})
        await put(home, "customer/42/holds/open-escalation", "true")
        asked = (await mail(home))["error"]["data"]
        headers = {"authorization": f"Bearer {home.token('boss')}"}
        path = f"/api/approvals/{asked['approval']['id']}/decision"
        assert (await home.http.post(path, json={"decision": "approve"}, headers=headers)).status_code == 200
        row = {"tenant": "default", "id": new_id("d"), "subject": "customer:42", "effect": "outbound-email", "owner": "default|i|carol"}
        row |= {"purpose": MAIL["send"]["purpose"], "target": "tool:mail.send", "state": "under-way", "chain": "[]", "own_task": 0}
        row |= dict.fromkeys(("agent", "txn", "task_id", "claim_id"), "") | {"at": now_us(), "until": now_us() + 60_000_000}
        await home.gateway.database.write(lambda batch: batch.add(subject_effects, row))
        assert (await mail(home))["error"]["data"]["reason_id"] == "under-way"
        ended = update(subject_effects).values(state="done")
        await home.gateway.database.write(lambda batch: batch.connection.execute(ended))
        assert "result" in await mail(home)


UNLESS_VIP = """
@id("two-days-between-mails")
forbid(principal, action, resource)
when { context.facts.since_effect has "outbound-email" && context.facts.since_effect["outbound-email"] < 172800 }
unless { context.facts.holds.contains("vip") };
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_refusal_rests_on_facts_that_were_read(tmp_path: Path, database_url: str) -> None:
    """What the process knows from the call before would refuse; the board says otherwise by now."""
    async with open_scene(tmp_path, database_url, UNLESS_VIP) as home:
        assert "result" in await mail(home)
        assert (await mail(home))["error"]["data"]["reason_id"] == "policy-forbids"
        assert "result" in await mail(home, customer=43)
        await put(home, "customer/43/holds/vip", "true")
        assert "result" in await mail(home, customer=43)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_rule_about_one_subject_is_no_answer_for_another(tmp_path: Path, database_url: str) -> None:
    rule = '@id("not-42") forbid(principal, action, resource) when { context.subject == "customer:42" };'
    async with open_scene(tmp_path, database_url, rule) as home:
        assert ["result" in await mail(home, customer=customer) for customer in (43, 42, 44, 42)] == [True, False, True, False]
