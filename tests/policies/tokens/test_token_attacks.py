"""Attacks on tokens, by their numbers: each is refused, and none of them costs a request."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from policies.keys.signing import SigningKeys
from policies.tokens.verifier import TokenRefused, TokenVerifier
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, EcKey, FakeIssuer, RsaKey, b64, compact, hs256
from tests.fakes.patience import cpu_seconds
from tests.fakes.tokens import GW, hop_claims, refusal


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", None, 0])
@pytest.mark.parametrize("signature", [b"", b"x"])
async def test_tok_02_no_algorithm_is_no_signature(identity: TokenVerifier, issuer: FakeIssuer, alg: object, signature: bytes) -> None:
    forged = compact(issuer.header(alg=alg), issuer.claims(sub="root"), lambda signed: signature)  # attack TOK-02
    assert await refusal(identity, forged) == "alg"


def _public_forms(key: EcKey) -> list[bytes]:
    jwk = key.jwk()
    return [key.pem(), key.pem().strip(), key.der(), json.dumps(jwk).encode(), json.dumps(jwk, separators=(",", ":")).encode(), b""]


@pytest.mark.parametrize("alg", ["HS256", "ES256", "RS256", "HS384"])
async def test_tok_03_a_public_key_is_no_secret(identity: TokenVerifier, issuer: FakeIssuer, alg: str) -> None:
    assert isinstance(issuer.key, EcKey)  # attack TOK-03
    for secret in _public_forms(issuer.key):
        assert await refusal(identity, compact(issuer.header(alg=alg), issuer.claims(), hs256(secret))) in ("alg", "signature")


async def test_tok_03_the_algorithm_is_that_of_the_key(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    rsa = RsaKey(issuer.key.kid)  # attack TOK-03
    assert await refusal(identity, compact(issuer.header(alg="RS256"), issuer.claims(), rsa.sign)) == "alg"


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"])
async def test_tok_05_key_material_in_the_header_is_refused_unread(identity: TokenVerifier, issuer: FakeIssuer, name: str) -> None:
    evil = EcKey(issuer.key.kid)  # attack TOK-05
    values = {"jwk": evil.jwk(), "x5c": ["AAAA"], "crit": ["exp"], "b64": True, "zip": "DEF", "enc": "A256GCM"}
    header = issuer.header(**{name: values.get(name, "https://evil.test/jwks")})
    for key in (evil, issuer.key):
        assert await refusal(identity, compact(header, issuer.claims(), key.sign)) == "header"
    assert issuer.requests == 0


async def test_tok_06_a_poisoned_key_set_admits_nobody(identity: TokenVerifier, issuer: FakeIssuer, clock: Clock) -> None:
    good = issuer.mint()  # attack TOK-06; each form of poison is in test_jwks.py
    assert await identity.verify(good, {GW})
    evil = EcKey("k1")
    issuer.answer = issuer.jwks(evil.jwk(), issuer.key.jwk())
    clock.now += 601
    assert await refusal(identity, compact(issuer.header(), issuer.claims(), evil.sign)) == "signature"
    assert await identity.verify(issuer.mint(), {GW})


@pytest.mark.parametrize("kid", ["k2", "", None, 5, ["k1"], "K1", ABSENT])
async def test_a_kid_that_the_issuer_does_not_publish_is_refused(identity: TokenVerifier, issuer: FakeIssuer, kid: object) -> None:
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


@pytest.mark.parametrize("aud", AUDIENCES, ids=lambda aud: "absent" if aud is ABSENT else str(aud))
async def test_tok_07_exactly_one_audience_which_is_ours(
    identity: TokenVerifier, issuer: FakeIssuer, keys: SigningKeys, aud: object
) -> None:
    assert await refusal(identity, issuer.mint(aud=aud)) == "audience"  # attack TOK-07
    own = {**hop_claims(keys), "aud": aud}
    own = {name: value for name, value in own.items() if value is not ABSENT}
    assert await refusal(identity, keys.sign(own, "at+jwt")) == "audience"


async def test_tok_07_one_audience_may_stand_in_a_list(identity: TokenVerifier, issuer: FakeIssuer) -> None:
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
    "nbf true": {"nbf": True},
    "ten years": {"exp": 1_800_000_000 + 315_360_000},
    "an hour and a second": {"exp": 1_800_003_601},
    "over before it began": {"iat": 1_800_000_020, "exp": 1_800_000_010},
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
async def test_tok_09_times_that_do_not_hold_are_refused(identity: TokenVerifier, issuer: FakeIssuer, times: dict[str, Any]) -> None:
    assert await refusal(identity, issuer.mint(**times)) in (  # attack TOK-09
        "times",
        "expired",
        "not-yet-valid",
        "lifetime",
        "shape",
    )


async def test_tok_09_a_number_beyond_all_bounds_is_refused(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    claims = json.dumps(issuer.claims(exp=12345)).replace("12345", "1e400").encode()  # attack TOK-09
    assert await refusal(identity, compact(issuer.header(), claims, issuer.key.sign)) == "shape"


@pytest.mark.parametrize("times", [{"iat": 1_799_999_000, "exp": 1_799_999_970}, {"iat": 1_800_000_030}, {"nbf": 1_800_000_030.0}])
async def test_tok_09_a_skew_of_30_s_is_forgiven(identity: TokenVerifier, issuer: FakeIssuer, times: dict[str, Any]) -> None:
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
    identity: TokenVerifier, issuer: FakeIssuer, bomb: str
) -> None:
    token = _bombs(issuer)[bomb]  # attack TOK-13
    with cpu_seconds(10):
        assert await refusal(identity, token) == "shape"
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
async def test_mangled_tokens_are_refused(identity: TokenVerifier, issuer: FakeIssuer, mangle: Callable[[str], Any]) -> None:
    token = mangle(issuer.mint())
    with pytest.raises(TokenRefused) as refused:
        await identity.verify(token, {GW})
    assert refused.value.reason in ("shape", "internal")


async def test_any_changed_character_is_refused(identity: TokenVerifier, issuer: FakeIssuer) -> None:
    token = issuer.mint()
    for place in range(0, len(token), 7):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        if changed.count(".") == 2:
            await refusal(identity, changed)
