"""Identity assertions (ID-JAG): a person's identity provider vouches for them to one client of ours, which gets one short token."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.cards.card import RegistrationStatus
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.issuer import ABSENT, EcKey, FakeIssuer, serving
from tests.fakes.proofs import Prover

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TYPE = {"typ": "oauth-id-jag+jwt"}


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with serving(FakeIssuer(now=time.time)) as served:
        yield served


@pytest.fixture
def silent() -> Iterator[FakeIssuer]:
    """One whose access tokens count, and whose assertions do not."""
    with serving(FakeIssuer(now=time.time)) as served:
        yield served


@pytest.fixture
async def home(tmp_path: Path, database_url: str, issuer: FakeIssuer, silent: FakeIssuer) -> AsyncIterator[House]:
    listed = {"issuer": issuer.url, "jwks_url": issuer.jwks_url, "tenant_claim": "tid", "tenants": ["default"], "id_jag": True}
    other = {"issuer": silent.url, "jwks_url": silent.jwks_url}
    identity = {"development": "on", "issuers": [listed, other]}
    async with house(tmp_path / "home", database_url, identity=identity) as built:
        await built.server("inventory", "check", "reserve")
        await built.agent(CallbackAgent("desk"), ("tool:inventory.check", "agent:*"))
        await built.agent(CallbackAgent("sales"))
        yield built


def assertion(home: House, issuer: FakeIssuer, header: dict[str, Any] | None = None, **claims: Any) -> str:
    said = {"aud": home.url, "client_id": home.secrets["desk"][0], "tid": "default", "roles": ["sales"], "exp": int(time.time()) + 300}
    return issuer.mint({**TYPE, **(header or {})}, **{**said, **claims})


async def redeem(home: House, given: str, agent: str = "desk", headers: dict[str, str] | None = None, **more: str) -> httpx.Response:
    form = {"grant_type": GRANT, "assertion": given, "resource": f"{home.url}/mcp/inventory", "scope": "tool:inventory.check", **more}
    form = {name: value for name, value in form.items() if value}
    return await home.http.post("/oauth/token", data=form, auth=home.secrets[agent], headers=headers)


def refused(answer: httpx.Response, error: str) -> bool:
    assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text
    return True


async def test_an_assertion_gives_a_short_token_for_the_person(home: House, issuer: FakeIssuer) -> None:
    given = (await redeem(home, assertion(home, issuer))).json()
    assert (given["token_type"], given["scope"], given["expires_in"] <= 300) == ("Bearer", "tool:inventory.check", True)
    assert "issued_token_type" not in given
    claims = await home.gateway.rulings.token_verifier.verify(given["access_token"], (f"{home.url}/mcp/inventory",))
    assert (claims.kind, claims.subject, claims.issuer, claims.tenant) == ("user", "alice", issuer.url, "default")
    assert (claims.roles, claims.agent) == (("sales",), "desk")
    assert "result" in (await home.call(given["access_token"], "/mcp/inventory", "check", {})).json()
    assert (await home.call(given["access_token"], "/mcp", "inventory_check", {})).status_code == 401  # another resource
    desk = home.gateway.registry.find("default", "desk")
    await home.gateway.registry.update(replace(desk, ceiling=("agent:*",)))
    await home.gateway.database.refresh_epochs()
    beyond = (await home.call(given["access_token"], "/mcp/inventory", "check", {})).json()  # which alice herself may
    told = beyond["error"]["data"]
    assert (told["reason_id"], [link["agent"] for link in told["chain"]]) == ("ceiling-exceeded", ["desk"])


# attack DLG-17
async def test_no_token_is_issued_above_the_ceiling_of_its_agent(home: House, issuer: FakeIssuer) -> None:
    for scope in ("tool:inventory.*", "tool:inventory.check tool:inventory.reserve", "*"):
        assert refused(await redeem(home, assertion(home, issuer), scope=scope), "invalid_scope")
        assert refused(await redeem(home, assertion(home, issuer, scope=scope), scope=""), "invalid_scope")
    kept = await exchanges(home)
    assert len(kept) == 6 and all("above the ceiling" in record["why"] and not record["allowed"] for record in kept)


async def test_the_chain_goes_on_from_the_agent_that_has_the_token(home: House, issuer: FakeIssuer) -> None:
    answer = await redeem(home, assertion(home, issuer), resource=f"{home.url}/agents/sales", scope="agent:sales")
    sent = await home.send(answer.json()["access_token"], "sales", "go")
    assert sent["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    back = await redeem(home, assertion(home, issuer), resource=f"{home.url}/agents/desk", scope="agent:desk")
    assert "loop" in str((await home.send(back.json()["access_token"], "desk", "go"))["error"])  # attack DLG-05


async def test_a_token_is_for_what_the_assertion_names_and_no_more(home: House, issuer: FakeIssuer) -> None:
    both = {"resource": f"{home.url}/mcp/inventory", "scope": "openid tool:inventory.check"}
    taken = await redeem(home, assertion(home, issuer, **both), resource="", scope="")
    assert (taken.status_code, taken.json()["scope"]) == (200, "tool:inventory.check")
    assert refused(await redeem(home, assertion(home, issuer, **both), resource=f"{home.url}/mcp"), "invalid_target")
    assert refused(await redeem(home, assertion(home, issuer, **both), scope="tool:inventory.check agent:*"), "invalid_scope")
    assert refused(await redeem(home, assertion(home, issuer), resource="https://evil.test/mcp"), "invalid_target")
    assert refused(await redeem(home, assertion(home, issuer), resource=f"{home.url}/mcp/"), "invalid_target")
    assert refused(await redeem(home, assertion(home, issuer), resource=""), "invalid_target")
    assert refused(await redeem(home, assertion(home, issuer), scope=""), "invalid_scope")
    assert refused(await redeem(home, assertion(home, issuer, scope="openid"), scope=""), "invalid_scope")
    assert refused(await redeem(home, ""), "invalid_request")


async def test_an_assertion_counts_once(home: House, issuer: FakeIssuer) -> None:  # attack TOK-11
    given = assertion(home, issuer)
    assert (await redeem(home, given)).status_code == 200
    assert refused(await redeem(home, given), "invalid_grant")
    assert refused(await redeem(home, given, resource=f"{home.url}/mcp"), "invalid_grant")


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what -> header, claims
    "an access token": ({"typ": "at+jwt"}, {}),
    "an ID token": ({"typ": "JWT"}, {}),
    "no type": ({"typ": ABSENT}, {}),
    "a client assertion": ({"typ": "client-authentication+jwt"}, {}),
    "another audience": ({}, {"aud": "https://evil.test"}),
    "the token endpoint as audience": ({}, {"aud": "http://interlock.test/oauth/token"}),
    "two audiences": ({}, {"aud": ["http://interlock.test", "https://evil.test"]}),
    "no audience": ({}, {"aud": ABSENT}),
    "no client": ({}, {"client_id": ABSENT}),
    "another client": ({}, {"client_id": "client_x"}),
    "another tenant": ({}, {"tid": "rival"}),
    "no tenant": ({}, {"tid": ABSENT}),
    "no person": ({}, {"sub": ABSENT}),
    "no id": ({}, {"jti": ABSENT}),
    "no end": ({}, {"exp": ABSENT}),
    "a long life": ({}, {"exp": int(time.time()) + 3600}),
    "over": ({}, {"iat": int(time.time()) - 400, "exp": int(time.time()) - 60}),
    "somebody in between": ({}, {"act": {"sub": "x"}}),
    "bound to a key": ({}, {"cnf": {"jkt": "A" * 43}}),
    "another issuer": ({}, {"iss": "https://evil.test"}),
    "ourselves": ({}, {"iss": "http://interlock.test"}),
    "the development issuer": ({}, {"iss": "interlock-development"}),
    "no algorithm": ({"alg": "none"}, {}),
    "a key in the header": ({"jwk": EcKey().jwk()}, {}),
    "a kid nobody knows": ({"kid": "other"}, {}),
}


async def test_what_is_no_assertion_for_this_client_is_refused(home: House, issuer: FakeIssuer, silent: FakeIssuer) -> None:
    for what, (header, claims) in WRONG.items():  # attack TOK-07, TOK-02, TOK-05
        assert refused(await redeem(home, assertion(home, issuer, header, **claims)), "invalid_grant"), what
    assert refused(await redeem(home, assertion(home, silent)), "invalid_grant")  # its issuer may not vouch
    assert refused(await redeem(home, assertion(home, issuer), "sales"), "invalid_grant")  # stolen from desk
    assert refused(await redeem(home, home.token("alice")), "invalid_grant")
    assert refused(await redeem(home, "a.b.c"), "invalid_grant")
    forged = FakeIssuer(issuer.url, now=time.time)
    assert refused(await redeem(home, assertion(home, forged)), "invalid_grant")


async def test_without_a_client_an_assertion_is_worth_nothing(home: House, issuer: FakeIssuer) -> None:
    form = {"grant_type": GRANT, "assertion": assertion(home, issuer), "resource": f"{home.url}/mcp", "scope": "tool:*"}
    for auth in (None, (home.secrets["desk"][0], "wrong"), ("x", "y")):
        answer = await home.http.post("/oauth/token", data=form, auth=auth) if auth else await home.http.post("/oauth/token", data=form)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_an_assertion_opens_no_door_itself(home: House, issuer: FakeIssuer) -> None:  # attack TOK-07
    given = assertion(home, issuer, aud=home.url, tid="default")
    assert (await home.call(given, "/mcp/inventory", "check", {})).status_code == 401
    assert (await home.http.get("/api/tasks", headers={"authorization": f"Bearer {given}"})).status_code == 401


async def test_the_token_ends_with_its_agents_leave_to_act(home: House, issuer: FakeIssuer) -> None:
    token = (await redeem(home, assertion(home, issuer))).json()["access_token"]
    assert (await home.call(token, "/mcp/inventory", "check", {})).status_code == 200
    await home.gateway.registry.set_status("default", "desk", RegistrationStatus.QUARANTINED)
    assert (await home.call(token, "/mcp/inventory", "check", {})).status_code == 401


async def test_such_a_token_cannot_be_exchanged(home: House, issuer: FakeIssuer) -> None:
    token = (await redeem(home, assertion(home, issuer))).json()["access_token"]
    assert (await home.exchange("desk", token, "/mcp/inventory", "tool:inventory.check")).json()["error"] == "invalid_grant"


async def test_it_can_be_bound_to_a_key(home: House, issuer: FakeIssuer) -> None:  # attack TOK-12
    prover = Prover(time.time)
    answer = await redeem(home, assertion(home, issuer), headers={"dpop": prover.proof("POST", f"{home.url}/oauth/token")})
    assert answer.json()["token_type"] == "DPoP"
    assert (await home.call(answer.json()["access_token"], "/mcp/inventory", "check", {})).status_code == 401


async def test_what_was_given_and_refused_is_in_the_audit(home: House, issuer: FakeIssuer) -> None:  # attack LOG-04
    given = assertion(home, issuer)
    await redeem(home, given)
    await redeem(home, given)
    kept = await exchanges(home)
    assert len(kept) >= 2 and given not in str(kept)


async def exchanges(home: House) -> list[dict[str, Any]]:
    """The audit's records of tokens that agents got or were refused."""
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    found = (await home.http.get("/api/audit", params={"kind": "exchange"}, headers=headers)).json()["items"]
    return [item for item in found if item["kind"] == "exchange"]
