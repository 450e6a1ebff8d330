"""Agents that exchange nothing: a ticket of theirs, with a proof of who they are, is what a hop token is to others."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from policies.tables import tickets
from registry.cards.card import RegistrationStatus
from tests.fakes.house import CAPABILITIES, CallbackAgent, House, house
from tests.fakes.issuer import FakeIssuer
from tests.fakes.reference_clients import GRPC, client_of, sent, texts

TICKET = "interlock-ticket"


def basic(home: House, agent: str) -> dict[str, str]:
    pair = ":".join(home.secrets[agent])
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


async def post(home: House, path: str, headers: dict[str, str], method: str, params: Any) -> httpx.Response:
    version = {"A2A-Version": "1.0"} if path.startswith("/agents") else {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    named = {"mcp-name": params["name"]} if "name" in params else {}
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    return await home.http.post(path, json=body, headers={**version, **named, **headers})


async def check(home: House, headers: dict[str, str], path: str = "/mcp/inventory", tool: str = "check") -> httpx.Response:
    return await post(home, path, headers, "tools/call", {"name": tool, "arguments": {}, "_meta": CAPABILITIES})


async def send(home: House, headers: dict[str, str], agent: str, text: str = "go") -> httpx.Response:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}]}
    return await post(home, f"/agents/{agent}", headers, "SendMessage", {"message": message})


class TicketAgent(CallbackAgent):
    """Acts with the ticket of its last request."""

    def __init__(self, name: str, act: Callable[[dict[str, str]], Awaitable[str]] | None = None) -> None:
        self.shown: list[dict[str, str]] = []

        async def acted(_token: str, _text: str) -> str:
            self.shown.append({TICKET: self.headers[-1][TICKET]})
            return await act(self.shown[-1]) if act else "done"

        super().__init__(name, acted)


@pytest.fixture
async def ready(home: House) -> House:
    """With a tool server."""
    home.tools = await home.server("inventory", "check", "reserve")  # type: ignore[attr-defined]  # for the tests below
    return home


async def test_an_agent_acts_for_a_person_with_its_ticket_and_its_own_proof(ready: House) -> None:
    seen: dict[str, Any] = {}

    async def support(ticket: dict[str, str]) -> str:
        shown = {**ticket, **basic(ready, "support")}
        seen["tool"] = (await check(ready, shown)).json()
        seen["all-tools"] = (await check(ready, shown, "/mcp", "inventory_check")).json()
        seen["agent"] = (await send(ready, shown, "sales")).json()
        seen["api"] = (await ready.http.get("/api/tasks", headers=shown)).status_code
        seen["rest"] = (await ready.http.get("/agents/sales/tasks", headers={**shown, "A2A-Version": "1.0"})).status_code
        seen["ceiling"] = (await check(ready, shown, tool="reserve")).json()
        return "done"

    sales = await ready.agent(CallbackAgent("sales"))
    agent = await ready.agent(TicketAgent("support", support), ("agent:sales", "tool:inventory.check"), delegation="ticket")
    answer = await ready.send(ready.token("alice"), "support", "go")
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert "result" in seen["tool"] and "result" in seen["all-tools"] and "result" in seen["agent"]
    assert (seen["api"], seen["rest"]) == (200, 200)
    assert "authorization" not in agent.headers[0] and "interlock-delegation" not in agent.headers[0]
    told = seen["ceiling"]["error"]["data"]
    assert (told["reason_id"], [link["agent"] for link in told["chain"]]) == ("ceiling-exceeded", ["support"])
    assert told["principal"].endswith("|alice")
    claims = await ready.gateway.rulings.token_verifier.verify(sales.tokens[0], (ready.gateway.registry.find("default", "sales").url,))
    assert (claims.subject, claims.actors) == ("alice", ("sales", "support"))  # the chain goes on behind a ticket


# attack DLG-01
async def test_the_person_behind_a_ticket_may_still_not_do_what_they_may_not(ready: House) -> None:
    seen: list[Any] = []

    async def support(ticket: dict[str, str]) -> str:
        seen.append((await check(ready, {**ticket, **basic(ready, "support")}, tool="reserve")).json())
        return "done"

    await ready.agent(TicketAgent("support", support), delegation="ticket")
    await ready.send(ready.token("bob"), "support", "go")
    assert seen[0]["error"]["data"]["reason_id"] == "user-lacks-permission"
    assert ready.tools.calls == []  # type: ignore[attr-defined]  # see above


# attack TOK-11
@pytest.mark.parametrize("door", GRPC)
async def test_over_grpc_a_ticket_opens_with_its_agents_proof_and_not_without(every_home: House, door: str) -> None:
    home, seen = every_home, dict[str, str]()

    async def support(ticket: dict[str, str]) -> str:
        ways = {"both": {**ticket, **basic(home, "support")}, "ticket": ticket, "proof": basic(home, "support")}
        ways["another's proof"] = {**ticket, **basic(home, "sales")}
        for way, shown in ways.items():
            async with client_of(home, door, headers={"authorization": "", **shown}) as client:
                try:
                    seen[way] = texts(await sent(client, "go"))[0]
                except Exception as error:  # noqa: BLE001 (of each transport its own)
                    seen[way] = str(error)
        return "done"

    sales = await home.agent(CallbackAgent("sales"))
    await home.agent(TicketAgent("support", support), ("agent:sales",), delegation="ticket")
    await home.send(home.token("alice"), "support", "go")
    assert seen.pop("both") == "sales got: go"
    assert len(seen) == 3 and all("unauthenticated" in said.lower() or "token" in said.lower() for said in seen.values()), seen
    assert len(sales.requests) == 1


# attack TOK-11, DLG-06
async def test_a_ticket_without_its_agent_and_an_agent_without_its_ticket_open_nothing(ready: House) -> None:
    seen: dict[str, int] = {}

    async def support(ticket: dict[str, str]) -> str:
        mine, handle = basic(ready, "support"), ticket[TICKET]
        tries: dict[str, dict[str, str]] = {
            "the agent's own credential alone": mine,
            "the ticket alone": ticket,
            "a person's token": {**ticket, "authorization": f"Bearer {ready.token('alice')}"},
            "as a bearer token": {"authorization": f"Bearer {handle}"},
            "another agent": {**ticket, **basic(ready, "sales")},
            "a wrong secret": {**ticket, "authorization": "Basic " + base64.b64encode(b"client:x").decode()},
            "another ticket": {TICKET: "it_" + "A" * 43, **mine},
            "a changed ticket": {TICKET: handle[:-1] + ("A" if handle[-1] != "A" else "B"), **mine},
            "no ticket": {TICKET: "", **mine},
            "a long ticket": {TICKET: handle * 20, **mine},
            "its hash": {TICKET: (await rows(ready))[0].hash, **mine},
        }
        for what, headers in tries.items():
            answers = [
                await check(ready, headers),
                await check(ready, headers, "/mcp", "inventory_check"),
                await send(ready, headers, "sales"),
                await ready.http.get("/api/tasks", headers=headers),
                await ready.http.get("/agents/sales/tasks", headers={**headers, "A2A-Version": "1.0"}),
            ]
            codes = {answer.status_code for answer in answers}
            seen[what] = codes.pop() if len(codes) == 1 else -1
            assert all(answer.headers["www-authenticate"].startswith("Bearer ") for answer in answers)
        twice = [*({**mine, "A2A-Version": "1.0"}).items(), (TICKET, handle), (TICKET, handle)]
        seen["twice"] = (await ready.http.get("/api/tasks", headers=twice)).status_code
        return "done"

    await ready.agent(CallbackAgent("sales"))
    await ready.agent(TicketAgent("support", support), delegation="ticket")
    await ready.send(ready.token("alice"), "support", "go")
    assert seen.pop("twice") == 400
    assert len(seen) == 11 and set(seen.values()) == {401}, seen
    assert ready.tools.calls == []  # type: ignore[attr-defined]  # see above


async def rows(home: House) -> list[Any]:
    return await home.gateway.database.read(lambda connection: list(connection.execute(select(tickets))))


async def test_only_the_hash_of_a_ticket_is_kept(ready: House) -> None:
    agent = await ready.agent(TicketAgent("support"), delegation="ticket")
    for _ in range(2):
        await ready.send(ready.token("alice"), "support", "go")
    handles = [shown[TICKET] for shown in agent.shown]
    assert len(set(handles)) == 2 and all(len(handle) == 46 for handle in handles)
    kept = await rows(ready)
    assert len(kept) == 2 and len({row.grant_id for row in kept}) == 2
    assert not any(handle in str(row) or handle[3:] in str(row) for handle in handles for row in kept)
    audit = await ready.http.get("/api/audit", headers={"authorization": f"Bearer {ready.token('admin')}"})
    assert not any(handle in audit.text for handle in handles)


# attack TOK-11
async def test_a_ticket_ends_with_its_task(ready: House) -> None:
    agent = await ready.agent(TicketAgent("support"), delegation="ticket")
    await ready.send(ready.token("alice"), "support", "go")
    assert (await check(ready, {**agent.shown[0], **basic(ready, "support")})).status_code == 401


async def test_a_revoked_grant_ends_its_ticket(ready: House) -> None:
    """The revocation also ends the call to the agent, so what the agent tries then goes on without it."""
    seen: list[int] = []
    at_work: list[asyncio.Task[None]] = []

    async def support(ticket: dict[str, str]) -> str:
        at_work.append(asyncio.create_task(revoke(ticket)))
        await asyncio.shield(at_work[0])
        return "done"

    async def revoke(ticket: dict[str, str]) -> None:
        shown = {**ticket, **basic(ready, "support")}
        seen.append((await check(ready, shown)).status_code)
        grant_id = (await rows(ready))[0].grant_id
        headers = {"authorization": f"Bearer {ready.token('alice')}"}
        assert (await ready.http.delete(f"/api/grants/{grant_id}", headers=headers)).status_code == 204
        seen.append((await check(ready, shown)).status_code)

    await ready.agent(TicketAgent("support", support), delegation="ticket")
    await ready.send(ready.token("alice"), "support", "go")
    await at_work[0]
    assert seen == [200, 401]


async def test_a_suspended_agent_has_no_use_of_its_ticket(ready: House) -> None:
    seen: list[int] = []

    async def support(ticket: dict[str, str]) -> str:
        shown = {**ticket, **basic(ready, "support")}
        seen.append((await check(ready, shown)).status_code)
        await ready.gateway.registry.set_status("default", "support", RegistrationStatus.QUARANTINED)
        await ready.gateway.database.refresh_epochs()
        seen.append((await check(ready, shown)).status_code)
        return "done"

    await ready.agent(TicketAgent("support", support), delegation="ticket")
    await ready.send(ready.token("alice"), "support", "go")
    assert seen == [200, 401]


# attack TOK-11
async def test_a_ticket_of_one_tenant_is_none_in_another(ready: House) -> None:  # attack TEN-03
    seen: list[int] = []

    async def support(ticket: dict[str, str]) -> str:
        seen.append((await check(ready, {**ticket, **basic(ready, "twin")})).status_code)
        seen.append((await check(ready, {**ticket, **basic(ready, "support")})).status_code)
        return "done"

    await ready.agent(TicketAgent("support", support), delegation="ticket")
    kept = ready.secrets["support"]
    await ready.registered("support", "http://127.0.0.1:9/", tenant="rival")
    ready.secrets["twin"], ready.secrets["support"] = ready.secrets["support"], kept
    await ready.send(ready.token("alice"), "support", "go")
    assert seen == [401, 200]


async def test_an_agent_may_prove_itself_by_its_key_and_each_proof_once(ready: House) -> None:  # attack TOK-11
    seen: list[int] = []
    issuer = FakeIssuer(url="", now=time.time)

    def assertion(**claims: Any) -> dict[str, str]:
        client = ready.secrets["support"][0]
        said = {"iss": client, "sub": client, "aud": f"{ready.url}/oauth/token", "exp": int(time.time()) + 60, **claims}
        return {"interlock-client-assertion": issuer.mint({"typ": "JWT"}, **said)}

    async def support(ticket: dict[str, str]) -> str:
        one = assertion()
        for shown in (one, one, assertion(aud="https://evil.test"), assertion(sub=ready.secrets["sales"][0])):
            seen.append((await check(ready, {**ticket, **shown})).status_code)
        seen.append((await check(ready, {**ticket, **assertion(), **basic(ready, "support")})).status_code)
        return "done"

    await ready.agent(CallbackAgent("sales"))
    await ready.agent(TicketAgent("support", support), delegation="ticket")
    entry = ready.gateway.registry.find("default", "support")
    await ready.gateway.registry.update(entry, jwks=issuer.jwks().body.decode())
    await ready.send(ready.token("alice"), "support", "go")
    assert seen == [200, 401, 401, 401, 401]


async def test_a_ticket_is_good_at_every_process(tmp_path: Path, postgres_url: str) -> None:
    async with house(tmp_path / "home", postgres_url) as one, house(tmp_path / "home", postgres_url) as other:
        seen: list[int] = []

        async def support(ticket: dict[str, str]) -> str:
            seen.append((await check(other, {**ticket, **basic(one, "support")})).status_code)
            return "done"

        await one.server("inventory", "check")
        await one.agent(TicketAgent("support", support), delegation="ticket")
        await other.gateway.database.refresh_epochs()
        await one.send(one.token("alice"), "support", "go")
        assert seen == [200]


async def test_nothing_inbound_of_a_ticket_goes_further(ready: House) -> None:  # attack DLG-08
    async def support(ticket: dict[str, str]) -> str:
        shown = {**ticket, **basic(ready, "support")}
        meta = {**CAPABILITIES, "Interlock-Ticket": ticket[TICKET], "interlock-client-assertion": "secret-canary", "dpop": "proof-canary"}
        await post(ready, "/mcp/inventory", shown, "tools/call", {"name": "check", "arguments": {}, "_meta": meta})
        await send(ready, shown, "sales")
        return "done"

    sales = await ready.agent(CallbackAgent("sales"))
    agent = await ready.agent(TicketAgent("support", support), delegation="ticket")
    await ready.send(ready.token("alice"), "support", "go")
    outgoing = b"".join(ready.tools.bytes).decode() + json.dumps(sales.headers)  # type: ignore[attr-defined]  # see above
    assert len(ready.tools.calls) == len(sales.headers) == 1  # type: ignore[attr-defined]  # see above
    for secret in (agent.shown[0][TICKET], "canary", basic(ready, "support")["authorization"]):
        assert secret not in outgoing


async def test_an_operator_says_how_an_agent_is_handed_what_was_delegated(home: House) -> None:
    agent = await home.agent(TicketAgent("support"))
    operator = {"authorization": f"Bearer {home.token('admin')}"}
    seen = (await home.http.get("/api/agents/support", headers=operator)).headers["etag"]
    changed = await home.http.patch("/api/agents/support", json={"delegation": "ticket"}, headers={**operator, "if-match": seen})
    assert (changed.status_code, changed.json()["delegation"]) == (200, "ticket"), changed.text
    await home.gateway.database.refresh_epochs()
    await home.send(home.token("alice"), "support", "go")
    assert TICKET in agent.headers[-1] and "authorization" not in agent.headers[-1]
