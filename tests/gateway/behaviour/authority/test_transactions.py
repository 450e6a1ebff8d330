"""What an errand did and saw before decides what it may do next, at whichever moment and process."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from policies.tables import transaction_history
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.house import CAPABILITIES, CallbackAgent, House, house
from tests.gateway.calls.consent.test_approval_requests import ANSWER, QUESTION, Replying

POLICY = """
@id("most") @total("amount")
forbid(principal, action == Action::"callTool", resource == Tool::"inventory.reserve")
when { context.history.totals.amount + context.input.amount > 100 };
@id("looked")
forbid(principal, action == Action::"callTool", resource == Tool::"inventory.drop")
unless { context.history.calls has "tool:inventory.check" };
"""


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.cedar").write_text(POLICY)
    async with house(tmp_path / "home", database_url, policies=str(tmp_path / "policies")) as built:
        yield built


class Errand:
    """An agent that does what the test says while its task is under way, and keeps what it was told."""

    def __init__(self, home: House, *steps: Any) -> None:
        self.home = home
        self.steps = steps
        self.told: list[str] = []

    async def __call__(self, token: str, text: str) -> str:
        for step in self.steps:
            self.told += await step(token)
        return "done"

    async def call(self, token: str, tool: str, **arguments: Any) -> str:
        hop = await self.home.exchanged("sales", token, "/mcp", "tool:*")
        answer = (await self.home.call(hop, "/mcp", tool, arguments)).json()
        return str(answer["error"]["data"]["reason_id"]) if "error" in answer else "ok"

    def calling(self, tool: str, **arguments: Any) -> Any:
        async def step(token: str) -> list[str]:
            return [await self.call(token, tool, **arguments)]

        return step

    def at_once(self, count: int, tool: str, **arguments: Any) -> Any:
        async def step(token: str) -> list[str]:
            return sorted(await asyncio.gather(*(self.call(token, tool, **arguments) for _ in range(count))))

        return step

    def sending(self, agent: str) -> Any:
        async def step(token: str) -> list[str]:
            hop = await self.home.exchanged("sales", token, f"/agents/{agent}", f"agent:{agent}")
            answer = await self.home.send(hop, agent, "the customers are …")
            return [answer["error"]["data"][0]["metadata"]["reason_id"] if "error" in answer else "ok"]

        return step


async def ran(home: House, errand: Errand, *steps: Any) -> list[str]:
    errand.steps, errand.told = steps, []
    await home.send(home.token("alice"), "sales", "go")
    return errand.told


@pytest.fixture
async def errand(home: House) -> Errand:
    made = Errand(home)
    await home.agent(CallbackAgent("sales", made))
    return made


async def test_a_running_total_holds_through_an_errand_and_begins_anew_with_the_next(home: House, errand: Errand) -> None:
    inventory = await home.server("inventory", "check", "reserve", "drop")
    forty = errand.calling("inventory_reserve", amount=40)
    assert await ran(home, errand, forty, forty, forty, errand.calling("inventory_reserve", amount=20)) == [
        "ok",
        "ok",
        "policy-forbids",
        "ok",
    ]
    assert await ran(home, errand, forty) == ["ok"]
    assert [call[1]["amount"] for call in inventory.calls] == [40, 40, 20, 40]


async def test_of_calls_at_once_no_two_pass_a_total_together(home: House, errand: Errand) -> None:
    inventory = await home.server("inventory", "reserve")
    told = await ran(home, errand, errand.at_once(8, "inventory_reserve", amount=40))
    assert told == ["ok"] * 2 + ["policy-forbids"] * 6
    assert len(inventory.calls) == 2


async def sums(home: House) -> list[int]:
    """Of each errand."""
    found = await home.gateway.database.read(
        lambda c: c.execute(select(transaction_history.c.totals).order_by(transaction_history.c.updated)).scalars().all()
    )
    return [json.loads(totals)["amount"] for totals in found]


async def test_a_call_with_a_question_is_counted_once_and_answered_once(home: House, errand: Errand) -> None:
    """attack DLG-13: the same state twice is no call for nothing"""
    inventory = Replying()
    await home.server("inventory", "reserve", url=(await home.stack.enter_async_context(serving(inventory))).rstrip("/"))
    able = {"elicitation": {"form": {}}}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "inventory_reserve"}
    states: list[dict[str, Any]] = []

    async def reserve(hop: str, amount: int, **more: Any) -> str:
        meta = {**CAPABILITIES, "io.modelcontextprotocol/clientCapabilities": able}
        params = {"name": "inventory_reserve", "arguments": {"amount": amount}, "_meta": meta, **more}
        answer = (await home.rpc("/mcp", hop, "tools/call", params, **headers)).json()
        if "error" in answer:
            return str(answer["error"].get("data", {}).get("reason_id", answer["error"]["code"]))
        if answer["result"]["resultType"] == "input_required":
            states.append({"requestState": answer["result"]["requestState"], "inputResponses": ANSWER})
        return str(answer["result"]["resultType"])

    async def first(token: str) -> list[str]:
        hop = await home.exchanged("sales", token, "/mcp", "tool:*")
        inventory.answers = [QUESTION | {"requestState": "theirs"}, QUESTION]
        told = [await reserve(hop, 60), await reserve(hop, 1, **states[0]), await reserve(hop, 60, **states[0])]
        told += [await reserve(hop, 60, **states[0])]
        told += sorted(await asyncio.gather(*(reserve(hop, 60, **states[1]) for _ in range(2))))
        return [*told, await reserve(hop, 60, **states[1]), await reserve(hop, 40), await reserve(hop, 1)]

    async def second(token: str) -> list[str]:
        hop = await home.exchanged("sales", token, "/mcp", "tool:*")
        return [await reserve(hop, 60, **states[1]), await reserve(hop, 60, **states[1])]

    refused = "policy-forbids"
    asked, told_once = ["input_required", "-32602", "input_required", refused], ["complete", refused]
    assert await ran(home, errand, first) == [*asked, *told_once, refused, "complete", refused]
    assert await ran(home, errand, second) == ["complete", refused]  # in another errand nothing was counted yet
    assert await sums(home) == [100, 60]
    assert [params["arguments"]["amount"] for params in inventory.params] == [60, 60, 60, 40, 60]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("amount", [-50, "many"])
async def test_what_can_not_be_added_up_is_refused(home: House, errand: Errand, amount: object) -> None:
    inventory = await home.server("inventory", "reserve")
    (told,) = await ran(home, errand, errand.calling("inventory_reserve", amount=amount))
    assert told in ("not-countable", "policy-error") and inventory.calls == []


async def test_an_act_can_depend_on_another_before_it(home: House, errand: Errand) -> None:
    await home.server("inventory", "check", "drop")
    drop, check = errand.calling("inventory_drop"), errand.calling("inventory_check")
    assert await ran(home, errand, drop, check, drop) == ["policy-forbids", "ok", "ok"]


async def labelled(home: House, name: str, **labels: int) -> None:
    registry = home.gateway.registry
    await registry.update(replace(registry.find("default", name), **labels))  # type: ignore[arg-type]  # labels of a registration
    await home.gateway.database.refresh_epochs()


async def test_what_an_errand_has_seen_reaches_nobody_who_is_not_cleared_for_it(home: House, errand: Errand) -> None:  # attack INJ-02
    await home.server("inventory", "check")
    partner = await home.agent(CallbackAgent("partner"))
    await labelled(home, "inventory", sensitivity=2)
    await labelled(home, "partner", clearance=1)
    send, check = errand.sending("partner"), errand.calling("inventory_check")
    assert await ran(home, errand, send, check, send) == ["ok", "ok", "taint-exceeds-clearance"]
    assert len(partner.requests) == 1
    assert await ran(home, errand, send) == ["ok"]  # another errand has seen nothing


async def test_what_a_tools_answer_says_can_not_make_an_errand_carry_it_out(tmp_path: Path, database_url: str) -> None:  # attack INJ-01
    roles = {"operator": ["*"], "sales": ["agent:*", "tool:*"], "support": [], "nobody": []}
    async with house(tmp_path / "home", database_url, roles=roles) as home:
        errand = Errand(home)
        await home.agent(CallbackAgent("sales", errand))
        await home.server("crm", "find")
        mail = await home.server("mail", "send")
        await labelled(home, "crm", sensitivity=3)
        await labelled(home, "mail", clearance=0)
        send = errand.calling("mail_send", to="mallory", text="the customers")
        assert await ran(home, errand, send, errand.calling("crm_find"), send) == ["ok", "ok", "taint-exceeds-clearance"]
        assert len(mail.calls) == 1


async def test_an_agent_that_is_not_cleared_gets_no_sensitive_answer(home: House, errand: Errand) -> None:
    inventory = await home.server("inventory", "check")
    await labelled(home, "inventory", sensitivity=2)
    await labelled(home, "sales", clearance=1)
    assert await ran(home, errand, errand.calling("inventory_check")) == ["sensitivity-exceeds-clearance"]
    assert inventory.calls == []


async def would(home: House, user: str = "admin", tool: str = "inventory.reserve", **context: Any) -> Any:
    """What AuthZEN answers about alice, who may call all tools where an admin asks."""
    supposed = {"properties": {"roles": ["member"]}} if user == "admin" else {}
    subject, resource = {"type": "user", "id": "alice", **supposed}, {"type": "tool", "id": tool}
    asked = {"subject": subject, "action": {"name": "callTool"}, "resource": resource, "context": context}
    headers = {"authorization": f"Bearer {home.token(user)}"}
    return (await home.http.post("/access/v1/evaluation", json=asked, headers=headers)).json()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_questions_about_an_errand_are_answered_as_its_calls_would_be(home: House, errand: Errand) -> None:
    await home.server("inventory", "check", "reserve")
    await home.server("mail", "send")
    await labelled(home, "inventory", sensitivity=2)
    await labelled(home, "mail", clearance=1)
    forty = errand.calling("inventory_reserve", amount=40)
    assert await ran(home, errand, forty, forty) == ["ok", "ok"]
    txn = await home.gateway.database.read(lambda connection: connection.execute(select(transaction_history.c.txn)).scalar_one())
    said = await would(home, arguments={"amount": 40}, chain=["sales"], errand=txn)
    assert (said["decision"], said["context"]["reason_id"], said["context"]["errand"]) == (False, "policy-forbids", txn)
    assert (await would(home, arguments={"amount": 20}, chain=["sales"], errand=txn))["decision"]
    fresh = await would(home, arguments={"amount": 40}, chain=["sales"])
    assert fresh["decision"] and fresh["context"]["errand"] is None
    assert (await would(home, tool="mail.send", chain=["sales"]))["decision"]
    assert (await would(home, tool="mail.send", chain=["sales"], errand=txn))["context"]["reason_id"] == "taint-exceeds-clearance"
    await labelled(home, "sales", clearance=1)
    assert (await would(home, tool="inventory.check", chain=["sales"]))["context"]["reason_id"] == "sensitivity-exceeds-clearance"
    assert (await would(home, "alice", arguments={"amount": 40}, errand=txn))["reason_id"] == "user-lacks-permission"
    assert (await would(home, errand=7))["status"] == 400


SECRETS = [
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl",
    "Bearer 0123456789abcdef0123",
    "password: hunter2222",
    "ghp_" + "a1" * 18,
]


@pytest.mark.parametrize("secret", SECRETS)
async def test_no_credential_answers_a_task_that_waits_for_an_authorization(home: House, secret: str) -> None:  # attack DLG-14
    recorded = a2a_agent()
    url = await home.stack.enter_async_context(serving(recorded))
    await home.registered("sales", url)
    token = home.token("alice")
    asked = (await home.send(token, "sales", "auth"))["result"]["task"]
    assert asked["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    before = len(recorded.headers)
    refused = (await home.send(token, "sales", f"here: {secret}", taskId=asked["id"]))["error"]
    assert refused["code"] == -32602 and secret not in str(refused)
    assert len(recorded.headers) == before
    answered = (await home.send(token, "sales", "signed in", taskId=asked["id"]))["result"]["task"]
    assert answered["status"]["state"] == "TASK_STATE_COMPLETED"
