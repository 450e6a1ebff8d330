"""The token endpoint: RFC 8693, told in the words of RFC 6749."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI

from gateway.ingress.oauth import token
from gateway.ingress.oauth.client import ASSERTION_TYPE, ClientAuthentication
from policies.tokens.client_assertion import ClientAssertionVerifier
from policies.tokens.hop_tokens import ExchangeRefused, TokenExchangeRequest
from policies.tokens.replay_guard import ReplayGuard
from tests.fakes.clock import Clock
from tests.fakes.issuer import EcKey, FakeIssuer
from tests.fakes.oauth import (
    ACCESS,
    FORM,
    SECRET,
    FakeClients,
    FakeExchanger,
    FakeWriter,
    NoKeys,
    NoRedeemer,
    Trail,
    agents,
    basic,
    refused,
)

ENDPOINT = "https://gw.test/oauth/token"
FORM_TYPE = {"content-type": "application/x-www-form-urlencoded"}


class KeepingFailed(Exception):
    pass


@pytest.fixture
def clients() -> FakeClients:
    return agents()


@pytest.fixture
def exchanger() -> FakeExchanger:
    return FakeExchanger()


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
async def http(clients: FakeClients, exchanger: FakeExchanger, trail: Trail) -> AsyncIterator[httpx.AsyncClient]:
    authentication = ClientAuthentication(
        clients, ClientAssertionVerifier((ENDPOINT, "https://gw.test"), Clock()), ReplayGuard(FakeWriter(), lambda: 1_800_000_000_000_000)
    )
    app = FastAPI()
    issuing = token.TokenIssuance(authentication, exchanger, NoRedeemer(), NoKeys())
    app.include_router(token.routes(issuing, trail, lambda *noted: trail.noted.append(noted), lambda *_: None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://gw.test") as client:
        yield client


def form(**overrides: str | None) -> dict[str, str]:
    return {name: value for name, value in {**FORM, **overrides}.items() if value is not None}


async def test_an_agent_exchanges_the_token_it_was_handed(http: httpx.AsyncClient, exchanger: FakeExchanger, trail: Trail) -> None:
    answer = await http.post("/oauth/token", data=FORM, headers=basic())
    assert answer.status_code == 200
    assert answer.json() == {
        "access_token": "new.hop.token",
        "issued_token_type": ACCESS,
        "token_type": "Bearer",
        "expires_in": 120,
        "scope": "tool:crm.read",
    }
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert exchanger.asked == [
        TokenExchangeRequest("acme", "sales", "https://sales.test/a2a", "the.hop.token", "https://gw.test/mcp/crm", "tool:crm.read")
    ]
    (record,) = trail.records
    assert {name: record[name] for name in ("kind", "agent", "grant_id", "txn", "task_id", "allowed", "scope")} == {
        "kind": "exchange",
        "agent": "sales",
        "grant_id": "g1",
        "txn": "x1",
        "task_id": "T1",
        "allowed": True,
        "scope": "tool:crm.read",
    }
    assert "token" not in str(record)


async def test_no_token_leaves_when_the_exchange_cannot_be_kept(http: httpx.AsyncClient, trail: Trail) -> None:
    trail.failure = KeepingFailed()
    with pytest.raises(KeepingFailed):
        await http.post("/oauth/token", data=FORM, headers=basic())


@pytest.mark.parametrize("error", ["invalid_target", "invalid_scope", "invalid_grant"])
async def test_a_refusal_says_which_and_is_kept(http: httpx.AsyncClient, exchanger: FakeExchanger, trail: Trail, error: str) -> None:
    exchanger.refusal = ExchangeRefused(error, 'not "held"\nby this\\é')
    answer = await http.post("/oauth/token", data=FORM, headers=basic())
    assert refused(answer, error)
    assert answer.json()["error_description"] == "not ?held??by this??"
    assert [(record["allowed"], record["error"]) for record in trail.records] == [(False, error)]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"resource": None}, "invalid_request"),
        ({"scope": None}, "invalid_request"),
        ({"scope": ""}, "invalid_request"),
        ({"audience": "crm"}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": ACCESS}, "invalid_request"),
        ({"client_id": "c_other"}, "invalid_request"),
    ],
)
async def test_a_request_that_is_not_the_exchange_is_refused(
    http: httpx.AsyncClient, exchanger: FakeExchanger, wrong: dict[str, str | None], error: str
) -> None:
    assert refused(await http.post("/oauth/token", data=form(**wrong), headers=basic()), error)
    assert exchanger.asked == []


async def test_unknown_parameters_and_the_own_client_id_do_no_harm(http: httpx.AsyncClient) -> None:
    wanted = form(client_id="c_sales", requested_token_type=ACCESS, flavour="x")
    assert (await http.post("/oauth/token", data=wanted, headers=basic())).status_code == 200


BODIES = {
    "resource twice": urlencode([*FORM.items(), ("resource", "https://gw.test/mcp")]),
    "scope twice, the same": urlencode([*FORM.items(), ("scope", FORM["scope"])]),
    "scope twice, once empty": urlencode([*FORM.items(), ("scope", "")]),
    "bad escape": urlencode(FORM) + "&x=%zz",
    "cut escape": urlencode(FORM) + "&x=%2",
    "not UTF-8": urlencode(FORM) + "&x=%ff",
    "raw UTF-8": urlencode(FORM) + "&x=é",
    "control character": urlencode(FORM) + "&x=%00",
    "line break": urlencode(FORM) + "&x=a\nb",
    "too many": urlencode(FORM) + "".join(f"&p{n}=1" for n in range(60)),
    "too large": urlencode(FORM) + "&x=" + "a" * 65_536,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_form_that_two_readers_could_read_differently_is_refused(
    http: httpx.AsyncClient, exchanger: FakeExchanger, body: str
) -> None:
    answer = await http.post("/oauth/token", content=body.encode(), headers={**basic(), **FORM_TYPE})
    assert refused(answer, "invalid_request")
    assert exchanger.asked == []


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
async def test_only_forms_are_read(http: httpx.AsyncClient, content_type: str) -> None:
    headers = {**basic(), "content-type": content_type}
    assert refused(await http.post("/oauth/token", content=urlencode(FORM).encode(), headers=headers), "invalid_request")


UNPROVED: dict[str, dict[str, str]] = {
    "nothing": {},
    "wrong secret": basic(secret="wrong"),
    "no secret": basic(secret=""),
    "unknown": basic("c_nobody"),
    "pending": basic("c_new"),
    "quarantined": basic("c_bad"),
    "a server": basic("c_crm"),
    "name for client id": basic("sales"),
    "bearer": {"authorization": "Bearer the.hop.token"},
    "another scheme": basic(scheme="Digest"),
    "not base64": {"authorization": "Basic c_sales:secret"},
    "no colon": {"authorization": "Basic YWJj"},
    "not ASCII": {"authorization": "Basic w6k6w6k="},
    "empty": {"authorization": ""},
}


@pytest.mark.parametrize("headers", UNPROVED.values(), ids=UNPROVED.keys())
async def test_a_client_that_proves_nothing_gets_one_and_the_same_answer(
    http: httpx.AsyncClient, exchanger: FakeExchanger, trail: Trail, headers: dict[str, str]
) -> None:
    answer = await http.post("/oauth/token", data=FORM, headers=headers)
    assert refused(answer, "invalid_client", 401)
    assert answer.headers["www-authenticate"].startswith("Basic realm=")
    if headers:
        assert answer.json()["error_description"].startswith("the client is unknown, or its authentication")
    assert (exchanger.asked, trail.records) == ([], [])


async def test_a_secret_in_the_form_is_not_client_authentication(http: httpx.AsyncClient, trail: Trail) -> None:
    assert refused(await http.post("/oauth/token", data=form(client_id="c_sales", client_secret=SECRET)), "invalid_client", 401)
    assert trail.noted[-1] == ("client", "/oauth/token", "")
    assert trail.records == []  # nobody's


async def test_a_header_that_stands_twice_is_refused(http: httpx.AsyncClient) -> None:
    headers = [*basic().items(), *basic().items(), *FORM_TYPE.items()]
    assert refused(await http.post("/oauth/token", content=urlencode(FORM).encode(), headers=headers), "invalid_request")


async def test_reading_the_token_endpoint_gives_nothing(http: httpx.AsyncClient) -> None:
    assert (await http.get("/oauth/token", params=FORM, headers=basic())).status_code == 405


# --- private_key_jwt


@pytest.fixture
def agent(clients: FakeClients) -> FakeIssuer:
    keyed = FakeIssuer("c_sales", ENDPOINT, Clock())
    clients.jwks = keyed.jwks().body.decode()
    return keyed


def asserted(agent: FakeIssuer, **claims: Any) -> dict[str, str]:
    text = agent.mint({"typ": "JWT"}, **{"sub": "c_sales", "exp": int(agent.now()) + 60, **claims})
    return form(client_assertion_type=ASSERTION_TYPE, client_assertion=text)


async def test_an_agent_may_prove_itself_by_its_key(http: httpx.AsyncClient, agent: FakeIssuer, exchanger: FakeExchanger) -> None:
    assert (await http.post("/oauth/token", data=asserted(agent))).status_code == 200
    assert exchanger.asked[0].agent == "sales"


async def test_an_assertion_counts_once(http: httpx.AsyncClient, agent: FakeIssuer) -> None:
    wanted = asserted(agent)
    assert (await http.post("/oauth/token", data=wanted)).status_code == 200
    assert refused(await http.post("/oauth/token", data=wanted), "invalid_client", 401)
    assert (await http.post("/oauth/token", data=asserted(agent))).status_code == 200


async def test_an_assertion_that_does_not_hold_proves_nothing(http: httpx.AsyncClient, agent: FakeIssuer, clients: FakeClients) -> None:
    for wrong in ({"sub": "c_new"}, {"sub": "c_nobody"}, {"aud": "https://other.test"}, {"exp": int(agent.now()) + 3600}):
        assert refused(await http.post("/oauth/token", data=asserted(agent, **wrong)), "invalid_client", 401)
    agent.key = EcKey()
    assert refused(await http.post("/oauth/token", data=asserted(agent)), "invalid_client", 401)
    clients.jwks = ""
    assert refused(await http.post("/oauth/token", data=asserted(agent)), "invalid_client", 401)


async def test_an_assertion_needs_its_type_and_stands_alone(http: httpx.AsyncClient, agent: FakeIssuer) -> None:
    complete = asserted(agent)
    for name in ("client_assertion", "client_assertion_type"):
        part = {key: value for key, value in complete.items() if key != name}
        assert refused(await http.post("/oauth/token", data=part), "invalid_request")
    assert refused(await http.post("/oauth/token", data={**complete, "client_assertion_type": "x"}), "invalid_request")
    assert refused(await http.post("/oauth/token", data=complete, headers=basic()), "invalid_request")
    assert refused(await http.post("/oauth/token", data={**complete, "client_assertion": "a.b.c"}), "invalid_client", 401)
