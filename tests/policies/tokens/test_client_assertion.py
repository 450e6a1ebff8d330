"""private_key_jwt: an agent proves who it is with a key of its own."""

import json
from typing import Any

import pytest

from policies.keys.strict_jwt import TokenRefused
from policies.tokens.client_assertion import Assertion, ClientAssertionVerifier, claimed_client_id
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, EcKey, FakeIssuer, RsaKey, compact

ENDPOINT, ISSUER, AGENT = "https://gw.test/oauth/token", "https://gw.test", "c_agent"


@pytest.fixture
def agent() -> FakeIssuer:
    return FakeIssuer(AGENT, ENDPOINT, Clock())


@pytest.fixture
def assertions() -> ClientAssertionVerifier:
    return ClientAssertionVerifier((ENDPOINT, ISSUER), Clock())


def assertion(agent: FakeIssuer, header: dict[str, Any] | None = None, **claims: Any) -> str:
    defaults = {"sub": AGENT, "exp": int(agent.now()) + 60, "jti": "j"}
    return agent.mint({"typ": "JWT", **(header or {})}, **{**defaults, **claims})


def jwks(agent: FakeIssuer) -> str:
    return agent.jwks().body.decode()


@pytest.mark.parametrize("key", [EcKey(), RsaKey()])
@pytest.mark.parametrize("audience", [ENDPOINT, ISSUER, [ENDPOINT]])
def test_an_agent_is_known_by_its_registered_key(
    assertions: ClientAssertionVerifier, agent: FakeIssuer, key: Any, audience: object
) -> None:
    agent.key = key
    token = assertion(agent, aud=audience)
    assert claimed_client_id(token) == AGENT
    assert assertions.verify(token, AGENT, jwks(agent)) == Assertion(AGENT, "j", agent.now() + 60)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"iss": "c_other"}, "client"),
        ({"sub": "c_other"}, "client"),
        ({"iss": ABSENT}, "client"),
        ({"aud": "https://other.test/token"}, "audience"),
        ({"aud": [ENDPOINT, ISSUER]}, "audience"),
        ({"aud": ABSENT}, "audience"),
        ({"jti": ABSENT}, "jti"),
        ({"exp": ABSENT}, "times"),
        ({"exp": 1_800_000_301}, "lifetime"),
        ({"iss": ENDPOINT}, "client"),
        ({"iss": "c_other", "sub": "c_other"}, "client"),
        ({"sub": ABSENT}, "client"),
        ({"jti": ""}, "jti"),
        ({"iat": 1_799_999_000, "exp": 1_799_999_200}, "expired"),
        ({"iat": 1_800_000_031}, "not-yet-valid"),
    ],
)
def test_an_assertion_with_a_wrong_claim_is_refused(
    assertions: ClientAssertionVerifier, agent: FakeIssuer, wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TokenRefused) as refused:
        assertions.verify(assertion(agent, **wrong), AGENT, jwks(agent))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "at+jwt"}, "type"),
        ({"typ": "oauth-id-jag+jwt"}, "type"),
        ({"typ": "dpop+jwt"}, "type"),
        ({"alg": "none"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"kid": "k2"}, "kid"),
        ({"jwk": {}}, "header"),
    ],
)
def test_an_assertion_with_a_wrong_header_is_refused(
    assertions: ClientAssertionVerifier, agent: FakeIssuer, header: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TokenRefused) as refused:
        assertions.verify(assertion(agent, header), AGENT, jwks(agent))
    assert refused.value.reason == reason


@pytest.mark.parametrize("typ", ["JWT", "jwt", "client-authentication+jwt", "", ABSENT])
def test_the_types_of_client_assertions_are_taken(assertions: ClientAssertionVerifier, agent: FakeIssuer, typ: object) -> None:
    assert assertions.verify(assertion(agent, {"typ": typ}), AGENT, jwks(agent)).client_id == AGENT


def test_an_assertion_lives_for_5_minutes_at_most(assertions: ClientAssertionVerifier, agent: FakeIssuer) -> None:
    now = int(agent.now())
    assert assertions.verify(assertion(agent, exp=now + 300), AGENT, jwks(agent)).not_after == now + 300


def test_who_an_assertion_says_it_is_from_is_read_before_it_is_believed(agent: FakeIssuer) -> None:
    assert claimed_client_id(assertion(agent, iss="c_other", aud="https://other.test")) == AGENT
    for sub in (ABSENT, "", None, 5, ["c_agent"]):
        with pytest.raises(TokenRefused, match="sub"):
            claimed_client_id(assertion(agent, sub=sub))
    with pytest.raises(TokenRefused, match="shape"):
        claimed_client_id("a.b.c")


def test_another_agents_key_proves_nothing(assertions: ClientAssertionVerifier, agent: FakeIssuer) -> None:
    token = compact(agent.header(typ="JWT"), agent.claims(sub=AGENT, exp=int(agent.now()) + 60), EcKey().sign)
    with pytest.raises(TokenRefused, match="signature"):
        assertions.verify(token, AGENT, jwks(agent))


@pytest.mark.parametrize("registered", ["", "{}", "no json", '{"keys":[]}', json.dumps({"keys": [{"kty": "oct", "k": "AA", "kid": "k1"}]})])
def test_a_client_without_usable_keys_is_refused(assertions: ClientAssertionVerifier, agent: FakeIssuer, registered: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        assertions.verify(assertion(agent), AGENT, registered)
    assert refused.value.reason == "client-keys"


def test_a_replaced_key_set_counts_at_once(assertions: ClientAssertionVerifier, agent: FakeIssuer) -> None:
    token = assertion(agent)
    assertions.verify(token, AGENT, jwks(agent))
    agent.key = EcKey()
    with pytest.raises(TokenRefused, match="signature"):
        assertions.verify(token, AGENT, jwks(agent))
