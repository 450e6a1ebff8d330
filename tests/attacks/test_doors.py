"""The attacks on tokens and on chains at every door, on both databases: what one door refuses, each refuses."""

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policies.tokens.verifier import DEVELOPMENT_ISSUER
from tests.fakes.doors import A2A, DOORS, MCP, Knock, knock, resource
from tests.fakes.house import ROLES, CallbackAgent, House, ToolServer
from tests.fakes.issuer import EcKey, b64, compact, hs256
from tests.fakes.reference_clients import every_door
from tests.fakes.upstream import Upstream, answer

CEILING = ("agent:*", "tool:inventory.*")
USERS = {"alice": {"roles": ["member"]}, "bob": {"roles": ["narrow"]}}
Record = Callable[[str, object], None]
Forge = Callable[[House, str], list[str]]


@pytest.fixture
async def closed_house(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    """Nothing private may be called."""
    async with every_door(tmp_path / "home", database_url, egress={"allow": []}) as home:
        yield home


@pytest.fixture
async def shop(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with every_door(tmp_path / "home", database_url, roles={**ROLES, "narrow": ["agent:support"]}, users=USERS) as home:
        yield home


def valid_claims(home: House, **claims: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": DEVELOPMENT_ISSUER, "sub": "alice", "tid": "default", "aud": home.url, "iat": now, "exp": now + 600, "jti": "u1"}
    return {name: value for name, value in {**whole, **claims}.items() if value is not None}


def sign_claims(home: House, **claims: Any) -> str:
    """By the gateway's own key, so that nothing but the claims is wrong."""
    return home.gateway.keys.sign(valid_claims(home, **claims), "at+jwt")


def valid_header(home: House, **more: Any) -> dict[str, Any]:
    return {"alg": "ES256", "kid": home.gateway.keys.jwks()["keys"][0]["kid"], "typ": "at+jwt", **more}


def public_forms(home: House) -> list[bytes]:
    jwk = home.gateway.keys.jwks()["keys"][0]
    x, y = (int.from_bytes(compact_text(jwk[name])) for name in "xy")
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    forms = [
        key.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    ]
    return [*forms, json.dumps(jwk).encode(), b""]


def compact_text(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def unsigned(home: House, canary: str) -> list[str]:
    return [compact(valid_header(home, alg=alg), valid_claims(home, sub="admin"), lambda _: b"") for alg in ("none", "None", "nOnE", "")]


def by_public_key(home: House, canary: str) -> list[str]:
    return [compact(valid_header(home, alg="HS256"), valid_claims(home, sub="admin"), hs256(form)) for form in public_forms(home)]


def with_key_material(home: House, canary: str) -> list[str]:
    evil = EcKey("k1")
    members: list[dict[str, Any]] = [{"jwk": evil.jwk()}, {"jku": f"{canary}/jwks"}, {"x5u": f"{canary}/pem"}, {"x5c": ["AAAA"]}]
    members += [{"crit": ["exp"]}, {"b64": False}, {"zip": "DEF"}]
    return [compact(valid_header(home, **member), valid_claims(home, sub="admin"), evil.sign) for member in members]


def for_others(home: House, canary: str) -> list[str]:
    audiences = ["https://evil.test", [home.url, "https://evil.test"], None, f"{home.url}/", home.url.upper(), f"{home.url}/mcp/other"]
    return [sign_claims(home, aud=audience) for audience in audiences]


def out_of_time(home: House, canary: str) -> list[str]:
    now = int(time.time())
    times: list[dict[str, Any]] = [{"exp": None}, {"exp": str(now + 60)}, {"exp": True}, {"exp": now - 31, "iat": now - 90}]
    times += [{"nbf": now + 300}, {"iat": now + 300}, {"exp": now + 315_360_000}]
    return [sign_claims(home, **each) for each in times]


def without_proof(home: House, canary: str) -> list[str]:
    return [sign_claims(home, cnf={"jkt": b64(b"0" * 32)})]


def too_large(home: House, canary: str) -> list[str]:
    deep = b'{"alg":"ES256","a":' + b"[" * 1500 + b"]" * 1500 + b"}"
    forged = EcKey("k1").sign
    twice = json.dumps(valid_claims(home))[:-1].encode() + b',"sub":"admin"}'
    return [
        compact(valid_header(home, pad="x" * 7000), valid_claims(home, pad="x" * 7000), forged),
        compact(deep, valid_claims(home), forged),
        compact(valid_header(home), twice, forged),
        f"{b64(json.dumps({'alg': 'dir', 'enc': 'A256GCM', 'zip': 'DEF'}).encode())}..AAAA.AAAA.AAAA",
    ]


FORGED: dict[str, Forge] = {
    "TOK-02": unsigned,
    "TOK-03": by_public_key,
    "TOK-05": with_key_material,
    "TOK-07": for_others,
    "TOK-09": out_of_time,
    "TOK-12": without_proof,
    "TOK-13": too_large,
}


async def test_no_door_takes_a_token_that_is_not_right(closed_house: House, record_property: Record) -> None:
    """attacks TOK-01, TOK-02, TOK-03, TOK-05, TOK-07, TOK-09, TOK-12, TOK-13"""
    await closed_house.registered("sales", "http://127.0.0.1:9/")
    await closed_house.server("inventory", "check", url="http://127.0.0.1:9")

    async def heard(_head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(answer(b"{}"))

    async with Upstream(heard) as canary:
        for door in DOORS:
            record_property("door", door)
            for attack, forge in {"TOK-01": lambda *_: ["x y", "x"], **FORGED}.items():
                for number, token in enumerate(forge(closed_house, canary.url)):
                    knocked = await knock(closed_house, door, token)
                    assert (knocked.admitted, knocked.done) == (False, False), (door, attack, number, knocked.text)
            for good in (closed_house.token("alice"), sign_claims(closed_house)):  # so nothing else was wrong with them
                assert (await knock(closed_house, door, good)).admitted, door
        assert canary.connections == 0


class AgentChain:
    """The agent `support`, which does with its token what a test wants, while its task runs."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.door = ""
        self.wanted: Callable[[str], Awaitable[None]]
        self.agent = CallbackAgent("support", self._act)
        self.sales = CallbackAgent("sales")
        self.server: ToolServer
        self.ran = 0
        self.failure: AssertionError | None = None

    async def register_agents(self) -> None:
        await self.home.agent(self.agent, CEILING)
        await self.home.agent(self.sales)
        self.server = await self.home.server("inventory", "check")

    def doors(self, record: Record) -> Iterator[str]:
        """Each where a chain may come in, one after the other."""
        for self.door in (*A2A, *MCP):
            record("door", self.door)
            yield self.door

    async def set_ceiling(self, *ceiling: str) -> None:
        registry = self.home.gateway.registry
        await registry.update(replace(registry.find("default", "support"), ceiling=ceiling))
        await self.home.gateway.database.refresh_epochs()

    @property
    def reached_count(self) -> int:
        return len(self.sales.requests) + len(self.server.calls)

    async def _act(self, token: str, text: str) -> str:
        if text == "go":
            try:
                await self.wanted(token)
            except AssertionError as failure:
                self.failure = failure
            self.ran += 1
        return "done"

    async def run_for(self, user: str, wanted: Callable[[str], Awaitable[None]]) -> None:
        before, self.wanted = self.ran, wanted
        sent = await self.home.send(self.home.token(user), "support", "go")
        if self.failure is not None:
            raise self.failure
        assert self.ran == before + 1, sent

    async def exchange_token(self, token: str, agent: str = "sales") -> str:
        scope = f"agent:{agent}" if self.door in A2A else "tool:inventory.check"
        return await self.home.exchanged("support", token, resource(self.door, agent), scope)

    async def knock(self, token: str, **more: Any) -> Knock:
        return await knock(self.home, self.door, token, **more)


@pytest.fixture
async def agent_chain(shop: House) -> AgentChain:
    built = AgentChain(shop)
    await built.register_agents()
    return built


async def test_no_door_lets_a_chain_do_more_than_all_of_it_may(agent_chain: AgentChain, record_property: Record) -> None:
    """attacks DLG-01, DLG-02, DLG-05, DLG-06"""
    forged = {"X-User": "alice", "X-Forwarded-User": "alice", "baggage": "user=alice,act=sales", "Interlock-Delegation": "alice"}

    async def for_bob(token: str) -> None:
        onward = await agent_chain.exchange_token(token)
        for headers in ({}, forged):
            knocked = await agent_chain.knock(onward, headers=headers)
            assert not knocked.done, (agent_chain.door, headers, knocked.text)  # DLG-01, DLG-06

    async def for_alice(token: str) -> None:
        if agent_chain.door in A2A:
            looped = await agent_chain.knock(await agent_chain.exchange_token(token, "support"), agent="support")
            assert not looped.done, agent_chain.door  # DLG-05
            assert "loop" in looped.text or "in the chain already" in looped.text
        onward = await agent_chain.exchange_token(token)
        assert (await agent_chain.knock(onward)).done, agent_chain.door
        await agent_chain.set_ceiling("agent:other")
        assert not (await agent_chain.knock(onward)).done, agent_chain.door  # DLG-02

    for number, _ in enumerate(agent_chain.doors(record_property)):
        await agent_chain.run_for("bob", for_bob)
        assert agent_chain.reached_count == number
        await agent_chain.run_for("alice", for_alice)
        assert agent_chain.reached_count == number + 1
        await agent_chain.set_ceiling(*CEILING)


async def test_a_hop_token_opens_its_own_door_while_its_task_runs_and_no_other(agent_chain: AgentChain, record_property: Record) -> None:
    """attacks TOK-11, TOK-07"""
    kept: list[str] = []

    async def wanted(token: str) -> None:
        onward = await agent_chain.exchange_token(token)
        assert (await agent_chain.knock(onward)).done, agent_chain.door
        for other in DOORS:
            if resource(other) != resource(agent_chain.door):
                assert not (await knock(agent_chain.home, other, onward)).admitted, (agent_chain.door, other)
        assert not (await agent_chain.knock(token)).admitted, agent_chain.door  # what it was handed itself is for nobody but it
        kept.extend((token, onward))

    for number, door in enumerate(agent_chain.doors(record_property)):
        await agent_chain.run_for("alice", wanted)
        for token in kept:
            assert not (await agent_chain.knock(token)).admitted, door
        assert agent_chain.reached_count == number + 1


async def test_another_tenants_person_of_the_same_name_gets_nothing_by_naming_ours(
    agent_chain: AgentChain, record_property: Record
) -> None:
    """attacks TEN-03, TEN-04"""
    named = {"X-Tenant": "default", "X-Tenant-Id": "default", "tenant": "default"}
    for number, door in enumerate(agent_chain.doors(record_property)):
        for headers in ({}, named):
            knocked = await agent_chain.knock(agent_chain.home.token("alice", tenant="rival"), headers=headers)
            assert not knocked.done, (door, knocked.text)
        assert agent_chain.reached_count == number
        assert (await agent_chain.knock(agent_chain.home.token("alice"), headers=named)).done, door


async def test_nothing_that_came_in_by_any_door_goes_out(agent_chain: AgentChain, record_property: Record) -> None:
    """attack DLG-08"""
    token = agent_chain.home.token("alice")
    brought = {name: f"canary-{name}" for name in ("cookie", "x-api-key", "proxy-authorization", "x-amz-security-token")}
    for door in agent_chain.doors(record_property):
        assert (await agent_chain.knock(token, headers=brought)).done, door
    seen = json.dumps([agent_chain.sales.headers, agent_chain.sales.requests]).encode() + b"".join(agent_chain.server.bytes)
    assert agent_chain.reached_count == len(A2A) + len(MCP)
    assert b"canary-" not in seen
    assert token.encode() not in seen and token.split(".")[2].encode() not in seen
