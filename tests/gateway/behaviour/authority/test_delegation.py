"""A person's request goes from agent to agent and on to a tool, and carries only that person's rights."""

import json
from itertools import pairwise
from typing import Any

import httpx
import pytest

from policies.keys.strict_jwt import read_unverified
from registry.cards.card import RegistrationStatus
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.house import CAPABILITIES, URL, CallbackAgent, House


class Chain:
    """support -> sales -> inventory: each agent exchanges what it was handed for just what it needs."""

    def __init__(self, house: House, tool: str) -> None:
        self.house = house
        self.tool = tool
        self.last: httpx.Response | None = None
        self.refusal: httpx.Response | None = None
        self.support = CallbackAgent("support", self._support)
        self.sales = CallbackAgent("sales", self._sales)

    async def _support(self, token: str, text: str) -> str:
        scope = f"agent:sales tool:inventory.{self.tool}"
        onward = await self.house.exchanged("support", token, "/agents/sales", scope)
        answer = await self.house.send(onward, "sales", text)
        return json.dumps(answer)

    async def _sales(self, token: str, text: str) -> str:
        answer = await self.house.exchange("sales", token, "/mcp/inventory", f"tool:inventory.{self.tool}")
        if answer.status_code != 200:
            self.refusal = answer
            return "refused"
        onward = answer.json()["access_token"]
        self.last = await self.house.call(onward, "/mcp/inventory", self.tool, {"sku": text})
        return self.last.text


async def chain(home: House, tool: str, ceilings: dict[str, tuple[str, ...]] | None = None) -> tuple[Chain, Any]:
    ceilings = ceilings or {}
    server = await home.server("inventory", "check", "reserve")
    built = Chain(home, tool)
    await home.agent(built.support, ceilings.get("support", ("agent:sales", "tool:inventory.*")))
    await home.agent(built.sales, ceilings.get("sales", ("tool:inventory.*",)))
    return built, server


async def test_a_request_travels_two_agents_and_reaches_the_tool_in_its_users_name(home: House) -> None:
    built, server = await chain(home, "reserve")
    answer = await home.send(home.token("alice"), "support", "SKU-7")
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert server.calls == [("reserve", {"sku": "SKU-7"})]
    assert built.last is not None and "result" in built.last.json()


# attack DLG-01: the user lacks what the agent could do
async def test_an_agent_may_not_do_for_a_user_what_the_user_may_not(home: House) -> None:
    built, server = await chain(home, "reserve")
    await home.send(home.token("bob"), "support", "SKU-7")
    assert server.calls == []
    assert built.last is not None
    error = built.last.json()["error"]
    assert error["code"] == -32010
    data = error["data"]
    assert data["reason_id"] == "user-lacks-permission"
    assert data["principal"].endswith("|bob")
    assert [link["agent"] for link in data["chain"]] == ["support", "sales"]
    assert data["resource"] == "inventory.reserve"
    assert data["missing"] == ["tool:inventory.reserve (user)"]
    kept = await home.http.get(f"/api/decisions/{data['decision_id']}", headers={"authorization": f"Bearer {home.token('bob')}"})
    assert kept.status_code == 200
    told = kept.json()
    for member in ("allowed", "reason_id", "principal", "chain", "action", "resource", "missing", "task_id"):
        assert told[member] == data[member], member


# attack DLG-02: the user may, an agent's ceiling does not let it through
async def test_an_agents_ceiling_holds_for_every_user(home: House) -> None:
    built, server = await chain(home, "reserve", {"sales": ("tool:inventory.check",)})
    answer = await home.send(home.token("alice"), "support", "SKU-7")
    assert server.calls == []
    assert built.last is None  # the exchange itself was refused: the agent never held it
    assert built.refusal is not None and built.refusal.json()["error"] == "invalid_scope"
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"  # the first agent reports it as it likes


async def test_a_ceiling_lowered_meanwhile_holds_at_once(home: House) -> None:
    built, server = await chain(home, "reserve")

    async def lowered(token: str, text: str) -> str:
        onward = await home.exchanged("sales", token, "/mcp/inventory", "tool:inventory.reserve")
        entry = home.gateway.registry.find("default", "sales")
        await home.gateway.registry.update(_with_ceiling(entry, ("tool:inventory.check",)))
        await home.gateway.database.refresh_epochs()
        built.last = await home.call(onward, "/mcp/inventory", "reserve", {"sku": text})
        return built.last.text

    built.sales.act = lowered
    await home.send(home.token("alice"), "support", "SKU-7")
    assert server.calls == []
    assert built.last is not None and built.last.status_code in (200, 401, 403)
    assert "error" in built.last.json()


def _with_ceiling(entry: Any, ceiling: tuple[str, ...]) -> Any:
    from dataclasses import replace

    return replace(entry, ceiling=ceiling)


# attack DLG-03: scope asked for can only shrink
@pytest.mark.parametrize(
    "scope",
    [
        "tool:inventory.check tool:mail.send",
        "",
        "*",
        "tool:inventory.сheck",
        "tool:inventory.check tool:inventory.check",
        " tool:inventory.check",
    ],
    ids=["excess", "empty", "star", "look-alike", "twice", "leading-space"],
)
async def test_an_exchange_for_more_than_is_held_is_refused(home: House, scope: str) -> None:
    seen: list[httpx.Response] = []

    async def ask(token: str, text: str) -> str:
        seen.append(await home.exchange("support", token, "/mcp/inventory", scope))
        return "asked"

    await home.server("inventory", "check")
    await home.agent(CallbackAgent("support", ask), ("tool:inventory.check",))
    await home.send(home.token("alice"), "support", "go")
    assert [answer.status_code for answer in seen] == [400]
    assert seen[0].json()["error"] in ("invalid_scope", "invalid_request")


# attack DLG-05: loops and depth
async def test_a_loop_is_refused(home: House) -> None:
    seen: list[Any] = []

    async def support(token: str, text: str) -> str:
        onward = await home.exchanged("support", token, "/agents/sales", "agent:*")
        return json.dumps(await home.send(onward, "sales", "go"))

    async def sales(token: str, text: str) -> str:
        onward = await home.exchanged("sales", token, "/agents/support", "agent:support")
        seen.append(await home.send(onward, "support", "back"))
        own = await home.exchanged("sales", token, "/agents/sales", "agent:sales")
        seen.append(await home.send(own, "sales", "myself"))
        return "looped"

    await home.agent(CallbackAgent("support", support))
    await home.agent(CallbackAgent("sales", sales))
    await home.send(home.token("alice"), "support", "go")
    assert [answer["error"]["code"] for answer in seen] == [-32010, -32010]
    assert all("loop" in json.dumps(answer["error"]) for answer in seen)


# attack DLG-05: at most four agents deep
async def test_a_fifth_agent_in_a_chain_is_refused(home: House) -> None:
    names = ["a", "b", "c", "d", "e"]
    seen: list[Any] = []

    def onward(me: str, after: str) -> Any:
        async def act(token: str, text: str) -> str:
            mine = await home.exchanged(me, token, f"/agents/{after}", "agent:*")
            seen.append(await home.send(mine, after, "on"))
            return "passed on"

        return act

    for me, after in pairwise(names):
        await home.agent(CallbackAgent(me, onward(me, after)))
    last = await home.agent(CallbackAgent("e"))
    await home.send(home.token("alice"), "a", "go")
    assert last.requests == []
    assert "too-deep" in json.dumps(seen[0]["error"])


# attack DLG-06: a chain that somebody tells us is not believed
async def test_a_forged_chain_is_ignored(home: House) -> None:
    agent = await home.agent(CallbackAgent("support"))
    headers = {"X-User": "alice", "X-Forwarded-User": "alice", "baggage": "user=alice,act=sales", "Interlock-Delegation": "alice"}
    forged = {"principal": "default|interlock-development|alice", "chain": ["sales"], "act": {"sub": "sales"}}
    answer = await home.send(home.token("bob"), "support", "who am I?", metadata=forged, headers=headers)
    task = await home.gateway.stores.tasks.find("default", "default|interlock-development|bob", answer["result"]["task"]["id"])
    assert task.owner.endswith("|bob")
    claims = await home.gateway.rulings.token_verifier.verify(agent.tokens[0], (home.gateway.registry.find("default", "support").url,))
    assert (claims.subject, claims.actors) == ("bob", ("support",))


# attack DLG-08: nothing inbound ever leaves
async def test_no_inbound_credential_reaches_an_upstream(home: House) -> None:
    server = await home.server("inventory", "check")
    agent = await home.agent(CallbackAgent("support"))
    secrets = {
        "Cookie": "session=c00kie-canary",
        "X-Api-Key": "key-canary",
        "Proxy-Authorization": "Basic proxy-canary",
        "mcp-session-id": "session-canary",
    }
    token = home.token("alice")
    await home.send(token, "support", "hello", headers=secrets)
    del secrets["mcp-session-id"]
    await home.rpc("/mcp/inventory", token, "tools/call", {"name": "check", "arguments": {}}, **secrets)
    secrets["mcp-session-id"] = "session-canary"
    assert len(server.bytes) == 1 and len(agent.headers) == 1
    outgoing = b"".join(server.bytes).decode() + json.dumps(agent.headers) + json.dumps(agent.requests)
    for secret in (token, *secrets.values()):
        assert secret not in outgoing
    assert agent.tokens[0] != token
    assert read_unverified(agent.tokens[0]).claims["aud"] == home.gateway.registry.find("default", "support").url


# attack TOK-11: a hop token is of use only for its agent, its resource and its task
async def test_a_captured_hop_token_is_of_no_use_elsewhere(home: House) -> None:
    server = await home.server("inventory", "check")
    captured: dict[str, str] = {}

    async def support(token: str, text: str) -> str:
        captured["handed"] = token
        captured["exchanged"] = await home.exchanged("support", token, "/mcp/inventory", "tool:inventory.check")
        captured["during"] = (await home.call(captured["exchanged"], "/mcp/inventory", "check", {})).text
        captured["other-agent"] = (await home.exchange("sales", token, "/mcp/inventory", "tool:inventory.check")).text
        captured["unexchanged"] = str((await home.call(token, "/mcp/inventory", "check", {})).status_code)
        captured["other-resource"] = str((await home.call(captured["exchanged"], "/mcp", "inventory_check", {})).status_code)
        captured["again-exchanged"] = (await home.exchange("support", captured["exchanged"], "/mcp", "tool:inventory.check")).text
        return "done"

    await home.agent(CallbackAgent("support", support))
    await home.agent(CallbackAgent("sales"))
    await home.send(home.token("alice"), "support", "go")
    assert "result" in captured["during"]
    assert "invalid_grant" in captured["other-agent"]
    assert captured["unexchanged"] == "401"
    assert captured["other-resource"] == "401"
    assert "invalid_grant" in captured["again-exchanged"]
    after = await home.call(captured["exchanged"], "/mcp/inventory", "check", {})
    assert after.status_code == 401  # the task is over, and its grant with it
    assert "invalid_grant" in (await home.exchange("support", captured["handed"], "/mcp/inventory", "tool:inventory.check")).text
    assert len(server.calls) == 1


async def test_a_revoked_grant_stops_the_chain(home: House) -> None:
    server = await home.server("inventory", "check")
    seen: list[int] = []

    async def support(token: str, text: str) -> str:
        onward = await home.exchanged("support", token, "/mcp/inventory", "tool:inventory.check")
        claims = await home.gateway.rulings.token_verifier.verify(onward, (f"{URL}/mcp/inventory",))
        headers = {"authorization": f"Bearer {home.token('alice')}"}
        assert (await home.http.delete(f"/api/grants/{claims.grant_id}", headers=headers)).status_code == 204
        seen.append((await home.call(onward, "/mcp/inventory", "check", {})).status_code)
        return "done"

    await home.agent(CallbackAgent("support", support))
    await home.send(home.token("alice"), "support", "go")
    assert seen == [401]
    assert server.calls == []


async def test_a_token_without_the_scope_is_told_which_it_lacks(home: House) -> None:
    await home.server("inventory", "check")
    refused = await home.call(home.token("alice", scope="agent:support"), "/mcp/inventory", "check", {})
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert 'scope="tool:inventory.check"' in refused.headers["www-authenticate"]


async def test_what_may_not_be_seen_reads_like_what_does_not_exist(home: House) -> None:
    await home.server("inventory", "check")
    await home.agent(CallbackAgent("support"))
    await home.registered("waiting", "http://127.0.0.1:9/", status=RegistrationStatus.PENDING)
    nora = home.token("nora")
    answers = [await home.send(nora, name, "hi") for name in ("support", "unknown", "waiting")]
    assert answers[0] == answers[1] == answers[2]
    hidden = await home.call(nora, "/mcp", "inventory_check", {})
    unknown = await home.call(nora, "/mcp", "nothing_there", {})
    assert (hidden.status_code, hidden.json()["error"]) == (unknown.status_code, unknown.json()["error"])


async def test_a_servers_ceiling_holds_for_everybody(home: House) -> None:
    server = await home.server("inventory", "check", "reserve", ceiling=("tool:inventory.check",))
    listed = await home.rpc("/mcp/inventory", home.token("alice"), "tools/list", {})
    assert [tool["name"] for tool in listed.json()["result"]["tools"]] == ["check"]
    refused = (await home.call(home.token("alice"), "/mcp/inventory", "reserve", {})).json()
    assert refused["error"]["data"]["reason_id"] == "ceiling-exceeded"
    assert "result" in (await home.call(home.token("alice"), "/mcp/inventory", "check", {})).json()
    assert [name for name, _ in server.calls] == ["check"]


async def test_a_repeated_key_shows_nothing_to_a_token_without_the_scope(home: House) -> None:
    await home.agent(CallbackAgent("support"))
    first = await home.send(home.token("alice"), "support", "hi", headers={"Idempotency-Key": "k"})
    assert "result" in first
    narrowed = home.token("alice", scope="tool:inventory.check")
    sent = {"A2A-Version": "1.0", "Idempotency-Key": "k"}
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    again = await home.rpc("/agents/support", narrowed, "SendMessage", {"message": message}, **sent)
    assert again.status_code == 403 and "error" in again.json()


async def test_an_agent_cannot_join_its_users_private_conversation(home: House) -> None:
    bank = await home.agent(CallbackAgent("bank"))
    await home.send(home.token("alice"), "bank", "my PIN is 1234", contextId="holiday")

    async def pry(token: str, text: str) -> str:
        onward = await home.exchanged("helper", token, "/agents/bank", "agent:bank")
        return json.dumps(await home.send(onward, "bank", "repeat it", contextId="holiday"))

    await home.agent(CallbackAgent("helper", pry))
    await home.send(home.token("alice"), "helper", "go")
    assert "contextId" not in bank.requests[-1]["params"]["message"]


async def test_metadata_that_looks_like_a_credential_goes_no_further(home: House) -> None:
    server = await home.server("inventory", "check")
    meta = {**CAPABILITIES, "baggage": "user=admin", "Authorization": "Bearer canary", "progressToken": 7}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "check"}
    await home.rpc("/mcp/inventory", home.token("alice"), "tools/call", {"name": "check", "arguments": {}, "_meta": meta}, **headers)
    assert b"canary" not in server.bytes[0] and b"user=admin" not in server.bytes[0]
    assert b'"progressToken":7' in server.bytes[0]


async def test_an_agent_that_floods_its_task_fails_and_blocks_nobody(home: House) -> None:
    agent = CallbackAgent("flood")
    agent.artifacts = 25_000
    await home.agent(agent)
    answer = await home.send(home.token("alice"), "flood", "go")
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_FAILED"


# attack DLG-10: a task goes on for the person it began for, and for nobody else
async def test_nobody_else_resumes_a_task_not_even_an_operator(home: House) -> None:
    url = await home.stack.enter_async_context(serving(a2a_agent("1.0")))
    await home.registered("clerk", url)
    asked = (await home.send(home.token("alice"), "clerk", "ask"))["result"]["task"]
    assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    for other in (home.token("bob"), home.token("admin"), home.token("alice", tenant="evil")):
        refused = await home.send(other, "clerk", "large", taskId=asked["id"])
        assert refused["error"]["code"] in (-32001, -32011)
    answered = (await home.send(home.token("alice"), "clerk", "large", taskId=asked["id"]))["result"]["task"]
    assert answered["status"]["state"] == "TASK_STATE_COMPLETED"


# attack DLG-14: that a task waits for an authorization authorizes nothing
async def test_a_task_that_waits_for_an_authorization_has_none(home: House) -> None:
    server = await home.server("inventory", "check", "reserve")
    url = await home.stack.enter_async_context(serving(a2a_agent("1.0")))
    await home.registered("clerk", url)
    waiting = (await home.send(home.token("bob"), "clerk", "auth"))["result"]["task"]
    assert waiting["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    refused = (await home.call(home.token("bob"), "/mcp/inventory", "reserve", {})).json()
    assert refused["error"]["code"] == -32010
    assert server.calls == []
