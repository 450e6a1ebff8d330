"""private_key_jwt: an agent proves who it is with a key of its own."""

import json
from typing import Any

import pytest

from policies.client_assertion import Assertion, ClientAssertions, claimed_client
from policies.strict_jwt import TokenRefused
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, EcKey, FakeIssuer, RsaKey, compact

ENDPOINT, ISSUER, AGENT = "https://gw.test/oauth/token", "https://gw.test", "c_agent"


@pytest.fixture
def agent() -> FakeIssuer:
    return FakeIssuer(AGENT, ENDPOINT, Clock())


@pytest.fixture
def assertions() -> ClientAssertions:
    return ClientAssertions((ENDPOINT, ISSUER), Clock())


def assertion(agent: FakeIssuer, header: dict[str, Any] | None = None, **claims: Any) -> str:
    defaults = {"sub": AGENT, "exp": int(agent.now()) + 60, "jti": "j"}
    return agent.mint({"typ": "JWT", **(header or {})}, **{**defaults, **claims})


def jwks(agent: FakeIssuer) -> str:
    return agent.jwks().body.decode()


@pytest.mark.parametrize("key", [EcKey(), RsaKey()])
@pytest.mark.parametrize("audience", [ENDPOINT, ISSUER, [ENDPOINT]])
def test_an_agent_is_known_by_its_registered_key(assertions: ClientAssertions, agent: FakeIssuer, key: Any, audience: object) -> None:
    agent.key = key
    token = assertion(agent, aud=audience)
    assert claimed_client(token) == AGENT
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
        ({"iat": 1_799_999_000, "exp": 1_799_999_200}, "expired"),
        ({"iat": 1_800_000_031}, "not-yet-valid"),
    ],
)
def test_an_assertion_with_a_wrong_claim_is_refused(
    assertions: ClientAssertions, agent: FakeIssuer, wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TokenRefused) as refused:
        assertions.verify(assertion(agent, **wrong), AGENT, jwks(agent))
    assert refused.value.reason == reason


@pytest.mark.parametrize("header", [{"typ": "at+jwt"}, {"alg": "none"}, {"alg": "HS256"}, {"kid": "k2"}, {"jwk": {}}])
def test_an_assertion_with_a_wrong_header_is_refused(assertions: ClientAssertions, agent: FakeIssuer, header: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused):
        assertions.verify(assertion(agent, header), AGENT, jwks(agent))


def test_another_agents_key_proves_nothing(assertions: ClientAssertions, agent: FakeIssuer) -> None:
    token = compact(agent.header(typ="JWT"), agent.claims(sub=AGENT, exp=int(agent.now()) + 60), EcKey().sign)
    with pytest.raises(TokenRefused, match="signature"):
        assertions.verify(token, AGENT, jwks(agent))


@pytest.mark.parametrize("registered", ["", "{}", "no json", '{"keys":[]}', json.dumps({"keys": [{"kty": "oct", "k": "AA", "kid": "k1"}]})])
def test_a_client_without_usable_keys_is_refused(assertions: ClientAssertions, agent: FakeIssuer, registered: str) -> None:
    with pytest.raises(TokenRefused, match="client-keys"):
        assertions.verify(assertion(agent), AGENT, registered)


def test_a_replaced_key_set_counts_at_once(assertions: ClientAssertions, agent: FakeIssuer) -> None:
    token = assertion(agent)
    assertions.verify(token, AGENT, jwks(agent))
    agent.key = EcKey()
    with pytest.raises(TokenRefused, match="signature"):
        assertions.verify(token, AGENT, jwks(agent))
