"""The revocation endpoint: RFC 7009 over what agents are handed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from gateway.calls.limits.meters import RateLimited
from gateway.calls.revocation.grants import Revocation
from gateway.ingress.oauth import revoke
from gateway.ingress.oauth.client import ClientAuthentication
from policies.ids import now_us
from policies.keys.strict_jwt import TokenRefused
from policies.tables import audit_records, grants
from policies.tokens.claims import Claims
from policies.tokens.client_assertion import ClientAssertionVerifier
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.tickets import Ticket
from tests.fakes.clock import Clock
from tests.fakes.house import CallbackAgent, House
from tests.fakes.oauth import FakeWriter, Trail, agents, basic, refused

GW = "https://gw.test"


def claims(**said: Any) -> Claims:
    given = {"client_id": "sales", "grant_id": "g1", "kind": "hop", "tenant": "acme", **said}
    return Claims(issuer="i", subject="alice", roles=(), scope=None, audience="a", expires=1.0, token_id="j", **given)


class Desk:
    """What was issued and handed out, and what was given back; knows one of each kind."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str, str]] = []
        self.busy = False
        self.tokens = {
            "hop": claims(),
            "of another agent": claims(client_id="other"),
            "of another tenant": claims(tenant="rival"),
            "for a person": claims(client_id="c_sales", kind="user", grant_id=""),
            "for a person to another": claims(client_id="c_other", kind="user", grant_id=""),
            "for a person with our name": claims(kind="user", grant_id=""),
        }
        self.handles = {"it_own": Ticket("sales", "g2"), "it_foreign": Ticket("other", "g3")}

    def read_issued(self, token: str) -> Claims:
        if token not in self.tokens:
            raise TokenRefused("shape")
        return self.tokens[token]

    async def find(self, tenant: str, handle: str) -> Ticket | None:
        return self.handles.get(handle) if tenant == "acme" else None

    async def revoke_by_agent(self, tenant: str, agent: str, grant_id: str) -> None:
        self.ended.append((tenant, agent, grant_id))

    def asked(self, tenant: str, agent: str) -> None:
        if self.busy:
            raise RateLimited(f"{tenant} {agent}", 1.5)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
async def http(desk: Desk, trail: Trail) -> AsyncIterator[httpx.AsyncClient]:
    assertions = ClientAssertionVerifier((GW,), Clock())
    clients = ClientAuthentication(agents(), assertions, ReplayGuard(FakeWriter(), lambda: 1))
    app = FastAPI()
    noted = trail.noted
    app.include_router(revoke.routes(revoke.GrantReturn(clients, desk, desk, desk), lambda *said: noted.append(said), desk.asked))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=GW) as client:
        yield client


async def give(http: httpx.AsyncClient, token: str, **more: str) -> httpx.Response:
    return await http.post("/oauth/revoke", data={"token": token, **more}, headers=basic())


@pytest.mark.parametrize("hint", [{}, {"token_type_hint": "access_token"}, {"token_type_hint": "refresh_token"}, {"token_type_hint": "x"}])
async def test_the_grant_of_ones_own_token_or_ticket_ends_whatever_the_hint(
    http: httpx.AsyncClient, desk: Desk, hint: dict[str, str]
) -> None:
    for token in ("hop", "it_own", "hop"):
        answer = await give(http, token, **hint)
        assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, b"", "no-store")
    assert desk.ended == [("acme", "sales", "g1"), ("acme", "sales", "g2"), ("acme", "sales", "g1")]


# attack TOK-11, TEN-03
async def test_unknown_and_foreign_tokens_get_the_same_answer_and_revoke_nothing(http: httpx.AsyncClient, desk: Desk) -> None:
    foreign = ["of another agent", "of another tenant", "for a person to another", "for a person with our name", "it_foreign"]
    told = {(answer.status_code, answer.content, *sorted(answer.headers.items())) for answer in [await give(http, one) for one in foreign]}
    unknown = await give(http, "nonsense")
    assert told == {(unknown.status_code, unknown.content, *sorted(unknown.headers.items()))}
    assert (unknown.status_code, desk.ended) == (200, [])


async def test_a_token_that_stands_for_no_grant_is_said_to_be_of_a_kind_that_is_not_taken(http: httpx.AsyncClient, desk: Desk) -> None:
    assert refused(await give(http, "for a person"), "unsupported_token_type")
    assert desk.ended == []


async def test_only_a_proved_client_ends_anything(http: httpx.AsyncClient, desk: Desk, trail: Trail) -> None:
    for headers in ({}, basic(secret="wrong"), basic("c_nobody"), basic("c_bad"), {"authorization": "Bearer hop"}):
        answer = await http.post("/oauth/revoke", data={"token": "hop"}, headers=headers)
        assert refused(answer, "invalid_client", 401)
        assert trail.noted[-1] == ("client", "/oauth/revoke", headers.get("authorization", ""))
    assert desk.ended == []


async def test_a_request_that_is_no_revocation_is_refused(http: httpx.AsyncClient, desk: Desk) -> None:
    assert refused(await http.post("/oauth/revoke", data={"token_type_hint": "access_token"}, headers=basic()), "invalid_request")
    twice = urlencode([("token", "hop"), ("token", "hop")]).encode()
    form = {**basic(), "content-type": "application/x-www-form-urlencoded"}
    assert refused(await http.post("/oauth/revoke", content=twice, headers=form), "invalid_request")
    assert refused(await http.post("/oauth/revoke", json={"token": "hop"}, headers=basic()), "invalid_request")
    both = [*form.items(), *basic().items()]
    assert refused(await http.post("/oauth/revoke", content=b"token=hop", headers=both), "invalid_request")
    assert (await http.get("/oauth/revoke", params={"token": "hop"}, headers=basic())).status_code == 405
    assert desk.ended == []


async def test_an_agent_that_comes_too_fast_is_told_when_to_come_again(http: httpx.AsyncClient, desk: Desk) -> None:
    desk.busy = True
    answer = await give(http, "hop")
    assert refused(answer, "temporarily_unavailable", 429)
    assert (answer.headers["retry-after"], desk.ended) == ("2", [])


async def test_what_hangs_below_a_token_that_is_given_back_ends_and_nothing_else(home: House) -> None:
    """alice's support asks sales, which gives back the token that it got by exchange: sales is over, support goes on."""
    seen: dict[str, Any] = {}
    gateway, heard = home.gateway, asyncio.Event()
    ending = Revocation(gateway.database, gateway.rulings.grants, gateway.rulings.spool, now_us, gateway.calls.stopper)

    async def try_all(token: str) -> None:
        """All that sales does with its token. Its call ends in between."""
        tool = await home.exchanged("sales", token, "/mcp/inventory", "tool:inventory.check")
        assert "result" in (await home.call(tool, "/mcp/inventory", "check", {})).json()
        own = gateway.rulings.token_verifier.read_issued(tool).grant_id
        for tenant, agent, grant_id in (("default", "support", own), ("acme", "sales", own), ("default", "sales", "g_nobodys")):
            await ending.revoke_by_agent(tenant, agent, grant_id)
        for agent in ("support", "sales"):
            seen[agent] = await home.http.post("/oauth/revoke", data={"token": tool}, auth=home.secrets[agent])
            seen[f"after {agent}"] = (await home.call(tool, "/mcp/inventory", "check", {})).status_code
        seen["exchange"] = (await home.exchange("sales", token, "/mcp/inventory", "tool:inventory.check")).json()

    async def sales(token: str, _text: str) -> str:
        seen["tried"] = asyncio.create_task(try_all(token))
        await heard.wait()
        return "too late"

    async def support(token: str, _text: str) -> str:
        down = await home.exchanged("support", token, "/agents/sales", "agent:sales tool:inventory.*")
        async with asyncio.timeout(20):
            seen["task"] = (await home.send(down, "sales", "go"))["result"]["task"]
        heard.set()
        return "done" if await home.exchanged("support", token, "/mcp/inventory", "tool:inventory.check") else ""

    await home.server("inventory", "check")
    await home.agent(CallbackAgent("sales", sales))
    await home.agent(CallbackAgent("support", support))
    task = (await home.send(home.token("alice"), "support", "go"))["result"]["task"]
    await seen["tried"]
    assert [seen[agent].status_code for agent in ("support", "sales")] == [200, 200]
    assert (seen["after support"], seen["after sales"]) == (200, 401)
    assert seen["exchange"]["error"] == "invalid_grant"
    assert seen["task"]["status"]["state"] == "TASK_STATE_FAILED"
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    query = select(audit_records.c.body).where(audit_records.c.kind == "revocation")
    (record,) = [json.loads(body) for body in await gateway.database.read(lambda c: c.execute(query).scalars().all())]
    assert (record["agent"], record["principal"]["subject"], record["task_id"]) == ("sales", "alice", seen["task"]["id"])
    ended = select(grants.c.id, grants.c.path).where(grants.c.revoked.is_not(None))
    (row,) = await gateway.database.read(lambda connection: connection.execute(ended).all())
    assert (row.id, [hop["agent"] for hop in json.loads(row.path)]) == (record["grant_id"], ["support", "sales"])
