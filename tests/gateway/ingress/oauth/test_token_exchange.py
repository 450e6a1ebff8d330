"""The exchange with everything real but the network: registry, grant rows, keys, spent ids and both databases."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from msgspec import structs
from sqlalchemy import update

from gateway.ingress.http.proofs import ASSERTION_TYPE, RequestProofs
from gateway.ingress.http.rejected_credentials import RejectedCredentialLog
from gateway.ingress.oauth import token
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.storage.database import Database, raise_epoch
from policies.delegation.chain import Delegation, Principal
from policies.delegation.grants import Grants
from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.rulings import Act, Decision, Grant
from policies.ids import new_id
from policies.keys.signing import SigningKeys
from policies.keys.strict_jwt import TokenRefused, read_unverified
from policies.tokens.client_assertion import ClientAssertionVerifier
from policies.tokens.dpop import DpopVerifier
from policies.tokens.hop_tokens import HopTokens, MintingParameters
from policies.tokens.person_tokens import PersonTokens
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.tickets import Tickets
from policies.tokens.verifier import DEVELOPMENT_ISSUER, TokenVerifier, mint_development_token
from registry.cards.card import Family, RegistrationStatus
from registry.store import Candidate, Registry
from registry.tables import registrations
from tests.fakes.clock import Clock
from tests.fakes.issuer import FakeIssuer
from tests.fakes.oauth import FORM
from tests.fakes.plaintext_settings import PLAINTEXT_ROWS

GW = "https://gw.test"
ALICE = Principal("acme", DEVELOPMENT_ISSUER, "alice")


@dataclass
class House:
    """The gateway's parts, two agents with their secrets, and a way in."""

    clock: Clock
    database: Database
    keys: SigningKeys
    identity: TokenVerifier
    grants: Grants
    tokens: HopTokens
    registry: Registry
    http: httpx.AsyncClient
    secrets: dict[str, str]
    kept: list[Mapping[str, Any]]
    at_work: set[str]  # tasks whose turn is under way

    def delegated(self, *agents: str, ceiling: Permissions = ALL_PERMISSIONS) -> Delegation:
        person = Delegation(ALICE, Permissions.parse(["agent:*", "tool:crm.*"]), self.clock.now + 3600)
        for agent in agents:
            person = person.narrow(agent, ceiling, ALL_PERMISSIONS, person.not_after)
        return person.with_ids(new_id("g"), "T1", "x1")

    async def hand(self, delegation: Delegation) -> str:
        """Keeps the grant and returns the token that its last agent is handed."""
        await self.database.write(lambda batch: self.grants.add(batch, delegation, "", 0))
        act = Act("invokeAgent", "Agent", delegation.actor, f"agent:{delegation.actor}", delegation.actor)
        decision = Decision("d", 0, True, "allowed", ALICE.owner_key, (), (), act)
        return self.tokens.mint_credential(Grant(decision, delegation), f"https://{delegation.actor}.test")

    async def exchange(self, agent: str, subject_token: str, **overrides: str) -> httpx.Response:
        client_id = self.registry.find("acme", agent).client_id
        pair = base64.b64encode(f"{client_id}:{self.secrets[agent]}".encode()).decode()
        form = {**FORM, "subject_token": subject_token, **overrides}
        return await self.http.post("/oauth/token", data=form, headers={"authorization": f"Basic {pair}"})


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    clock = Clock()
    keys = SigningKeys.open(tmp_path, clock)
    identity = TokenVerifier(GW, keys, [], FakeIssuer().fetch, development=True)
    grants = Grants(database, clock)
    at_work = {"T1"}

    async def is_running(tenant: str, task_id: str) -> bool:
        return tenant == "acme" and task_id in at_work

    tokens = HopTokens(
        keys, identity, grants, MintingParameters(GW, 120, new_id, clock, lambda _tenant, _agent: ALL_PERMISSIONS, is_running)
    )
    records: list[Mapping[str, Any]] = []
    registry = Registry(
        database,
        lambda batch: raise_epoch(batch, "registry"),
        new_id,
        lambda: 1000,
        lambda _batch, record: records.append(record),
        rows=PLAINTEXT_ROWS,
    )
    secrets = {}
    for name in ("sales", "support"):
        url = f"https://{name}.test"
        _, secrets[name] = await registry.add(Candidate("acme", name, Family.AGENT, "a2a", url, "operator", RegistrationStatus.ACTIVE))
    assertions = ClientAssertionVerifier((f"{GW}/oauth/token",), clock)
    spent = ReplayGuard(database, lambda: int(clock.now * 1e6))
    clients = ClientAuthentication(registry, assertions, spent)
    minting = MintingParameters(GW, 120, new_id, clock, lambda _tenant, _agent: ALL_PERMISSIONS)
    proofs = RequestProofs(clients, Tickets(database, clock), DpopVerifier(keys, spent, clock), public_url=GW, grpc_url=GW)
    issuing = token.TokenIssuance(clients, tokens, PersonTokens(keys, identity, spent, minting), proofs)

    kept: list[Mapping[str, Any]] = []

    async def keep(record: Mapping[str, Any]) -> None:
        kept.append(json.loads(json.dumps(record)))

    app = FastAPI()
    app.include_router(token.routes(issuing, keep, RejectedCredentialLog(clock).log_rejection, lambda *_: None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=GW) as http:
        yield House(clock, database, keys, identity, grants, tokens, registry, http, secrets, kept, at_work)


def error(answer: httpx.Response) -> str:
    assert answer.status_code == 400
    return str(answer.json()["error"])


async def test_an_exchanged_token_says_less_and_names_the_whole_chain(house: House) -> None:
    delegation = house.delegated("support", "sales")
    answer = await house.exchange("sales", await house.hand(delegation), scope="tool:crm.read")
    assert answer.status_code == 200
    assert (answer.json()["scope"], answer.json()["expires_in"]) == ("tool:crm.read", 120)
    claims = await house.identity.verify(answer.json()["access_token"], (GW, f"{GW}/mcp/crm"))
    assert (claims.tenant, claims.issuer, claims.subject) == ("acme", DEVELOPMENT_ISSUER, "alice")
    assert (claims.actors, claims.client_id) == (("sales", "support"), "sales")
    assert (claims.grant_id, claims.task_id, claims.txn) == (delegation.grant_id, "T1", "x1")
    assert (claims.scope, claims.audience) == (Permissions.parse(["tool:crm.read"]), f"{GW}/mcp/crm")


async def test_the_owner_of_an_exchanged_token_is_known_before_the_agent_calls_with_it(house: House) -> None:
    answer = await house.exchange("sales", await house.hand(house.delegated("sales")))
    assert house.identity.owners.find(answer.json()["access_token"]) == ALICE.owner_key


async def test_an_exchanged_token_ends_no_later_than_the_one_it_came_from(house: House) -> None:
    handed = await house.hand(house.delegated("sales"))
    house.clock.now += 100
    answer = await house.exchange("sales", handed)
    assert answer.json()["expires_in"] == 20
    assert read_unverified(answer.json()["access_token"]).claims["exp"] == read_unverified(handed).claims["exp"]


async def test_what_the_chain_does_not_hold_is_refused_and_not_trimmed(house: House) -> None:
    handed = await house.hand(house.delegated("sales", ceiling=Permissions.parse(["tool:crm.read"])))
    for scope in ("tool:crm.write", "tool:crm.read tool:crm.write", "tool:*", "*", "state:read:x"):
        assert error(await house.exchange("sales", handed, scope=scope)) == "invalid_scope"
    for scope in ("tool:crm.read tool:crm.read", "openid", "tool:crm.read  agent:a"):
        assert error(await house.exchange("sales", handed, scope=scope)) == "invalid_scope"


@pytest.mark.parametrize("resource", ["https://evil.test/mcp", GW, f"{GW}/mcp/", f"{GW}/mcp/crm#x", f"{GW}/mcp/crm?x", f"{GW}/api", "mcp"])
async def test_a_target_that_is_not_ours_is_refused(house: House, resource: str) -> None:
    assert error(await house.exchange("sales", await house.hand(house.delegated("sales")), resource=resource)) == "invalid_target"


async def test_only_the_agent_that_was_handed_a_token_may_exchange_it(house: House) -> None:
    handed = await house.hand(house.delegated("sales"))
    assert error(await house.exchange("support", handed)) == "invalid_grant"
    before = await house.hand(house.delegated("support", "sales"))
    assert error(await house.exchange("support", before)) == "invalid_grant"


async def test_a_refusal_names_the_person_the_grant_and_the_task_that_it_was_for(house: House) -> None:  # attack LOG-04, TOK-11
    delegation = house.delegated("sales", ceiling=Permissions.parse(["tool:crm.read"]))
    handed = await house.hand(delegation)
    for agent, wrong in (
        ("sales", {"scope": "tool:crm.write"}),
        ("sales", {"scope": "nonsense"}),
        ("sales", {"resource": "https://evil.test/mcp"}),
        ("support", {}),
    ):
        if agent == "support":  # somebody else's token, made for an address that is its own
            await house.registry.update(replace(house.registry.find("acme", "support"), url="https://sales.test"))
        refused = error(await house.exchange(agent, handed, **wrong))
        record = house.kept[-1]
        assert (record["kind"], record["agent"], record["allowed"], record["error"]) == ("exchange", agent, False, refused)
        assert record["principal"] == {"issuer": DEVELOPMENT_ISSUER, "subject": "alice"}
        assert (record["grant_id"], record["task_id"], record["txn"]) == (delegation.grant_id, "T1", "x1")
        assert record["resource"] == {**FORM, **wrong}["resource"]
        assert handed not in str(record)
    assert "tool:crm.write" in house.kept[0]["why"]
    await house.database.write(lambda batch: house.grants.revoke(batch, "acme", delegation.grant_id, 1))
    house.grants.invalidate()
    await house.exchange("sales", handed)
    assert (house.kept[-1]["allowed"], house.kept[-1]["grant_id"]) == (False, delegation.grant_id)
    await house.exchange("sales", handed[:-4] + "AAAA")  # nobody signed this, so nothing in it is believed
    assert ("principal" in house.kept[-1], house.kept[-1]["txn"]) == (False, "")


async def test_a_token_of_another_tenant_tells_nothing_of_it(house: House) -> None:  # attack TEN-03
    _, house.secrets["spy"] = await house.registry.add(
        Candidate("acme", "spy", Family.AGENT, "a2a", "https://sales.test", "operator", RegistrationStatus.ACTIVE)
    )
    foreign = structs.replace(house.delegated("sales"), principal=replace(ALICE, tenant="rival"))
    assert error(await house.exchange("spy", await house.hand(foreign))) == "invalid_grant"
    assert "principal" not in house.kept[-1]


async def test_neither_a_persons_token_nor_an_exchanged_one_can_be_exchanged(house: House) -> None:
    for audience in (GW, "https://sales.test"):
        assert error(await house.exchange("sales", mint_development_token(house.keys, ALICE, audience))) == "invalid_grant"
    exchanged = (await house.exchange("sales", await house.hand(house.delegated("sales")))).json()["access_token"]
    assert error(await house.exchange("sales", exchanged)) == "invalid_grant"


async def test_a_token_whose_grant_or_time_is_over_cannot_be_exchanged(house: House) -> None:
    delegation = house.delegated("sales")
    handed, late = await house.hand(delegation), await house.hand(house.delegated("sales"))
    await house.database.write(lambda batch: house.grants.revoke(batch, "acme", delegation.grant_id, 1))
    assert error(await house.exchange("sales", handed)) == "invalid_grant"
    house.clock.now += 151
    assert error(await house.exchange("sales", late)) == "invalid_grant"


async def test_an_agent_that_was_suspended_is_no_client_any_more(house: House) -> None:
    handed = await house.hand(house.delegated("sales"))
    await house.registry.update(replace(house.registry.find("acme", "sales"), status=RegistrationStatus.QUARANTINED))
    assert (await house.exchange("sales", handed)).status_code == 401


async def test_an_agent_with_a_registered_key_needs_no_secret(house: House) -> None:
    client_id = house.registry.find("acme", "sales").client_id
    agent = FakeIssuer(client_id, f"{GW}/oauth/token", house.clock)
    registered = update(registrations).where(registrations.c.name == "sales").values(client_jwks=agent.jwks().body.decode(), updated=1)
    await house.database.write(lambda batch: batch.connection.execute(registered).rowcount)
    await house.registry.reload()
    assertion = agent.mint({"typ": "JWT"}, sub=client_id, exp=int(house.clock.now) + 60)
    form = {**FORM, "subject_token": await house.hand(house.delegated("sales"))}
    form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    assert (await house.http.post("/oauth/token", data=form)).status_code == 200
    assert (await house.http.post("/oauth/token", data=form)).status_code == 401


async def renewed(house: House, agent: str, token: str, **overrides: str) -> httpx.Response:
    """The answer to an agent that asks for a fresh token in place of the one that it was handed."""
    return await house.exchange(agent, token, resource=f"https://{agent}.test", **{"scope": "", **overrides})


async def test_an_agent_at_work_renews_its_token_for_hours(house: House) -> None:
    delegation = house.delegated("support", "sales")
    token = await house.hand(delegation)
    for _ in range(25):
        house.clock.now += 140  # it has expired each time
        answer = await renewed(house, "sales", token)
        assert answer.status_code == 200 and answer.json()["expires_in"] == min(120, delegation.not_after - house.clock.now)
        token = answer.json()["access_token"]
    claims = await house.identity.verify(token, ("https://sales.test",))
    assert (claims.grant_id, claims.task_id, claims.txn, claims.client_id) == (delegation.grant_id, "T1", "x1", "sales")
    assert (claims.actors, claims.scope) == (("sales", "support"), Permissions.parse(["agent:*", "tool:crm.*"]))
    assert (await house.exchange("sales", token)).status_code == 200  # and gives what the first one gave
    assert house.kept[-2]["renewed"] is True and house.kept[-2]["grant_id"] == delegation.grant_id and "renewed" not in house.kept[-1]


async def test_a_renewed_token_opens_nothing_but_the_token_endpoint(house: House) -> None:
    answer = await renewed(house, "sales", await house.hand(house.delegated("sales")))
    with pytest.raises(TokenRefused, match="audience"):
        await house.identity.verify(answer.json()["access_token"], (GW, f"{GW}/mcp", f"{GW}/mcp/crm", f"{GW}/agents/sales"))


async def test_a_renewed_token_may_say_less_and_never_more(house: House) -> None:  # attack DLG-03
    token = await house.hand(house.delegated("sales", ceiling=Permissions.parse(["tool:crm.*"])))
    less = await renewed(house, "sales", token, scope="tool:crm.read")
    assert less.json()["scope"] == "tool:crm.read"
    assert error(await renewed(house, "sales", less.json()["access_token"], scope="tool:crm.*")) == "invalid_scope"
    assert error(await renewed(house, "sales", token, scope="agent:*")) == "invalid_scope"
    assert (await renewed(house, "sales", less.json()["access_token"])).json()["scope"] == "tool:crm.read"


@pytest.mark.parametrize("ends", ["revoked", "waits", "over", "expires"])
async def test_nothing_is_renewed_once_the_grant_or_the_turn_is_over(house: House, ends: str) -> None:
    delegation = house.delegated("sales")
    token = await house.hand(delegation)
    if ends == "revoked":
        await house.database.write(lambda batch: house.grants.revoke(batch, "acme", delegation.grant_id, 1))
    elif ends == "expires":
        house.clock.now += 3601
    else:
        house.at_work.clear()
    assert error(await renewed(house, "sales", token)) == "invalid_grant"
    assert (house.kept[-1]["allowed"], house.kept[-1]["grant_id"]) == (False, delegation.grant_id)


async def test_nobody_renews_the_token_of_another_agent(house: House) -> None:
    """Neither as a client of its own, nor without its secret, nor by naming the other's address."""
    token = await house.hand(house.delegated("sales"))
    assert error(await renewed(house, "support", token)) == "invalid_grant"
    assert error(await house.exchange("support", token, resource="https://sales.test")) == "invalid_grant"
    house.secrets["sales"] = "guessed"
    assert (await renewed(house, "sales", token)).status_code == 401


async def test_what_nobody_signed_or_was_never_handed_out_is_not_renewed(house: House) -> None:
    token = await house.hand(house.delegated("sales"))
    assert error(await renewed(house, "sales", token[:-4] + "AAAA")) == "invalid_grant"
    exchanged = (await house.exchange("sales", token)).json()["access_token"]
    assert error(await renewed(house, "sales", exchanged)) == "invalid_grant"
    assert error(await renewed(house, "sales", mint_development_token(house.keys, ALICE, "https://sales.test"))) == "invalid_grant"


async def test_an_expired_token_is_not_exchanged_and_the_agent_is_told_to_renew_it(house: House) -> None:
    token = await house.hand(house.delegated("sales"))
    house.clock.now += 125
    answer = await house.exchange("sales", token)
    assert error(answer) == "invalid_grant" and "renew" in answer.json()["error_description"]


async def test_an_agent_that_an_operator_stopped_renews_nothing(house: House) -> None:
    token = await house.hand(house.delegated("sales"))
    await house.registry.update(replace(house.registry.find("acme", "sales"), status=RegistrationStatus.QUARANTINED))
    assert (await renewed(house, "sales", token)).status_code == 401
