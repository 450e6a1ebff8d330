"""Tokens become claims, or nothing."""

import base64
from pathlib import Path
from typing import Any

import pytest

from policies.delegation.permissions import Permissions
from policies.keys.jwks import VettedKey
from policies.keys.signing import SigningKeys
from policies.tokens import verifier
from policies.tokens.issuers import TrustedIssuer
from policies.tokens.verifier import DEVELOPMENT_ISSUER, TokenRefused, TokenVerifier, mint_development_token
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, EcKey, FakeIssuer, RsaKey, b64
from tests.fakes.tokens import ALICE, GW, hop_claims, refusal

# --- people of an external issuer


async def test_a_person_of_a_trusted_issuer_is_known(identity: TokenVerifier, issuer: FakeIssuer, clock: Clock) -> None:
    token = issuer.mint(roles=["sales"], scope="openid agent:sales profile tool:crm.*", client_id="console", jti="t")
    claims = await identity.verify(token, {GW})
    assert (claims.tenant, claims.issuer, claims.subject, claims.roles) == ("default", issuer.url, "alice", ("sales",))
    assert claims.scope == Permissions.parse(["agent:sales", "tool:crm.*"])
    assert (claims.audience, claims.client_id, claims.token_id, claims.kind) == (GW, "console", "t", "user")
    assert claims.expires == clock.now + 600


async def test_rs256_is_as_good(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    issuer.key = RsaKey()
    assert (await identity.verify(issuer.mint(), {GW})).subject == "alice"


async def test_without_a_scope_claim_the_token_does_not_narrow(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    assert (await identity.verify(issuer.mint(), {GW})).scope is None


async def test_a_scope_without_any_permission_does_not_narrow(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    assert (await identity.verify(issuer.mint(scope="openid profile"), {GW})).scope is None


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", ABSENT])
async def test_types_that_identity_providers_send_are_taken(identity: TokenVerifier, issuer: FakeIssuer, typ: object) -> None:
    assert await identity.verify(issuer.mint({"typ": typ}, scope="openid"), {GW})


@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "secevent+jwt", "jwt ", None, 5, ["at+jwt"]])
async def test_other_types_are_refused(identity: TokenVerifier, issuer: FakeIssuer, typ: object) -> None:
    assert await refusal(identity, issuer.mint({"typ": typ})) in ("type", "header")


FOR_CLIENTS: dict[str, dict[str, Any]] = {  # tokens that are not for an API, as providers write them; each names us as its audience
    "an ID token of the code flow": {"nonce": "n-0S6_WzA2Mj", "at_hash": "77QmUPtjPfzWtF2AnpK9RQ", "auth_time": 1_799_999_000},
    "an ID token with a nonce alone": {"nonce": "n-0S6_WzA2Mj"},
    "an ID token without a nonce": {"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    "an ID token of the hybrid flow": {"c_hash": "LDktKdoQak3Pk0cnXxCltA"},
    "an ID token with the hash of its state": {"s_hash": "LDktKdoQak3Pk0cnXxCltA"},
    "an ID token that tells when its person signed in": {"auth_time": 1_799_999_000},
    "an ID token of Keycloak": {"typ": "ID", "scope": "openid"},
    "a refresh token of Keycloak": {"typ": "Refresh", "scope": "openid"},
    "an offline token of Keycloak": {"typ": "Offline", "scope": "openid"},
    "an ID token of Cognito": {"token_use": "id"},
    "a logout token": {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "sid": "s"},
    "a logout token of Keycloak": {"typ": "Logout", "sid": "s"},
    "an ID token that tells nothing else": {},
    "an ID token for its only party": {"azp": GW},
    "an ID token for one of two": {"azp": GW, "aud": [GW]},
    "an empty list of events": {"events": {}, "scope": "openid"},
}
FOR_APIS: dict[str, dict[str, Any]] = {
    "an access token of Okta": {"auth_time": 1_799_999_000, "scp": ["openid"], "cid": "0oab8eb55Kb9jdMIr5d6"},
    "an access token with a client and no scope": {"azp": "console"},
    "an access token with a scope and no client": {"scope": ""},
    "an access token of Keycloak": {"auth_time": 1_799_999_000, "typ": "Bearer"},
    "an access token of an older Keycloak": {"auth_time": 1_799_999_000, "typ": "Bearer", "nonce": "n-0S6_WzA2Mj", "scope": "openid"},
    "an access token of Cognito": {"token_use": "access", "scope": "openid"},
    "one with a session": {"sid": "s", "acr": "1", "client_id": "console"},
}


# attack TOK-15
@pytest.mark.parametrize("typ", ["JWT", ABSENT])
@pytest.mark.parametrize("what", FOR_CLIENTS)
async def test_a_token_for_a_client_opens_nothing(identity: TokenVerifier, issuer: FakeIssuer, what: str, typ: object) -> None:
    assert await refusal(identity, issuer.mint({"typ": typ}, **FOR_CLIENTS[what])) == "id-token"


@pytest.mark.parametrize("what", FOR_APIS)
async def test_a_token_for_an_api_is_taken(identity: TokenVerifier, issuer: FakeIssuer, what: str) -> None:
    assert await identity.verify(issuer.mint({"typ": "JWT"}, **FOR_APIS[what]), {GW})


async def test_a_token_that_says_it_is_for_an_api_may_tell_of_its_persons_login(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    assert await identity.verify(issuer.mint({"typ": "at+jwt"}, auth_time=1_799_999_000, acr="1"), {GW})  # RFC 9068 s2.2.1


# attack TOK-15
@pytest.mark.parametrize("typ", ["JWT", "", ABSENT])
async def test_where_the_operator_wants_it_only_at_jwt_is_taken(issuer: FakeIssuer, keys: SigningKeys, typ: object) -> None:
    strict = TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, typ="at+jwt")], issuer.fetch)
    assert await refusal(strict, issuer.mint({"typ": typ}, scope="openid")) == "type"
    assert await strict.verify(issuer.mint({"typ": "application/at+jwt"}), {GW})


async def test_an_issuer_may_know_us_by_a_name_of_its_own(issuer: FakeIssuer, keys: SigningKeys) -> None:
    trusted = TrustedIssuer(issuer.url, issuer.jwks_url, audience="api://interlock")
    identity = TokenVerifier(GW, keys, [trusted], issuer.fetch)
    token = issuer.mint(aud="api://interlock")
    claims = await identity.verify(token, (GW, f"{GW}/mcp"))
    assert claims.audience == GW
    assert identity.find_cached(token, (GW,)) is claims
    assert await refusal(identity, issuer.mint(aud=GW)) == "audience"
    assert await refusal(identity, token, (f"{GW}/agents/a",)) == "audience"


async def test_a_person_may_have_a_token_for_one_resource_of_the_gateway_alone(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    token = issuer.mint(aud=f"{GW}/mcp/crm")
    assert (await identity.verify(token, (GW, f"{GW}/mcp/crm"))).audience == f"{GW}/mcp/crm"
    assert await refusal(identity, token, (GW, f"{GW}/mcp")) == "audience"
    assert await refusal(identity, token, (GW,)) == "audience"


async def test_what_is_no_door_of_the_gateway_takes_no_token_of_a_person(
    identity: TokenVerifier, issuer: FakeIssuer
) -> None:  # attack TOK-07
    for aud in ("https://agent-b.test", GW):
        assert await refusal(identity, issuer.mint(aud=aud), ("https://agent-b.test",)) == "audience"


async def test_the_tenant_comes_from_the_named_claim_only(issuer: FakeIssuer, keys: SigningKeys) -> None:
    identity = TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, tenant_claim="org")], issuer.fetch)
    assert (await identity.verify(issuer.mint(org="acme", tid="evil"), {GW})).tenant == "acme"
    for org in (ABSENT, "", "a|b", "a\nb", 7, ["acme"], "a" * 257):
        assert await refusal(identity, issuer.mint(org=org, tid="evil")) in ("org", "tenant")


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "iat", "exp"])
async def test_a_token_without_a_needed_claim_is_refused(identity: TokenVerifier, issuer: FakeIssuer, claim: str) -> None:
    missing: dict[str, Any] = {claim: ABSENT}
    assert await refusal(identity, issuer.mint(**missing))


async def test_tokens_that_others_act_with_or_bound_to_something_strange_are_refused(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    assert await refusal(identity, issuer.mint(act={"sub": "agent"})) == "act"
    for bound in ({"jkt": "x"}, {"x5t#S256": "A" * 43}, {"jkt": "A" * 43, "jwk": {}}, {"jkt": 5}, {}, None, "A" * 43, []):
        assert await refusal(identity, issuer.mint(cnf=bound)) == "cnf"
    assert (await identity.verify(issuer.mint(cnf={"jkt": "A" * 43}), (GW,))).thumbprint == "A" * 43


@pytest.mark.parametrize("iss", ["https://evil.test", "https://idp.test/", "HTTPS://idp.test", "", None, 5, ["https://idp.test"]])
async def test_the_issuer_is_compared_exactly(identity: TokenVerifier, issuer: FakeIssuer, iss: object) -> None:
    assert await refusal(identity, issuer.mint(iss=iss)) == "issuer"
    assert issuer.requests == 0


async def test_one_issuer_cannot_speak_for_another(issuer: FakeIssuer, keys: SigningKeys, clock: Clock) -> None:
    other = FakeIssuer("https://other.test", GW, clock)
    assert isinstance(other.key, EcKey)
    trusted = [TrustedIssuer(each.url, each.jwks_url) for each in (issuer, other)]

    async def fetch(url: str, *, limit: int = 0, timeout: float = 0) -> Any:  # noqa: ASYNC109 - the port's shape
        return await (other if url.startswith(other.url) else issuer).fetch(url)

    identity = TokenVerifier(GW, keys, trusted, fetch)
    assert await identity.verify(other.mint(), {GW})
    assert await refusal(identity, other.mint(iss=issuer.url)) == "signature"
    assert await refusal(identity, other.mint(iss=GW)) == "kid"


@pytest.mark.parametrize("names", [[GW], [DEVELOPMENT_ISSUER], [""], ["a|b"], ["a", "|"], ["a", "a"], ["a", GW]])
def test_an_issuer_cannot_be_configured_under_a_name_of_ours_or_anothers(keys: SigningKeys, issuer: FakeIssuer, names: list[str]) -> None:
    with pytest.raises(ValueError, match="issuers need"):
        TokenVerifier(GW, keys, [TrustedIssuer(name, issuer.jwks_url) for name in names], issuer.fetch)


@pytest.mark.parametrize(("tenants", "claim"), [((), ""), (("acme",), ""), (("acme",), "org"), ((), "org"), (("acme", "labs"), "org")])
async def test_only_several_tenants_need_a_claim(issuer: FakeIssuer, keys: SigningKeys, tenants: tuple[str, ...], claim: str) -> None:
    trusted = TrustedIssuer(issuer.url, issuer.jwks_url, tenant_claim=claim, tenants=tenants)
    for others in ([], [TrustedIssuer("https://other.test", issuer.jwks_url)]):
        identity = TokenVerifier(GW, keys, [trusted, *others], issuer.fetch)
        assert (await identity.verify(issuer.mint(org="acme"), {GW})).tenant == ("acme" if tenants or claim else "default")
    with pytest.raises(ValueError, match="tenant_claim"):
        TokenVerifier(GW, keys, [trusted, TrustedIssuer("https://x.test", "", tenants=("a", "b"))], issuer.fetch)


class BrokenKeys(SigningKeys):
    def find(self, kid: str) -> VettedKey | None:
        raise RuntimeError("disk on fire")


async def test_a_failure_of_our_own_is_a_refusal_too(tmp_path: Path, clock: Clock, issuer: FakeIssuer) -> None:
    keys = BrokenKeys.open(tmp_path, clock)
    identity = TokenVerifier(GW, keys, [], issuer.fetch, development=True)
    assert await refusal(identity, mint_development_token(keys, ALICE, GW)) == "internal"


# --- development tokens


async def test_a_development_token_names_person_tenant_and_scope(identity: TokenVerifier, keys: SigningKeys, clock: Clock) -> None:
    claims = await identity.verify(mint_development_token(keys, ALICE, GW, "agent:sales tool:crm.read", 60), {GW})
    assert (claims.tenant, claims.issuer, claims.subject, claims.roles) == ("acme", DEVELOPMENT_ISSUER, "alice", ())
    assert (claims.scope, claims.expires) == (Permissions.parse(["agent:sales", "tool:crm.read"]), clock.now + 60)
    assert (await identity.verify(mint_development_token(keys, ALICE, GW), {GW})).scope is None


async def test_development_tokens_need_the_development_issuer(keys: SigningKeys, issuer: FakeIssuer) -> None:
    identity = TokenVerifier(GW, keys, [], issuer.fetch)
    assert await refusal(identity, mint_development_token(keys, ALICE, GW)) == "issuer"


async def test_our_own_tokens_have_the_access_token_type(identity: TokenVerifier, keys: SigningKeys) -> None:
    for typ in ("JWT", "interlock-audit-head+jwt", ""):
        assert await refusal(identity, keys.sign(hop_claims(keys), typ)) == "type"


async def test_a_token_of_a_key_replaced_a_day_ago_is_refused(identity: TokenVerifier, keys: SigningKeys, clock: Clock) -> None:
    token = mint_development_token(keys, ALICE, GW, ttl=86_400)
    keys.rotate()
    clock.now += 86_000
    assert await identity.verify(token, {GW})
    clock.now += 401
    assert await refusal(identity, token) == "kid"


def test_a_development_token_lives_for_an_hour_unless_told(keys: SigningKeys, clock: Clock) -> None:
    now = int(clock.now)
    for scope, narrowing in ((None, {}), ("", {"scope": ""}), ("tool:a", {"scope": "tool:a"})):
        said = dict(keys.verify(mint_development_token(keys, ALICE, GW, scope), "at+jwt"))
        assert said.pop("jti").startswith("ut_")
        expected = {"iss": DEVELOPMENT_ISSUER, "sub": "alice", "tid": "acme", "aud": GW, "iat": now, "exp": now + 3600}
        assert said == {**expected, **narrowing}


async def test_only_our_own_keys_sign_our_own_tokens(issuer: FakeIssuer, keys: SigningKeys, tmp_path: Path, clock: Clock) -> None:
    foreign = SigningKeys.open(tmp_path / "foreign", clock)
    identity = TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url)], issuer.fetch, development=True)
    for token in (mint_development_token(foreign, ALICE, GW), foreign.sign(hop_claims(foreign), "at+jwt")):
        assert await refusal(identity, token) == "kid"
    for iss in (GW, DEVELOPMENT_ISSUER):
        assert await refusal(identity, issuer.mint({"kid": keys.active_kid}, iss=iss)) == "signature"


# --- hop tokens


async def test_a_hop_token_names_the_person_and_the_agents_outermost_first(identity: TokenVerifier, keys: SigningKeys) -> None:
    claims = await identity.verify(keys.sign(hop_claims(keys), "at+jwt"), {GW})
    assert (claims.tenant, claims.issuer, claims.subject) == ("acme", "https://idp.test", "alice")
    assert (claims.actors, claims.client_id, claims.kind) == (("b", "a"), "b", "hop")
    assert (claims.grant_id, claims.task_id, claims.txn) == ("g1", "T1", "x1")
    assert claims.scope == Permissions.parse(["tool:crm.read"])


async def test_a_hop_token_for_an_agent_is_not_one_for_the_gateway(identity: TokenVerifier, keys: SigningKeys) -> None:
    token = keys.sign(hop_claims(keys, aud="https://agent-b.test"), "at+jwt")
    assert await refusal(identity, token) == "audience"
    assert await identity.verify(token, ("https://agent-b.test",))


async def test_a_token_of_ours_in_which_nobody_acts_is_a_persons(identity: TokenVerifier, keys: SigningKeys) -> None:
    said = {name: value for name, value in hop_claims(keys, agent="desk", roles=["sales"]).items() if name != "act"}
    claims = await identity.verify(keys.sign(said, "at+jwt"), {GW})
    assert (claims.kind, claims.subject, claims.agent, claims.roles, claims.actors) == ("user", "alice", "desk", ("sales",), ())


async def test_introspection_describes_own_tokens_for_any_resource_without_access(
    identity: TokenVerifier, keys: SigningKeys, issuer: FakeIssuer, clock: Clock
) -> None:
    token = keys.sign(hop_claims(keys, aud="https://agent-b.test"), "at+jwt")
    told = identity.read_issued(token)
    assert (told.kind, told.client_id, told.grant_id, told.audience) == ("hop", "b", "g1", "https://agent-b.test")
    assert await refusal(identity, token) == "audience"  # and nothing is remembered of it
    far = f"https://agent-b.test/{'a' * 2000}"
    assert identity.read_issued(keys.sign(hop_claims(keys, aud=far), "at+jwt")).audience == far
    person = {name: value for name, value in hop_claims(keys, agent="desk", roles=[]).items() if name != "act"}
    assert identity.read_issued(keys.sign(person, "at+jwt")).kind == "user"
    for wrong, reason in (
        (issuer.mint(), "issuer"),
        (mint_development_token(keys, ALICE, GW), "issuer"),
        (issuer.mint({"kid": keys.active_kid}, iss=GW), "signature"),
        (keys.sign(hop_claims(keys), "JWT"), "type"),
        (keys.sign(hop_claims(keys, aud=["a", "b"]), "at+jwt"), "audience"),
        ("no token", "shape"),
    ):
        with pytest.raises(TokenRefused) as refused:
            identity.read_issued(wrong)
        assert refused.value.reason == reason
    assert issuer.requests == 0
    clock.now += 100_000
    assert identity.read_issued(token).grant_id == "g1"  # it points to its grant as long as its key is known
    assert identity.read_issued(token, "https://agent-b.test").grant_id == "g1"
    with pytest.raises(TokenRefused, match="audience"):
        identity.read_issued(token, "https://agent-c.test")
    for times in ({"exp": int(clock.now) + 9000, "iat": int(clock.now) + 8900}, {"exp": int(clock.now), "iat": int(clock.now) - 4000}):
        with pytest.raises(TokenRefused, match=r"not-yet-valid|lifetime"):
            identity.read_issued(keys.sign(hop_claims(keys, **times), "at+jwt"))


# --- the cache


async def test_a_verified_token_is_remembered_for_its_audience_only(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    token = issuer.mint()
    assert identity.find_cached(token, {GW}) is None
    claims = await identity.verify(token, {GW})
    assert identity.find_cached(token, {GW}) is claims
    assert await identity.verify(token, (GW,)) is claims
    assert identity.find_cached(token, {f"{GW}/mcp"}) is None
    identity.invalidate()
    assert identity.find_cached(token, {GW}) is None


async def test_a_token_is_remembered_for_a_minute_and_never_past_its_end(identity: TokenVerifier, issuer: FakeIssuer, clock: Clock) -> None:
    long, short = issuer.mint(), issuer.mint(exp=int(clock.now) + 10)
    over = issuer.mint(iat=int(clock.now) - 60, exp=int(clock.now) - 5)
    for token in (long, short, over):
        assert await identity.verify(token, {GW})
    assert identity.find_cached(over, {GW}) is None
    clock.now += 10
    assert identity.find_cached(short, {GW}) is None
    clock.now += 49
    assert identity.find_cached(long, {GW})
    clock.now += 1
    assert identity.find_cached(long, {GW}) is None


async def test_a_token_of_the_greatest_size_is_remembered(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    tokens = (issuer.mint(jti="t", pad="x" * size) for size in range(11_800, 12_300))
    token = next(token for token in tokens if len(token) == 16_384)
    claims = await identity.verify(token, {GW})
    assert identity.find_cached(token, {GW}) is claims


@pytest.mark.parametrize("token", ["", "\ud800", "x" * 16_385, "é.é.é"])
async def test_what_is_no_token_is_not_remembered_and_is_refused_for_its_shape(identity: TokenVerifier, token: str) -> None:
    assert identity.find_cached(token, {GW}) is None
    assert await refusal(identity, token) == "shape"


def test_what_the_module_offers_is_there() -> None:
    assert [name for name in verifier.__all__ if not hasattr(verifier, name)] == []


async def test_the_other_form_of_a_signature_is_the_same_token_id(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    """ECDSA signatures have a twin, so replay and revocation go by `jti`, never by the bytes of the token."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    token = issuer.mint()
    signed, signature = token.rsplit(".", 1)
    raw = base64.urlsafe_b64decode(signature + "==")
    twin = f"{signed}.{b64(raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32))}"
    assert twin != token
    assert (await identity.verify(twin, {GW})).token_id == (await identity.verify(token, {GW})).token_id


async def test_an_empty_scope_is_a_token_that_permits_nothing(identity: TokenVerifier, keys: SigningKeys) -> None:
    claims = await identity.verify(mint_development_token(keys, ALICE, GW, ""), {GW})
    assert claims.scope is not None and not claims.scope.patterns


async def test_an_issuer_speaks_for_its_own_tenants_alone(issuer: FakeIssuer, keys: SigningKeys) -> None:  # attack TEN-03, TEN-04
    bounded = TrustedIssuer(issuer.url, issuer.jwks_url, tenant_claim="tid", tenants=("acme", "labs"))
    identity = TokenVerifier(GW, keys, [bounded], issuer.fetch)
    for tenant in ("acme", "labs"):
        assert (await identity.verify(issuer.mint(tid=tenant), (GW,))).tenant == tenant
    for tenant in ("evil", "default", "Acme", "acme "):
        assert await refusal(identity, issuer.mint(tid=tenant)) == "tenant"
    single = TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, tenants=("acme",))], issuer.fetch)
    assert (await single.verify(issuer.mint(tid="evil"), (GW,))).tenant == "acme"  # nobody asked for the claim
    with pytest.raises(ValueError, match="tenant_claim"):
        TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, tenants=("acme", "labs"))], issuer.fetch)


async def test_two_issuers_vouch_for_different_people_of_one_tenant(issuer: FakeIssuer, keys: SigningKeys, clock: Clock) -> None:
    other = FakeIssuer("https://other.test", GW, clock)  # attack TEN-03

    async def fetch(url: str, *, limit: int = 1 << 20, timeout: float = 10.0) -> Any:  # noqa: ASYNC109 - the port's shape
        return await (other if url.startswith(other.url) else issuer).fetch(url, limit=limit, timeout=timeout)

    trusted = [TrustedIssuer(each.url, each.jwks_url, tenant_claim="tid", tenants=("acme",)) for each in (issuer, other)]
    identity = TokenVerifier(GW, keys, trusted, fetch)
    one, two = [await identity.verify(each.mint(tid="acme"), (GW,)) for each in (issuer, other)]
    assert (one.tenant, one.subject) == (two.tenant, two.subject) == ("acme", "alice")
    assert one.issuer != two.issuer  # the owner of what they do is tenant, issuer and subject together


async def test_the_owner_of_a_verified_token_is_known_and_of_a_refused_one_is_not(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    good, bad = issuer.mint(), issuer.mint(aud="https://elsewhere.test")
    claims = await identity.verify(good, {GW})
    with pytest.raises(TokenRefused):
        await identity.verify(bad, {GW})
    assert identity.owners.find(good) == f"{claims.tenant}|{claims.issuer}|{claims.subject}" and identity.owners.find(bad) == ""
