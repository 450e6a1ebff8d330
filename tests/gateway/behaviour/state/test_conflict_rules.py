"""Two agents that know nothing of each other, one declared effect and one rule: the second does not contradict the first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.state.board.counters import BoardLimits
from gateway.state.board.store import BoardStore
from policies.ids import now_us
from registry.cards.effects import parse_effects
from registry.changes import RegistryChange
from tests.fakes.house import CallbackAgent, House, house

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
async def open_scene(tmp_path: Path, database_url: str, rules: str = RULES) -> AsyncIterator[House]:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "conflicts.cedar").write_text(rules)
    async with house(tmp_path / "home", database_url, policies=str(folder)) as home:
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
