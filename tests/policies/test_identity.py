"""Tokens become claims, or nothing."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.identity import DEVELOPMENT_ISSUER, Identity, TokenRefused, TrustedIssuer, mint_user_token
from policies.jwks import VettedKey
from policies.keys import SigningKeys
from policies.permissions import Permissions
from policies.principal import Principal
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, EcKey, FakeIssuer, RsaKey, b64, compact, hs256

GW = "https://gw.test"
ALICE = Principal("acme", DEVELOPMENT_ISSUER, "alice")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(clock: Clock) -> FakeIssuer:
    return FakeIssuer(audience=GW, now=clock)


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> SigningKeys:
    return SigningKeys.open(tmp_path, clock)


@pytest.fixture
def identity(issuer: FakeIssuer, keys: SigningKeys) -> Identity:
    return Identity(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url)], issuer.fetch, development=True)


async def refusal(identity: Identity, token: str, audiences: tuple[str, ...] = (GW,)) -> str:
    with pytest.raises(TokenRefused) as refused:
        await identity.verify(token, audiences)
    assert identity.cached(token, audiences) is None
    return refused.value.reason


# --- people of an external issuer


async def test_a_person_of_a_trusted_issuer_is_known(identity: Identity, issuer: FakeIssuer, clock: Clock) -> None:
    token = issuer.mint(roles=["sales"], scope="openid agent:sales profile tool:crm.*", client_id="console", jti="t")
    claims = await identity.verify(token, {GW})
    assert (claims.tenant, claims.issuer, claims.subject, claims.roles) == ("default", issuer.url, "alice", ("sales",))
    assert claims.scope == Permissions.of(["agent:sales", "tool:crm.*"])
    assert (claims.audience, claims.client_id, claims.token_id, claims.kind) == (GW, "console", "t", "user")
    assert claims.expires == clock.now + 600


async def test_rs256_is_as_good(identity: Identity, issuer: FakeIssuer) -> None:
    issuer.key = RsaKey()
    assert (await identity.verify(issuer.mint(), {GW})).subject == "alice"


async def test_without_a_scope_claim_the_token_does_not_narrow(identity: Identity, issuer: FakeIssuer) -> None:
    assert (await identity.verify(issuer.mint(), {GW})).scope is None


async def test_a_scope_without_any_permission_permits_nothing(identity: Identity, issuer: FakeIssuer) -> None:
    assert (await identity.verify(issuer.mint(scope="openid profile"), {GW})).scope == Permissions.of([])


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", ABSENT])
async def test_types_that_identity_providers_send_are_taken(identity: Identity, issuer: FakeIssuer, typ: object) -> None:
    assert await identity.verify(issuer.mint({"typ": typ}), {GW})


@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "secevent+jwt", "jwt ", None, 5, ["at+jwt"]])
async def test_other_types_are_refused(identity: Identity, issuer: FakeIssuer, typ: object) -> None:
    assert await refusal(identity, issuer.mint({"typ": typ})) in ("type", "header")


async def test_an_issuer_may_know_us_by_a_name_of_its_own(issuer: FakeIssuer, keys: SigningKeys) -> None:
    trusted = TrustedIssuer(issuer.url, issuer.jwks_url, audience="api://interlock")
    identity = Identity(GW, keys, [trusted], issuer.fetch)
    token = issuer.mint(aud="api://interlock")
    claims = await identity.verify(token, (GW, f"{GW}/mcp"))
    assert claims.audience == GW
    assert identity.cached(token, (GW,)) is claims
    assert await refusal(identity, issuer.mint(aud=GW)) == "audience"
    assert await refusal(identity, token, (f"{GW}/agents/a",)) == "audience"


async def test_the_tenant_comes_from_the_named_claim_only(issuer: FakeIssuer, keys: SigningKeys) -> None:
    identity = Identity(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, tenant_claim="org")], issuer.fetch)
    assert (await identity.verify(issuer.mint(org="acme", tid="evil"), {GW})).tenant == "acme"
    for org in (ABSENT, "", "a|b", "a\nb", 7, ["acme"], "a" * 257):
        assert await refusal(identity, issuer.mint(org=org, tid="evil")) in ("org", "tenant")


@pytest.mark.parametrize(
    ("name", "claims", "roles"),
    [
        ("roles", {"roles": "sales support"}, ("sales", "support")),
        ("roles", {}, ()),
        ("realm_access.roles", {"realm_access": {"roles": ["sales"]}}, ("sales",)),
        ("https://acme.test/roles", {"https://acme.test/roles": ["sales"]}, ("sales",)),
    ],
)
async def test_roles_come_from_the_named_claim(
    issuer: FakeIssuer, keys: SigningKeys, name: str, claims: dict[str, Any], roles: tuple[str, ...]
) -> None:
    identity = Identity(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url, roles_claim=name)], issuer.fetch)
    assert (await identity.verify(issuer.mint(**claims), {GW})).roles == roles


@pytest.mark.parametrize("roles", [5, {"a": 1}, ["a", 5], [""], ["a\0"], ["r"] * 201])
async def test_roles_of_another_shape_are_refused(identity: Identity, issuer: FakeIssuer, roles: object) -> None:
    assert await refusal(identity, issuer.mint(roles=roles)) == "roles"


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "iat", "exp", "jti"])
async def test_a_token_without_a_needed_claim_is_refused(identity: Identity, issuer: FakeIssuer, claim: str) -> None:
    missing: dict[str, Any] = {claim: ABSENT}
    assert await refusal(identity, issuer.mint(**missing))


@pytest.mark.parametrize("claim", ["sub", "jti", "client_id"])
@pytest.mark.parametrize("value", ["", "a" * 257, "a\nb", "a\0", "a\u2028b", "a\u202eb", None, 5, True, ["a"], {"a": 1}])
async def test_identifiers_are_1_to_256_printable_characters(identity: Identity, issuer: FakeIssuer, claim: str, value: object) -> None:
    wrong: dict[str, Any] = {claim: value}
    assert await refusal(identity, issuer.mint(**wrong)) == claim


async def test_tokens_that_others_act_with_or_that_are_bound_to_a_key_are_refused(identity: Identity, issuer: FakeIssuer) -> None:
    assert await refusal(identity, issuer.mint(act={"sub": "agent"})) == "act"
    assert await refusal(identity, issuer.mint(cnf={"jkt": "x"})) == "cnf"


@pytest.mark.parametrize("iss", ["https://evil.test", "https://idp.test/", "HTTPS://idp.test", "", None, 5, ["https://idp.test"]])
async def test_the_issuer_is_compared_exactly(identity: Identity, issuer: FakeIssuer, iss: object) -> None:
    assert await refusal(identity, issuer.mint(iss=iss)) == "issuer"
    assert issuer.requests == 0


async def test_one_issuer_cannot_speak_for_another(issuer: FakeIssuer, keys: SigningKeys, clock: Clock) -> None:
    other = FakeIssuer("https://other.test", GW, clock)
    assert isinstance(other.key, EcKey)
    trusted = [TrustedIssuer(each.url, each.jwks_url) for each in (issuer, other)]

    async def fetch(url: str, *, limit: int = 0, timeout: float = 0) -> Any:  # noqa: ASYNC109 - the port's shape
        return await (other if url.startswith(other.url) else issuer).fetch(url)

    identity = Identity(GW, keys, trusted, fetch)
    assert await identity.verify(other.mint(), {GW})
    assert await refusal(identity, other.mint(iss=issuer.url)) == "signature"
    assert await refusal(identity, other.mint(iss=GW)) == "kid"


@pytest.mark.parametrize("name", [GW, DEVELOPMENT_ISSUER, "", "a|b"])
def test_an_issuer_cannot_be_configured_under_a_name_of_ours(keys: SigningKeys, issuer: FakeIssuer, name: str) -> None:
    with pytest.raises(ValueError, match="issuers need"):
        Identity(GW, keys, [TrustedIssuer(name, issuer.jwks_url)], issuer.fetch)


# --- attacks


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", None, 0])
@pytest.mark.parametrize("signature", [b"", b"x"])
async def test_tok_02_no_algorithm_is_no_signature(identity: Identity, issuer: FakeIssuer, alg: object, signature: bytes) -> None:
    forged = compact(issuer.header(alg=alg), issuer.claims(sub="root"), lambda signed: signature)  # attack TOK-02
    assert await refusal(identity, forged) == "alg"


def _public_forms(key: EcKey) -> list[bytes]:
    jwk = key.jwk()
    return [key.pem(), key.pem().strip(), key.der(), json.dumps(jwk).encode(), json.dumps(jwk, separators=(",", ":")).encode(), b""]


@pytest.mark.parametrize("alg", ["HS256", "ES256", "RS256", "HS384"])
async def test_tok_03_a_public_key_is_no_secret(identity: Identity, issuer: FakeIssuer, alg: str) -> None:
    assert isinstance(issuer.key, EcKey)  # attack TOK-03
    for secret in _public_forms(issuer.key):
        assert await refusal(identity, compact(issuer.header(alg=alg), issuer.claims(), hs256(secret))) in ("alg", "signature")


async def test_tok_03_the_algorithm_is_that_of_the_key(identity: Identity, issuer: FakeIssuer) -> None:
    rsa = RsaKey(issuer.key.kid)  # attack TOK-03
    assert await refusal(identity, compact(issuer.header(alg="RS256"), issuer.claims(), rsa.sign)) == "alg"


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"])
async def test_tok_05_key_material_in_the_header_is_refused_unread(identity: Identity, issuer: FakeIssuer, name: str) -> None:
    evil = EcKey(issuer.key.kid)  # attack TOK-05
    values = {"jwk": evil.jwk(), "x5c": ["AAAA"], "crit": ["exp"], "b64": True, "zip": "DEF", "enc": "A256GCM"}
    header = issuer.header(**{name: values.get(name, "https://evil.test/jwks")})
    for key in (evil, issuer.key):
        assert await refusal(identity, compact(header, issuer.claims(), key.sign)) == "header"
    assert issuer.requests == 0


async def test_tok_06_a_poisoned_key_set_admits_nobody(identity: Identity, issuer: FakeIssuer, clock: Clock) -> None:
    good = issuer.mint()  # attack TOK-06; each form of poison is in test_jwks.py
    assert await identity.verify(good, {GW})
    evil = EcKey("k1")
    issuer.answer = issuer.jwks(evil.jwk(), issuer.key.jwk())
    clock.now += 601
    assert await refusal(identity, compact(issuer.header(), issuer.claims(), evil.sign)) == "signature"
    assert await identity.verify(issuer.mint(), {GW})


@pytest.mark.parametrize("kid", ["k2", "", None, 5, ["k1"], "K1", ABSENT])
async def test_a_kid_that_the_issuer_does_not_publish_is_refused(identity: Identity, issuer: FakeIssuer, kid: object) -> None:
    assert await refusal(identity, issuer.mint({"kid": kid})) == "kid"


AUDIENCES: list[Any] = [
    "https://other.test",
    [GW, "https://evil.test"],
    [GW, GW],
    [],
    ABSENT,
    None,
    GW + "/",
    "https://GW.test",
    "HTTPS://gw.test",
    f" {GW}",
    {GW: GW},
    [[GW]],
    [None],
    True,
]


@pytest.mark.parametrize("aud", AUDIENCES, ids=str)
async def test_tok_07_exactly_one_audience_which_is_ours(identity: Identity, issuer: FakeIssuer, keys: SigningKeys, aud: object) -> None:
    assert await refusal(identity, issuer.mint(aud=aud)) == "audience"  # attack TOK-07
    own = {**_hop(keys), "aud": aud}
    own = {name: value for name, value in own.items() if value is not ABSENT}
    assert await refusal(identity, keys.sign(own, "at+jwt")) == "audience"


async def test_tok_07_one_audience_may_stand_in_a_list(identity: Identity, issuer: FakeIssuer) -> None:
    assert (await identity.verify(issuer.mint(aud=[GW]), (f"{GW}/mcp", GW))).audience == GW


TIMES: dict[str, dict[str, Any]] = {
    "no exp": {"exp": ABSENT},
    "exp a string": {"exp": "1800000600"},
    "exp true": {"exp": True},
    "exp null": {"exp": None},
    "exp NaN": {"exp": float("nan")},
    "exp infinite": {"exp": float("inf")},
    "exp a list": {"exp": [1800000600]},
    "exp of 300 digits": {"exp": 10**300},
    "exp 31 s ago": {"iat": 1_799_999_000, "exp": 1_799_999_969},
    "iat in 31 s": {"iat": 1_800_000_031},
    "iat true": {"iat": True},
    "iat minus infinity": {"iat": float("-inf")},
    "nbf in 31 s": {"nbf": 1_800_000_031},
    "nbf a string": {"nbf": "0"},
    "nbf null": {"nbf": None},
    "ten years": {"exp": 1_800_000_000 + 315_360_000},
    "an hour and a second": {"exp": 1_800_003_601},
    "over before it began": {"iat": 1_800_000_020, "exp": 1_800_000_010},
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
async def test_tok_09_times_that_do_not_hold_are_refused(identity: Identity, issuer: FakeIssuer, times: dict[str, Any]) -> None:
    assert await refusal(identity, issuer.mint(**times)) in (  # attack TOK-09
        "times",
        "expired",
        "not-yet-valid",
        "lifetime",
        "shape",
    )


async def test_tok_09_a_number_beyond_all_bounds_is_refused(identity: Identity, issuer: FakeIssuer) -> None:
    claims = json.dumps(issuer.claims(exp=12345)).replace("12345", "1e400").encode()  # attack TOK-09
    assert await refusal(identity, compact(issuer.header(), claims, issuer.key.sign)) == "shape"


@pytest.mark.parametrize("times", [{"iat": 1_799_999_000, "exp": 1_799_999_970}, {"iat": 1_800_000_030}, {"nbf": 1_800_000_030.0}])
async def test_tok_09_a_skew_of_30_s_is_forgiven(identity: Identity, issuer: FakeIssuer, times: dict[str, Any]) -> None:
    assert await identity.verify(issuer.mint(**times), {GW})  # attack TOK-09


def _bombs(issuer: FakeIssuer) -> dict[str, str]:
    sign, claims = issuer.key.sign, json.dumps(issuer.claims())
    deep = b'{"alg":"ES256","kid":"k1","a":' + b"[" * 1500 + b"]" * 1500 + b"}"
    return {
        "header of 100 kB": compact(issuer.header(pad="x" * 100_000), issuer.claims(), sign),
        "token of 5 MB": compact(issuer.header(), issuer.claims(pad="x" * 5_000_000), sign),
        "JWE of five parts": f"{b64(json.dumps({'alg': 'dir', 'enc': 'A256GCM', 'zip': 'DEF'}).encode())}..AAAA.AAAA.AAAA",
        "1500 deep": compact(deep, issuer.claims(), sign),
        "header key twice": compact(b'{"alg":"ES256","alg":"ES256","kid":"k1"}', issuer.claims(), sign),
        "claim twice": compact(issuer.header(), f'{claims[:-1]},"sub":"root"}}'.encode(), sign),
        "number of 4000 digits": compact(issuer.header(), f'{claims[:-1]},"n":{"9" * 4000}}}'.encode(), sign),
    }


@pytest.mark.parametrize("bomb", [*_bombs(FakeIssuer())])
async def test_tok_13_oversized_and_deep_tokens_are_refused_before_any_cryptography(
    identity: Identity, issuer: FakeIssuer, bomb: str
) -> None:
    token = _bombs(issuer)[bomb]  # attack TOK-13
    began = time.thread_time()
    assert await refusal(identity, token) == "shape"
    assert time.thread_time() - began < 0.025  # s; 5 ms alone, with room for a busy machine
    assert issuer.requests == 0


def _padded(token: str) -> str:
    return ".".join(part + "=" * (-len(part) % 4) for part in token.split("."))


def _other_last_bits(token: str) -> str:
    """Another spelling of the same signature bytes: the last character's unused bits set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


MANGLED: dict[str, Callable[[str], Any]] = {
    "empty": lambda token: "",
    "dots alone": lambda token: "..",
    "no signature part": lambda token: token.rsplit(".", 1)[0],
    "a fourth part": lambda token: f"{token}.",
    "padding": _padded,
    "other last bits": _other_last_bits,
    "standard alphabet": lambda token: "+" + token[1:],
    "space before": lambda token: f" {token}",
    "line break after": lambda token: f"{token}\n",
    "not ASCII": lambda token: f"é{token[1:]}",
    "lone surrogate": lambda token: f"\ud800{token[1:]}",
    "bytes": lambda token: token.encode(),
    "nothing": lambda token: None,
    "a number": lambda token: 5,
    "header is a list": lambda token: compact([], {}, lambda signed: b"x"),
    "claims are a list": lambda token: compact({"alg": "ES256", "kid": "k1"}, [], lambda signed: b"x"),
    "claims are text": lambda token: compact({"alg": "ES256", "kid": "k1"}, b"text", lambda signed: b"x"),
    "claims are not UTF-8": lambda token: compact({"alg": "ES256", "kid": "k1"}, b'{"a":"\xff"}', lambda signed: b"x"),
}


@pytest.mark.parametrize("mangle", MANGLED.values(), ids=MANGLED.keys())
async def test_mangled_tokens_are_refused(identity: Identity, issuer: FakeIssuer, mangle: Callable[[str], Any]) -> None:
    token = mangle(issuer.mint())
    with pytest.raises(TokenRefused) as refused:
        await identity.verify(token, {GW})
    assert refused.value.reason in ("shape", "internal")


async def test_any_changed_character_is_refused(identity: Identity, issuer: FakeIssuer) -> None:
    token = issuer.mint()
    for place in range(0, len(token), 7):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        if changed.count(".") == 2:
            await refusal(identity, changed)


class BrokenKeys(SigningKeys):
    def find(self, kid: str) -> VettedKey | None:
        raise RuntimeError("disk on fire")


async def test_a_failure_of_our_own_is_a_refusal_too(tmp_path: Path, clock: Clock, issuer: FakeIssuer) -> None:
    keys = BrokenKeys.open(tmp_path, clock)
    identity = Identity(GW, keys, [], issuer.fetch, development=True)
    assert await refusal(identity, mint_user_token(keys, ALICE, GW)) == "internal"


# --- development tokens


async def test_a_development_token_names_person_tenant_and_scope(identity: Identity, keys: SigningKeys, clock: Clock) -> None:
    claims = await identity.verify(mint_user_token(keys, ALICE, GW, "agent:sales tool:crm.read", 60), {GW})
    assert (claims.tenant, claims.issuer, claims.subject, claims.roles) == ("acme", DEVELOPMENT_ISSUER, "alice", ())
    assert (claims.scope, claims.expires) == (Permissions.of(["agent:sales", "tool:crm.read"]), clock.now + 60)
    assert (await identity.verify(mint_user_token(keys, ALICE, GW), {GW})).scope is None


async def test_development_tokens_need_the_development_issuer(keys: SigningKeys, issuer: FakeIssuer) -> None:
    identity = Identity(GW, keys, [], issuer.fetch)
    assert await refusal(identity, mint_user_token(keys, ALICE, GW)) == "issuer"


async def test_a_development_token_lives_for_a_day_at_most(identity: Identity, keys: SigningKeys) -> None:
    assert await identity.verify(mint_user_token(keys, ALICE, GW, ttl=86_400), {GW})
    assert await refusal(identity, mint_user_token(keys, ALICE, GW, ttl=86_401)) == "lifetime"


@pytest.mark.parametrize("scope", ["", "openid", "agent:sales openid", "agent:sales  tool:a", " agent:sales"])
async def test_our_own_tokens_carry_permissions_only(identity: Identity, keys: SigningKeys, scope: str) -> None:
    assert await refusal(identity, mint_user_token(keys, ALICE, GW, scope)) == "scope"


async def test_our_own_tokens_have_the_access_token_type(identity: Identity, keys: SigningKeys) -> None:
    for typ in ("JWT", "interlock-audit-head+jwt", ""):
        assert await refusal(identity, keys.sign(_hop(keys), typ)) == "type"


async def test_a_token_of_a_key_replaced_a_day_ago_is_refused(identity: Identity, keys: SigningKeys, clock: Clock) -> None:
    token = mint_user_token(keys, ALICE, GW, ttl=86_400)
    keys.rotate()
    clock.now += 86_000
    assert await identity.verify(token, {GW})
    clock.now += 401
    assert await refusal(identity, token) == "kid"


# --- hop tokens


def _hop(keys: SigningKeys, **overrides: Any) -> dict[str, Any]:
    now = int(keys.now())
    return {
        "iss": GW,
        "sub": "alice",
        "tid": "acme",
        "user_iss": "https://idp.test",
        "aud": GW,
        "client_id": "b",
        "scope": "tool:crm.read",
        "act": {"sub": "b", "act": {"sub": "a"}},
        "txn": "x1",
        "task": "T1",
        "dlg_max": 4,
        "grant": "g1",
        "iat": now,
        "exp": now + 120,
        "jti": "j1",
        **overrides,
    }


async def test_a_hop_token_names_the_person_and_the_agents_outermost_first(identity: Identity, keys: SigningKeys) -> None:
    claims = await identity.verify(keys.sign(_hop(keys), "at+jwt"), {GW})
    assert (claims.tenant, claims.issuer, claims.subject) == ("acme", "https://idp.test", "alice")
    assert (claims.actors, claims.client_id, claims.kind) == (("b", "a"), "b", "hop")
    assert (claims.grant_id, claims.task_id, claims.txn) == ("g1", "T1", "x1")
    assert claims.scope == Permissions.of(["tool:crm.read"])


@pytest.mark.parametrize("claim", ["sub", "tid", "user_iss", "client_id", "scope", "act", "txn", "task", "dlg_max", "grant", "jti"])
async def test_a_hop_token_needs_all_of_its_claims(identity: Identity, keys: SigningKeys, claim: str) -> None:
    claims = {name: value for name, value in _hop(keys).items() if name != claim}
    assert await refusal(identity, keys.sign(claims, "at+jwt"))


def _nested(depth: int) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": "a0"}
    for number in range(1, depth):
        act = {"sub": f"a{number}", "act": act}
    return act


@pytest.mark.parametrize(
    "wrong",
    [
        {"act": _nested(5)},
        {"act": _nested(3), "dlg_max": 2},
        {"act": {}},
        {"act": "b"},
        {"act": {"sub": "b", "act": {}}},
        {"dlg_max": 5},
        {"dlg_max": True, "act": {"sub": "b"}},
        {"dlg_max": "4"},
    ],
)
async def test_a_chain_that_does_not_hold_is_refused(identity: Identity, keys: SigningKeys, wrong: dict[str, Any]) -> None:
    assert await refusal(identity, keys.sign(_hop(keys, **wrong), "at+jwt")) in ("act", "sub")


async def test_a_hop_token_lives_for_an_hour_at_most_whatever_signed_it(identity: Identity, keys: SigningKeys) -> None:
    now = int(keys.now())
    assert await refusal(identity, keys.sign(_hop(keys, exp=now + 3601), "at+jwt")) == "lifetime"


async def test_a_hop_token_for_an_agent_is_not_one_for_the_gateway(identity: Identity, keys: SigningKeys) -> None:
    token = keys.sign(_hop(keys, aud="https://agent-b.test"), "at+jwt")
    assert await refusal(identity, token) == "audience"
    assert await identity.verify(token, ("https://agent-b.test",))


# --- the cache


async def test_a_verified_token_is_remembered_for_its_audience_only(identity: Identity, issuer: FakeIssuer) -> None:
    token = issuer.mint()
    assert identity.cached(token, {GW}) is None
    claims = await identity.verify(token, {GW})
    assert identity.cached(token, {GW}) is claims
    assert await identity.verify(token, (GW,)) is claims
    assert identity.cached(token, {f"{GW}/mcp"}) is None
    identity.clear()
    assert identity.cached(token, {GW}) is None


async def test_a_token_is_remembered_for_a_minute_and_never_past_its_end(identity: Identity, issuer: FakeIssuer, clock: Clock) -> None:
    long, short = issuer.mint(), issuer.mint(exp=int(clock.now) + 10)
    over = issuer.mint(iat=int(clock.now) - 60, exp=int(clock.now) - 5)
    for token in (long, short, over):
        assert await identity.verify(token, {GW})
    assert identity.cached(over, {GW}) is None
    clock.now += 10
    assert identity.cached(short, {GW}) is None
    clock.now += 49
    assert identity.cached(long, {GW})
    clock.now += 1
    assert identity.cached(long, {GW}) is None


async def test_the_other_form_of_a_signature_is_the_same_token_id(identity: Identity, issuer: FakeIssuer) -> None:
    """ECDSA signatures have a twin, so replay and revocation go by `jti`, never by the bytes of the token."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    token = issuer.mint()
    signed, signature = token.rsplit(".", 1)
    raw = base64.urlsafe_b64decode(signature + "==")
    twin = f"{signed}.{b64(raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32))}"
    assert twin != token
    assert (await identity.verify(twin, {GW})).token_id == (await identity.verify(token, {GW})).token_id
