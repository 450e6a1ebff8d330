"""People's tokens for agents, one for each assertion of the person's identity provider (ID-JAG)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.keys.signing import SigningKeys
from policies.tokens.hop_tokens import ExchangeRefused, GrantReference, MintingParameters
from policies.tokens.issuers import TrustedIssuer
from policies.tokens.person_tokens import TOKEN_LIFE, AssertionExchangeRequest, PersonTokens
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.verifier import DEVELOPMENT_ISSUER, TokenRefused, TokenVerifier
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, FakeIssuer
from tests.fakes.tokens import GW, refusal

JAG = {"typ": "oauth-id-jag+jwt"}
KEY = "k" * 43


class Once:
    """Ids that count once, in memory: each by tenant and name, with its end."""

    def __init__(self) -> None:
        self.spent: dict[tuple[str, str], float] = {}

    async def consume(self, tenant: str, spent_id: str, not_after: float) -> bool:
        if (tenant, spent_id) in self.spent:
            return False
        self.spent[tenant, spent_id] = not_after
        return True


class Signed:
    """Keeps the claims instead of signing them."""

    claims: Mapping[str, Any]

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        self.claims = claims
        return f"a {typ}"


class Ceilings:
    """Of agents, as they are now; without one an agent has no limit of its own."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Permissions | None] = {}

    def __call__(self, tenant: str, agent: str) -> Permissions | None:
        return self.known.get((tenant, agent), ALL_PERMISSIONS)


@pytest.fixture
def ceilings() -> Ceilings:
    return Ceilings()


@pytest.fixture
def once() -> Once:
    return Once()


@pytest.fixture
def signed() -> Signed:
    return Signed()


@pytest.fixture
def vouching(issuer: FakeIssuer, keys: SigningKeys) -> TokenVerifier:
    return TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, id_jag=True)], issuer.fetch)


@pytest.fixture
def tokens(vouching: TokenVerifier, once: Once, signed: Signed, clock: Clock, ceilings: Ceilings) -> PersonTokens:
    return PersonTokens(
        signed, vouching, cast(ReplayGuard, once), MintingParameters(GW, 120, lambda prefix: f"{prefix}_1", clock, ceilings)
    )


Asking = Callable[..., AssertionExchangeRequest]


@pytest.fixture
def asking(issuer: FakeIssuer) -> Asking:
    """What desk asks for with an assertion that says `said`."""

    def made(said: Mapping[str, Any] | None = None, **asked: str) -> AssertionExchangeRequest:
        assertion = issuer.mint(JAG, **{"client_id": "c_desk", "jti": "j1", **(said or {})})
        return replace(AssertionExchangeRequest("default", "desk", "c_desk", assertion, f"{GW}/mcp/crm", "tool:crm.read"), **asked)

    return made


# --- what an identity provider may say


async def test_an_assertion_of_an_issuer_that_may_is_read(issuer: FakeIssuer, keys: SigningKeys) -> None:
    identity = TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, id_jag=True)], issuer.fetch)
    for typ in ("oauth-id-jag+jwt", "application/oauth-id-jag+jwt", "OAuth-ID-JAG+jwt"):
        said = await identity.verify_identity_assertion(issuer.mint({"typ": typ}, client_id="c_desk"))
        assert (said.issuer, said.subject, said.client_id, said.tenant) == (issuer.url, "alice", "c_desk", "default")


async def test_any_other_statement_vouches_for_nobody(issuer: FakeIssuer, keys: SigningKeys, clock: Clock) -> None:  # attack TOK-07
    silent = FakeIssuer("https://silent.test", GW, clock)
    trusted = [TrustedIssuer(issuer.url, issuer.jwks_url, id_jag=True), TrustedIssuer(silent.url, silent.jwks_url)]
    identity = TokenVerifier(GW, keys, trusted, issuer.fetch, development=True)
    others = (silent.url, GW, DEVELOPMENT_ISSUER, "https://evil.test", "", None, 5, [issuer.url], ABSENT)
    wrong: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        *(("type", {"typ": typ}, {}) for typ in ("at+jwt", "application/at+jwt", "JWT", "", "id-jag+jwt", ABSENT)),
        *(("issuer", JAG, {"iss": iss}) for iss in others),
        *(("audience", JAG, {"aud": aud}) for aud in ("https://evil.test", f"{GW}/oauth/token", [GW, "https://evil.test"], ABSENT)),
        ("kid", {**JAG, "kid": "other"}, {}),
        ("kid", {**JAG, "kid": keys.active_kid}, {}),
        ("client_id", JAG, {"client_id": ABSENT}),
        ("lifetime", JAG, {"exp": int(clock.now) + 601}),
    ]
    for why, header, claims in wrong:
        with pytest.raises(TokenRefused, match=f"^{why}$"):
            await identity.verify_identity_assertion(issuer.mint(header, **{"client_id": "c_desk", **claims}))
    forged = FakeIssuer(issuer.url, GW, clock)
    with pytest.raises(TokenRefused, match="signature"):
        await identity.verify_identity_assertion(forged.mint(JAG, client_id="c_desk"))
    with pytest.raises(TokenRefused, match="shape"):
        await identity.verify_identity_assertion("a.b.c")


async def test_an_assertion_is_no_token(issuer: FakeIssuer, keys: SigningKeys) -> None:
    identity = TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, id_jag=True)], issuer.fetch)
    assert await refusal(identity, issuer.mint({"typ": "oauth-id-jag+jwt"}, client_id="c_desk")) == "type"


# --- what is given for it


async def test_an_assertion_gives_one_short_token_for_the_person(
    tokens: PersonTokens, signed: Signed, once: Once, asking: Asking, issuer: FakeIssuer, clock: Clock
) -> None:
    given = await tokens.redeem(asking({"roles": ["sales"]}))
    assert (given.token.access_token, given.token.expires_in, given.token.scope) == ("a at+jwt", 300, "tool:crm.read")
    assert (given.token.is_key_bound, given.token.delegation) == (False, None)
    assert given.grant_reference == GrantReference(issuer.url, "alice", "", "", "")
    now = int(clock.now)
    assert signed.claims == {
        "iss": GW, "sub": "alice", "tid": "default", "user_iss": issuer.url, "aud": f"{GW}/mcp/crm", "client_id": "c_desk", "agent": "desk",
        "roles": ["sales"], "scope": "tool:crm.read", "txn": "x_1", "iat": now, "exp": now + 300, "jti": "j_1",
    }  # fmt: skip
    assert once.spent == {("default", f"id-jag {issuer.url} j1"): now + 600}  # as long as the assertion could come again


async def test_what_is_given_is_taken_by_the_gateway(vouching: TokenVerifier, keys: SigningKeys, once: Once, asking: Asking) -> None:
    tokens = PersonTokens(
        keys, vouching, cast(ReplayGuard, once), MintingParameters(GW, 120, lambda prefix: f"{prefix}_1", keys.now, Ceilings())
    )
    given = await tokens.redeem(asking({"roles": ["sales"]}))
    claims = await vouching.verify(given.token.access_token, (f"{GW}/mcp/crm",))
    assert (claims.subject, claims.roles, claims.agent, claims.client_id, claims.kind) == ("alice", ("sales",), "desk", "c_desk", "user")
    assert claims.expires == int(keys.now()) + TOKEN_LIFE


async def test_a_token_is_bound_to_the_key_that_was_proven(tokens: PersonTokens, signed: Signed, asking: Asking) -> None:  # attack TOK-12
    assert (await tokens.redeem(asking(thumbprint=KEY))).token.is_key_bound is True
    assert signed.claims["cnf"] == {"jkt": KEY}


async def refused(tokens: PersonTokens, asked: AssertionExchangeRequest) -> tuple[str, str]:
    with pytest.raises(ExchangeRefused) as refusal_:
        await tokens.redeem(asked)
    return refusal_.value.error, refusal_.value.description


async def test_an_assertion_counts_once(tokens: PersonTokens, asking: Asking) -> None:  # attack TOK-11
    await tokens.redeem(asking())
    for again in (asking(), asking(resource=f"{GW}/mcp"), asking({"sub": "bob"})):
        error, description = await refused(tokens, again)
        assert (error, "used before" in description) == ("invalid_grant", True)
    await tokens.redeem(asking({"jti": "j2"}))


async def test_an_assertion_is_worth_nothing_to_another_client_or_tenant(issuer: FakeIssuer, tokens: PersonTokens, once: Once) -> None:
    for tenant, client in (("default", "c_other"), ("other", "c_desk"), ("other", "c_other")):
        asked = AssertionExchangeRequest(tenant, "desk", client, issuer.mint(JAG, client_id="c_desk"), f"{GW}/mcp", "tool:crm.read")
        error, description = await refused(tokens, asked)
        assert (error, "not issued for this client" in description) == ("invalid_grant", True)
    assert once.spent == {}


async def test_what_is_refused_is_not_spent(tokens: PersonTokens, once: Once, asking: Asking) -> None:
    assert await refused(tokens, asking({"iss": "https://evil.test"})) == ("invalid_grant", "the assertion is refused: issuer")
    assert (await refused(tokens, asking(resource="https://evil.test")))[0] == "invalid_target"
    assert (await refused(tokens, asking(scope="")))[0] == "invalid_scope"
    assert once.spent == {}
    await tokens.redeem(asking())


@pytest.mark.parametrize("resource", [GW, f"{GW}/mcp", f"{GW}/mcp/crm", f"{GW}/agents/sales"])
async def test_a_token_is_for_one_resource_of_the_gateway(tokens: PersonTokens, signed: Signed, asking: Asking, resource: str) -> None:
    for number, (said, asked) in enumerate((({}, resource), ({"resource": resource}, resource), ({"resource": resource}, ""))):
        await tokens.redeem(asking({"jti": f"j{number}", **said}, resource=asked))
        assert signed.claims["aud"] == resource


STRANGE = ["", "https://evil.test", f"{GW}/", f"{GW}/mcp/", f"{GW}/api", f"{GW}/agents", f"{GW}.evil.test", "https://gwxtest", f"x{GW}"]


@pytest.mark.parametrize("resource", STRANGE)
async def test_nothing_else_is_a_resource(tokens: PersonTokens, asking: Asking, resource: str) -> None:  # attack TOK-07
    assert (await refused(tokens, asking(resource=resource)))[0] == "invalid_target"
    if resource:
        assert (await refused(tokens, asking({"resource": resource}, resource="")))[0] == "invalid_target"


async def test_an_assertion_for_one_resource_is_for_no_other(tokens: PersonTokens, asking: Asking) -> None:
    for resource in (GW, f"{GW}/mcp", f"{GW}/mcp/crm2"):
        error, description = await refused(tokens, asking({"resource": f"{GW}/mcp/crm"}, resource=resource))
        assert (error, "another resource" in description) == ("invalid_target", True)


SCOPES: dict[str, tuple[str | None, str, str]] = {  # what -> said, asked, given
    "what is asked for, where nothing is said": (None, "tool:crm.read", "tool:crm.read"),
    "what is asked for, where it is covered": ("openid tool:crm.*", "tool:crm.write tool:crm.read", "tool:crm.read tool:crm.write"),
    "all that is said, where nothing is asked for": ("openid tool:crm.read tool:a.b", "", "tool:a.b tool:crm.read"),
    "the same": ("tool:crm.read", "tool:crm.read", "tool:crm.read"),
}


@pytest.mark.parametrize(("said", "asked", "given"), SCOPES.values(), ids=SCOPES.keys())
async def test_a_token_permits(tokens: PersonTokens, signed: Signed, asking: Asking, said: str | None, asked: str, given: str) -> None:
    answer = await tokens.redeem(asking({} if said is None else {"scope": said}, scope=asked))
    assert (answer.token.scope, signed.claims["scope"]) == (given, given)


BEYOND: dict[str, tuple[str | None, str, str]] = {  # what -> said, asked, what the refusal says
    "nothing said and nothing asked for": (None, "", "scope is missing"),
    "no permission said and nothing asked for": ("openid", "", "scope is missing"),
    "more than is said": ("tool:crm.read", "tool:crm.*", "not in the scope"),
    "something else, too": ("tool:crm.read", "tool:crm.read tool:crm.write", "not in the scope"),
    "anything, where no permission is said": ("openid", "tool:crm.read", "not in the scope"),
    "no permission": (None, "openid", "openid"),
    "the same twice": (None, "tool:crm.read tool:crm.read", "twice"),
}


@pytest.mark.parametrize(("said", "asked", "why"), BEYOND.values(), ids=BEYOND.keys())
async def test_a_scope_is_never_wider_than_the_assertions(
    tokens: PersonTokens, asking: Asking, said: str | None, asked: str, why: str
) -> None:
    error, description = await refused(tokens, asking({} if said is None else {"scope": said}, scope=asked))
    assert (error, why in description) == ("invalid_scope", True), description


# attack DLG-17
@pytest.mark.parametrize(
    ("ceiling", "scope", "excess"),
    [
        (["tool:crm.read"], "tool:crm.*", "tool:crm.*"),
        (["tool:crm.read"], "tool:crm.read tool:crm.write agent:x", "agent:x tool:crm.write"),
        (["agent:*"], "tool:crm.read", "tool:crm.read"),
        ([], "tool:crm.read", "tool:crm.read"),
        (["tool:crm.*"], "*", "*"),
    ],
)
async def test_no_token_is_issued_above_the_ceiling_of_its_agent(
    tokens: PersonTokens, once: Once, ceilings: Ceilings, asking: Asking, ceiling: list[str], scope: str, excess: str
) -> None:
    ceilings.known["default", "desk"] = Permissions.parse(ceiling)
    assert await refused(tokens, asking(scope=scope)) == ("invalid_scope", f"above the ceiling of this agent: {excess}")
    assert await refused(tokens, asking({"scope": scope}, scope="")) == ("invalid_scope", f"above the ceiling of this agent: {excess}")
    assert once.spent == {}


# attack DLG-17
async def test_up_to_its_ceiling_an_agent_gets_what_it_asks_for(
    tokens: PersonTokens, signed: Signed, ceilings: Ceilings, asking: Asking
) -> None:
    ceilings.known |= {("default", "desk"): Permissions.parse(["tool:crm.*"]), ("default", "other"): None, ("other", "desk"): None}
    await tokens.redeem(asking(scope="tool:crm.read tool:crm.write"))
    assert signed.claims["scope"] == "tool:crm.read tool:crm.write"


async def test_an_agent_that_may_not_act_gets_no_token(tokens: PersonTokens, ceilings: Ceilings, asking: Asking) -> None:
    ceilings.known["default", "desk"] = None
    assert (await refused(tokens, asking()))[0] == "invalid_grant"
