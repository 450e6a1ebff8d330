"""Two agents that know nothing of each other, one declared effect and one rule: the second does not contradict the first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.state.board.counters import BoardLimits
from gateway.state.board.values import ANY_VERSION, NO_PRECONDITION, ValueSource
from gateway.state.board.writes import KeyRef, NewValue, find_value, set_value
from gateway.state.claims.claim import ClaimRequest, Holder
from gateway.state.claims.store import ClaimPage
from gateway.state.effects.tables import subject_effects
from gateway.storage.database import Batch
from policies.ids import now_us
from registry.cards.effects import parse_effects
from registry.changes import RegistryChange
from tests.fakes.house import USERS, CallbackAgent, House, house

MAIL = {"send": {"subject": "customer:{arguments.customer_id}", "effect": "outbound-email", "purpose": "tell the customer"}}
RULES = """
@id("open-escalation-holds-promotion")
forbid(principal, action, resource)
when { context.effect == "outbound-email" && context.facts.holds.contains("open-escalation") };

@id("sales-waits-48-hours-after-support")
forbid(principal, action, resource)
when { context.chain.contains("sales") && context.effect == "outbound-email" &&
       context.facts.since_agent has support && context.facts.since_agent.support < 172800 };

@id("not-this-month")
forbid(principal, action, resource)
when { context.effect != "" && context.facts.opt_outs.contains(context.effect) };
"""


@asynccontextmanager
async def open_scene(tmp_path: Path, database_url: str, rules: str = RULES, **settings: Any) -> AsyncIterator[House]:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "conflicts.cedar").write_text(rules)
    async with house(tmp_path / "home", database_url, policies=str(folder), **settings) as home:
        await home.server("mail", "send", "read")
        await declare(home, "mail", MAIL)
        yield home


async def declare(home: House, name: str, effects: dict[str, Any]) -> None:
    entry = home.gateway.registry.find("default", name)
    await home.gateway.registry.update(replace(entry, effects=parse_effects(effects)), RegistryChange("change"))
    await home.gateway.database.refresh_epochs()


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with open_scene(tmp_path, database_url) as built:
        yield built


async def mailing_agent(home: House, name: str, customer: Any = 42) -> CallbackAgent:
    """An agent that sends a mail to a customer whenever it is asked anything."""

    async def act(token: str, text: str) -> str:
        hop = await home.exchanged(name, token, "/mcp/mail", "tool:mail.send")
        answer = (await home.call(hop, "/mcp/mail", "send", {"customer_id": customer, "text": text})).json()
        return str(answer["error"]["message"]) if "error" in answer else "sent"

    return await home.agent(CallbackAgent(name, act))


def said(answer: Any) -> str:
    return str(answer["result"]["task"]["artifacts"][0]["parts"][0]["text"])


async def test_sales_does_not_write_to_a_customer_whom_support_wrote_to(home: House) -> None:
    await mailing_agent(home, "support")
    await mailing_agent(home, "sales")
    assert said(await home.send(home.token("admin"), "support", "your ticket is resolved")) == "sent"
    refused = said(await home.send(home.token("admin"), "sales", "a cold upsell"))
    assert "sales-waits-48-hours-after-support" in refused
    assert "customer:42" in refused and "support" in refused
    assert said(await home.send(home.token("admin"), "support", "one more thing")) == "sent"


async def test_another_customer_is_another_subject(home: House) -> None:
    await mailing_agent(home, "support", 42)
    await mailing_agent(home, "sales", 43)
    await home.send(home.token("admin"), "support", "resolved")
    assert said(await home.send(home.token("admin"), "sales", "an offer")) == "sent"


async def put(home: House, key: str, value: str, owner: str = "default|interlock-development|carol") -> None:
    ref = KeyRef("default", key)

    def work(batch: Batch) -> None:
        condition = NO_PRECONDITION if find_value(batch.connection, ref) is None else ANY_VERSION
        set_value(batch, NewValue(ref, value, ValueSource(owner), condition), now_us(), BoardLimits())

    await home.gateway.database.write(work)


async def mail(home: House, user: str = "admin", customer: Any = 42, **more: Any) -> Any:
    """The JSON of a direct call of the mail tool."""
    return (await home.call(home.token(user), "/mcp/mail", "send", {"customer_id": customer, **more})).json()


async def test_an_open_escalation_holds_promotion_until_it_is_lifted(home: House) -> None:
    await put(home, "customer/42/holds/open-escalation", '{"reason": "lawyers"}')
    error = (await mail(home))["error"]
    assert error["data"]["reason_id"] == "policy-forbids" and "open-escalation-holds-promotion" in error["message"]
    assert "customer:42 has the hold open-escalation (lawyers) since " in error["message"]
    assert "set by another person. Ask for the hold to be lifted: customer/42/holds/open-escalation." in error["message"]
    decision = error["data"]["facts"][0]
    assert (decision["kind"], decision["policy"], decision["set_by"]) == ("hold", "open-escalation-holds-promotion", None)
    await put(home, "customer/42/holds/open-escalation", "null")
    assert "result" in await mail(home)


async def test_readers_of_the_audit_see_who_set_a_fact(home: House) -> None:
    await put(home, "customer/42/holds/open-escalation", "true")
    refused = (await mail(home))["error"]["data"]
    answer = await home.http.get(f"/api/decisions/{refused['decision_id']}", headers={"authorization": f"Bearer {home.token('admin')}"})
    assert answer.json()["facts"][0]["set_by"] == "default|interlock-development|carol"
    assert (answer.json()["subject"], answer.json()["effect"]) == ("customer:42", "outbound-email")


async def test_not_this_month_is_respected_until_the_month_is_over(home: House) -> None:
    await put(home, "customer/42/opt-outs/outbound-email", '{"until": "2999-01-01T00:00:00Z", "reason": "not this month"}')
    refused = (await mail(home))["error"]["message"]
    assert "has opted out of outbound-email (not this month) since" in refused and "until 2999-01-01T00:00:00.000Z" in refused
    await put(home, "customer/42/opt-outs/outbound-email", '{"until": "2001-01-01T00:00:00Z"}')
    assert "result" in await mail(home)


@pytest.mark.parametrize("value", [str(2**63), str(-(2**70)), f'"{"x" * 100_000}"', f'{{"x": "{"x" * 100_000}"}}'])
async def test_a_value_that_policies_cannot_hold_refuses_no_call(home: House, value: str) -> None:
    await put(home, "customer/42/size", value)
    assert "result" in await mail(home)


async def test_a_hold_with_a_long_reason_holds(home: House) -> None:
    await put(home, "customer/42/holds/open-escalation", f'{{"reason": "{"x" * 100_000}"}}')
    assert "open-escalation-holds-promotion" in (await mail(home))["error"]["message"]


@pytest.mark.parametrize("arguments", [{}, {"customer_id": None}, {"customer_id": ["42"]}, {"customer_id": "4 2"}, {"customer_id": 4.2}])
async def test_a_call_that_does_not_say_whom_it_acts_on_is_refused(home: House, arguments: dict[str, Any]) -> None:
    answer = (await home.call(home.token("admin"), "/mcp/mail", "send", arguments)).json()
    assert answer["error"]["data"]["reason_id"] == "effect-subject"
    assert "result" in (await home.call(home.token("admin"), "/mcp/mail", "read", arguments)).json()


async def test_a_caller_without_the_permission_learns_nothing_of_the_arguments(home: House) -> None:
    answer = (await home.call(home.token("nora"), "/mcp/mail", "send", {})).json()
    assert answer["error"]["data"]["reason_id"] == "unknown"


async def test_a_claim_of_another_holder_refuses_calls_without_any_rule(home: House) -> None:
    other = Holder("default|interlock-development|carol", ("negotiator",), "t1", "x1")
    await home.gateway.subjects.claims.take(ClaimRequest("default", "customer:42", "*", other, "a contract", 100, 60_000_000))
    error = (await mail(home))["error"]
    assert error["data"]["reason_id"] == "claim-denied"
    assert "customer:42 is claimed since" in error["message"] and "another person's agent (a contract)" in error["message"]
    await declare(home, "mail", {"send": {**MAIL["send"], "priority": 101}})
    assert "result" in await mail(home)


async def test_a_fact_that_changes_before_the_commit_has_the_act_ruled_on_again(home: House) -> None:
    """The hold is set after the facts were read and before the grant is recorded."""
    effects = home.gateway.authorizer.effects
    read, reads = effects.read, list[Any]()

    async def read_and_change(*given: Any) -> Any:
        found = await read(*given)
        if not reads:
            await put(home, "customer/42/holds/open-escalation", "true")
        reads.append(found)
        return found

    effects.read = read_and_change  # type: ignore[assignment,method-assign]  # changes a fact in between
    assert "open-escalation-holds-promotion" in (await mail(home))["error"]["message"]
    assert len(reads) == 2


async def test_an_agent_with_a_declared_effect_is_ruled_on_by_its_message(home: House) -> None:
    await home.agent(CallbackAgent("support"))
    await declare(home, "support", {"*": {"subject": "customer:{arguments.customer_id}", "effect": "outbound-email"}})
    await put(home, "customer/42/holds/open-escalation", "true")
    token = home.token("admin")
    refused = await home.send(token, "support", "", parts=[{"text": "write"}, {"data": {"customer_id": "42"}}])
    assert "customer:42 has the hold open-escalation" in refused["error"]["message"]
    assert "result" in await home.send(token, "support", "", parts=[{"text": "write"}, {"data": {"customer_id": "43"}}])
    for parts in ([{"text": "write"}], [{"data": {"customer_id": "42"}}, {"data": {"customer_id": "43"}}]):
        missing = (await home.send(token, "support", "", parts=parts))["error"]
        assert missing["code"] == -32602 and "arguments.customer_id is missing" in str(missing)


ASKING = """
@id("ask-on-escalation")
@ask("The customer has an open escalation. Write anyway?")
forbid(principal, action, resource)
when { context.facts.holds.contains("open-escalation") };
"""


async def test_people_decide_where_a_rule_asks_them(tmp_path: Path, database_url: str) -> None:
    async with open_scene(tmp_path, database_url, ASKING, users={**USERS, "boss": {"roles": ["operator"]}}) as home:
        await put(home, "customer/42/holds/open-escalation", "true")
        error = (await mail(home))["error"]
        assert error["data"]["reason_id"] == "approval-needed"
        decided = {"decision": "approve"}
        boss = {"authorization": f"Bearer {home.token('boss')}"}
        path = f"/api/approvals/{error['data']['approval']['id']}/decision"
        assert (await home.http.post(path, json=decided, headers=boss)).status_code == 200
        assert "result" in await mail(home)
        assert (await mail(home))["error"]["data"]["reason_id"] == "approval-needed"


async def effects_of(home: House) -> list[tuple[str, str, str]]:
    query = select(subject_effects).order_by(subject_effects.c.at)
    rows = await home.gateway.database.read(lambda connection: connection.execute(query).all())
    return [(row.subject, row.agent, row.state) for row in rows]


async def test_what_was_done_is_recorded_with_its_outcome(home: House) -> None:
    await mailing_agent(home, "support")
    await home.send(home.token("admin"), "support", "resolved")
    await home.gateway.database.write(lambda batch: None)
    assert await effects_of(home) == [("customer:42", "support", "done")]


async def test_a_call_claims_its_subject_only_while_it_lasts(home: House) -> None:
    await declare(home, "mail", {"send": {**MAIL["send"], "claim": True, "cool_down": 3600}})
    assert "result" in await mail(home)
    claims, now = await home.gateway.subjects.claims.list_open("default", ClaimPage())
    assert [(claim.subject, claim.effect, claim.is_cooling(now), claim.purpose) for claim in claims] == [
        ("customer:42", "outbound-email", True, "tell the customer")
    ]
    assert (await mail(home))["error"]["data"]["reason_id"] == "cool-down"


async def test_an_evaluation_of_access_counts_the_facts(home: House) -> None:
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    question = {
        "subject": {"type": "user", "id": "admin"},
        "action": {"name": "callTool"},
        "resource": {"type": "tool", "id": "mail.send"},
        "context": {"arguments": {"customer_id": 42}},
    }

    async def ask() -> Any:
        return (await home.http.post("/access/v1/evaluation", json=question, headers=headers)).json()

    assert (await ask())["decision"] is True
    await put(home, "customer/42/holds/open-escalation", "true")
    refused = await ask()
    assert (refused["decision"], refused["context"]["policies"]) == (False, ["open-escalation-holds-promotion"])
    question["context"] = {}
    assert "arguments.customer_id is missing" in str(await ask())
