"""The strict reading step by step: what each step takes, to its limits, and the reason that it refuses with."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from policies.keys.jwks import vet_key_set
from policies.keys.strict_jwt import (
    ACCESS_TOKEN_TYPES,
    TokenRefused,
    UnverifiedToken,
    check_times,
    identifier_claim,
    parse_header_and_claims,
    read_unverified,
    single_audience,
    time_claim,
    verify_signature,
)
from tests.fakes.issuer import ABSENT, EcKey, RsaKey, b64, compact, merged

NOW = 1_800_000_000
HEADER = {"alg": "ES256", "kid": "k1", "typ": "at+jwt"}
EC, RSA = EcKey("k1"), RsaKey("k1")


def reason(act: Callable[..., object], *given: Any) -> str:
    with pytest.raises(TokenRefused) as refused:
        act(*given)
    return refused.value.reason


def token(header: object = HEADER, claims: object = None, signature: bytes = b"xx") -> str:
    return compact(header, {} if claims is None else claims, lambda signed: signature)


def with_header(**given: Any) -> str:
    return token(merged(HEADER, given))


# --- size and shape


def test_a_token_is_taken_apart_into_header_and_claims() -> None:
    assert parse_header_and_claims(token(claims={"sub": "alice"})) == (HEADER, {"sub": "alice"})
    assert parse_header_and_claims(token({}, {})) == ({}, {})


def of_length(size: int) -> str:
    """A token that is good but for its size."""
    signed = (token(claims={"x": "x" * pad}).rpartition(".")[0] + "." for pad in range(4))
    return next(start + "A" * (size - len(start)) for start in signed if (size - len(start)) % 4 != 1)


def test_a_token_has_16384_characters_at_most() -> None:  # attack TOK-13
    for size in (16_383, 16_384):
        assert parse_header_and_claims(of_length(size))[0] == HEADER
    for size in (16_385, 16_386, 40_000):
        assert reason(parse_header_and_claims, of_length(size)) == "shape"


SHAPES: dict[str, object] = {
    "nothing": None,
    "bytes": token().encode(),
    "a number": 5,
    "a list": token().split("."),
    "no text": "",
    "dots": "..",
    "one dot": token().rpartition(".")[0],
    "three dots": token() + ".",
    "no header": "." + token().partition(".")[2],
    "no claims": f"{b64(b'{}')}..AA",
    "padding": token().replace(".", "=.", 1),
    "a signature of another alphabet": token() + "+",
    "a signature that is no base64url": token().rpartition(".")[0] + ".A",
    "a header that is a list": token([]),
    "a header that is a text": token(b'"a"'),
    "a header that is null": token(b"null"),
    "claims that are a list": token(claims=[]),
    "claims that are a number": token(claims=b"5"),
    "claims that are null": token(claims=b"null"),
    "claims twice": token(claims=b'{"sub":"a","sub":"b"}'),
    "claims that are not UTF-8": token(claims=b'{"a":"\xff"}'),
}


@pytest.mark.parametrize("given", SHAPES.values(), ids=SHAPES.keys())
def test_what_has_another_shape_is_refused(given: object) -> None:  # attack TOK-13
    assert reason(parse_header_and_claims, given) == "shape"


def test_without_a_signature_a_token_is_still_told_by_its_algorithm() -> None:  # attack TOK-02
    bare = token().rpartition(".")[0] + "."
    assert parse_header_and_claims(bare) == (HEADER, {})
    assert reason(verify_signature, read_unverified(bare), vet_key_set({"keys": [EC.jwk()]})["k1"]) == "signature"


# --- the header


def test_a_token_that_is_read_says_what_its_header_says() -> None:
    text = token(merged(HEADER, {"typ": "AT+JWT", "cty": "x"}), {"sub": "alice"})
    assert read_unverified(text) == UnverifiedToken(text, "k1", "ES256", "at+jwt", {"sub": "alice"})
    assert read_unverified(with_header(typ=ABSENT)).typ == ""
    assert read_unverified(with_header(alg="RS256")).alg == "RS256"
    assert read_unverified(with_header(kid="k" * 256)).kid == "k" * 256


def test_what_a_token_shows_of_itself_holds_no_secret() -> None:
    shown = repr(read_unverified(token(claims={"sub": "alice"})))
    assert shown == "UnverifiedToken(kid='k1', alg='ES256', typ='at+jwt')"


@pytest.mark.parametrize("name", ["crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc"])
@pytest.mark.parametrize("value", [None, "", [], {}])
def test_a_header_that_changes_the_rules_is_refused_whatever_it_says(name: str, value: object) -> None:  # attack TOK-05
    assert reason(read_unverified, with_header(**{name: value})) == "header"


@pytest.mark.parametrize("typ", [None, 5, ["at+jwt"], {}, True])
def test_a_type_is_a_text(typ: object) -> None:
    assert reason(read_unverified, with_header(typ=typ)) == "header"


@pytest.mark.parametrize("alg", [ABSENT, None, "", "none", "NONE", "es256", "ES384", "PS256", "HS256", ["ES256"], {"ES256": 1}, 5])
def test_other_algorithms_are_refused(alg: object) -> None:  # attack TOK-02, TOK-03
    assert reason(read_unverified, with_header(alg=alg)) == "alg"


@pytest.mark.parametrize("kid", [ABSENT, None, "", 5, True, ["k1"], "k\n", "k" * 257])
def test_a_key_is_named(kid: object) -> None:
    assert reason(read_unverified, with_header(kid=kid)) == "kid"


def test_access_tokens_have_the_types_of_their_standard() -> None:
    assert {"at+jwt", "application/at+jwt"} == ACCESS_TOKEN_TYPES


# --- the signature


@pytest.mark.parametrize("key", [EC, RSA], ids=["ES256", "RS256"])
def test_a_signature_is_that_of_the_key_with_the_keys_algorithm(key: EcKey | RsaKey) -> None:  # attack TOK-03
    vetted = vet_key_set({"keys": [key.jwk()]})["k1"]
    other = {"ES256": "RS256", "RS256": "ES256"}[key.alg]
    good = read_unverified(compact({**HEADER, "alg": key.alg}, {"sub": "alice"}, key.sign))
    verify_signature(good, vetted)
    assert reason(verify_signature, good, None) == "kid"
    assert reason(verify_signature, read_unverified(compact({**HEADER, "alg": other}, {}, key.sign)), vetted) == "alg"
    for forged in (EcKey("k1").sign, RsaKey("k1").sign, lambda signed: b"\0" * 64, lambda signed: b"x"):
        said = read_unverified(compact({**HEADER, "alg": key.alg}, {"sub": "alice"}, forged))
        assert reason(verify_signature, said, vetted) == "signature"


# --- times

LIFE = 3600.0
HELD: dict[str, tuple[Mapping[str, Any], float]] = {
    "now": ({"iat": NOW, "exp": NOW + 1}, NOW + 1),
    "the longest": ({"iat": NOW, "exp": NOW + 3600}, NOW + 3600),
    "over for 30 s": ({"iat": NOW - 100, "exp": NOW - 30}, NOW - 30),
    "issued in 30 s": ({"iat": NOW + 30, "exp": NOW + 31}, NOW + 31),
    "valid in 30 s": ({"iat": NOW, "exp": NOW + 60, "nbf": NOW + 30}, NOW + 60),
    "valid since the beginning": ({"iat": NOW, "exp": NOW + 60, "nbf": 0}, NOW + 60),
    "parts of a second": ({"iat": NOW + 0.25, "exp": NOW + 0.5, "nbf": NOW - 0.5}, NOW + 0.5),
}


@pytest.mark.parametrize(("said", "expires"), HELD.values(), ids=HELD.keys())
def test_times_hold_to_their_limits(said: Mapping[str, Any], expires: float) -> None:  # attack TOK-09
    assert check_times(said, NOW, LIFE) == expires
    assert type(check_times(said, NOW, LIFE)) is float


BROKEN: dict[str, tuple[Mapping[str, Any], str]] = {
    "no iat": ({"exp": NOW + 60}, "times"),
    "no exp": ({"iat": NOW}, "times"),
    "nothing": ({}, "times"),
    "iat true": ({"iat": True, "exp": NOW + 60}, "times"),
    "exp a text": ({"iat": NOW, "exp": str(NOW + 60)}, "times"),
    "exp null": ({"iat": NOW, "exp": None}, "times"),
    "nbf null": ({"iat": NOW, "exp": NOW + 60, "nbf": None}, "times"),
    "nbf false": ({"iat": NOW, "exp": NOW + 60, "nbf": False}, "times"),
    "over for more than 30 s": ({"iat": NOW - 100, "exp": NOW - 30.5}, "expired"),
    "issued in more than 30 s": ({"iat": NOW + 30.5, "exp": NOW + 60}, "not-yet-valid"),
    "valid in more than 30 s": ({"iat": NOW, "exp": NOW + 60, "nbf": NOW + 30.5}, "not-yet-valid"),
    "longer than it may": ({"iat": NOW, "exp": NOW + 3600.5}, "lifetime"),
    "no time at all": ({"iat": NOW, "exp": NOW}, "lifetime"),
    "over before it began": ({"iat": NOW + 20, "exp": NOW + 10}, "lifetime"),
    "since long ago": ({"iat": 0, "exp": NOW + 60}, "lifetime"),
}


@pytest.mark.parametrize(("said", "why"), BROKEN.values(), ids=BROKEN.keys())
def test_times_that_do_not_hold_are_refused(said: Mapping[str, Any], why: str) -> None:  # attack TOK-09
    assert reason(check_times, said, NOW, LIFE) == why


def test_at_the_beginning_of_time_no_nbf_is_needed() -> None:
    assert check_times({"iat": 0, "exp": 60}, -30, LIFE) == 60
    assert reason(check_times, {"iat": 0, "exp": 60}, -31, LIFE) == "not-yet-valid"


def test_a_time_is_a_number() -> None:
    assert (time_claim({"exp": 5}, "exp"), time_claim({"exp": 0.5}, "exp"), time_claim({}, "exp", 7)) == (5, 0.5, 7)
    for wrong in (True, False, "5", None, [5], {}):
        assert reason(time_claim, {"exp": wrong}, "exp", 7) == "times"
    assert reason(time_claim, {}, "exp") == "times"


# --- names


def test_an_identifier_is_refused_by_its_name() -> None:
    assert identifier_claim({"sub": "alice"}, "sub") == "alice"
    for claims in ({}, {"sub": ""}, {"sub": 5}, {"sub": None}, {"sub": "a\nb"}, {"sub": "a" * 257}, {"sub": ["alice"]}):
        assert reason(identifier_claim, claims, "sub") == "sub"


OURS = ("https://gw.test", "https://gw.test/mcp")


@pytest.mark.parametrize("aud", ["https://gw.test", ["https://gw.test"]])
def test_an_audience_is_one_of_ours(aud: object) -> None:  # attack TOK-07
    assert single_audience({"aud": aud}, OURS) == "https://gw.test"
    assert single_audience({"aud": "https://gw.test/mcp"}, OURS) == "https://gw.test/mcp"


@pytest.mark.parametrize(
    "aud",
    [
        ABSENT,
        None,
        "",
        [],
        [""],
        [None],
        ["https://gw.test"] * 2,
        list(OURS),
        [["https://gw.test"]],
        "https://gw.test/",
        "https://GW.test",
        5,
    ],
)
def test_another_audience_is_refused(aud: object) -> None:  # attack TOK-07
    assert reason(single_audience, merged({"aud": aud}, {}), OURS) == "audience"
    assert reason(single_audience, {"aud": "https://gw.test"}, ()) == "audience"
