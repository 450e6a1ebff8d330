"""Signatures over documents that stand elsewhere: only keys that somebody trusts count, and only in the way that we verify."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from policies.keys.jwks import BadKeySet
from policies.keys.pinned import DetachedSignatureVerifier
from tests.fakes.issuer import EcKey, RsaKey, b64, compact, hs256

PAYLOAD = b'{"name":"Sales"}'
KEY, OTHER, RSA = EcKey("k1"), EcKey("k1"), RsaKey("r1")


@dataclass
class Answer:
    status: int
    body: bytes


class Way:
    """The way out, which keeps where it was sent."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer or Answer(404, b"")
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, url: str, *, limit: int = 0, timeout: float = 0) -> Answer:  # noqa: ASYNC109 - the shape of the way out
        self.asked.append((url, limit))
        return self.answer


def keys(way: Way | None = None, *origins: str) -> DetachedSignatureVerifier:
    return DetachedSignatureVerifier(way or Way(), origins, lambda: 1000.0)


def made(key: Any, header: Mapping[str, Any] | bytes, payload: bytes = PAYLOAD) -> dict[str, str]:
    """Detached, as cards carry it."""
    protected, _, signature = compact(header, payload, key if callable(key) else key.sign).split(".")
    return {"protected": protected, "signature": signature}


@pytest.mark.parametrize("key", [KEY, RSA], ids=["ES256", "RS256"])
def test_a_pinned_key_is_named_by_what_it_signed(key: Any) -> None:
    signature = made(key, {"alg": key.alg, "kid": key.kid, "typ": "JOSE"})
    assert keys().verify(signature, PAYLOAD, [EcKey("k9").jwk(), key.jwk()]) == key.kid
    assert keys().verify(signature, PAYLOAD + b" ", [key.jwk()]) == ""


GOOD = {"alg": "ES256", "kid": "k1", "typ": "JOSE"}
FORGED: dict[str, dict[str, Any]] = {
    "another key": made(OTHER, GOOD),
    "alg none": {**made(KEY, {**GOOD, "alg": "none"}), "signature": ""},
    "alg none, signed": made(KEY, {**GOOD, "alg": "none"}),
    "the public key as a secret": made(hs256(KEY.pem()), {**GOOD, "alg": "HS256"}),
    "another algorithm than the key's": made(KEY, {**GOOD, "alg": "RS256"}),
    "an unknown kid": made(KEY, {**GOOD, "kid": "k2"}),
    "no kid": made(KEY, {"alg": "ES256"}),
    "a key of its own": made(OTHER, {**GOOD, "jwk": OTHER.jwk()}),
    "a certificate of its own": made(OTHER, {**GOOD, "x5u": "https://evil.example/"}),
    "a critical extension": made(KEY, {**GOOD, "crit": ["b64"], "b64": False}),
    **{f"a header with {name}": made(KEY, {**GOOD, name: None}) for name in ("crit", "jwk", "x5u", "x5c", "b64", "zip", "enc")},
    "another type": made(KEY, {**GOOD, "typ": "at+jwt"}),
    "a type that is no text": made(KEY, {**GOOD, "typ": ["JOSE"]}),
    "a type that is null": made(KEY, {**GOOD, "typ": None}),
    "no algorithm": made(KEY, {"kid": "k1"}),
    "an algorithm that is no text": made(KEY, {**GOOD, "alg": ["ES256"]}),
    "a kid that is no text": made(KEY, {**GOOD, "kid": ["k1"]}),
    "an empty kid": made(KEY, {**GOOD, "kid": ""}),
    "a header that is a list": {**made(KEY, GOOD), "protected": b64(b"[]")},
    "a header that is null": {**made(KEY, GOOD), "protected": b64(b"null")},
    "a header that is empty": made(KEY, {}),
    "a header that is no JSON": {**made(KEY, GOOD), "protected": b64(b"{")},
    "a header twice": made(KEY, b'{"alg":"ES256","kid":"k2","kid":"k1"}'),
    "a header that is no text": {**made(KEY, GOOD), "protected": GOOD},
    "a header that is no base64": {**made(KEY, GOOD), "protected": "###"},
    "no base64": {**made(KEY, GOOD), "signature": "###"},
    "a short signature": {**made(KEY, GOOD), "signature": "AAAA"},
    "a signature that is no text": {**made(KEY, GOOD), "signature": 5},
    "no signature": {"protected": made(KEY, GOOD)["protected"]},
    "no header": {"signature": made(KEY, GOOD)["signature"]},
    "nothing": {},
}


@pytest.mark.parametrize("signature", FORGED.values(), ids=FORGED.keys())
def test_nothing_else_is_believed(signature: dict[str, Any]) -> None:  # attack REG-01
    assert keys().verify(signature, PAYLOAD, [KEY.jwk()]) == ""


@pytest.mark.parametrize("header", [GOOD, {**GOOD, "typ": "jose"}, {"alg": "ES256", "kid": "k1"}, {**GOOD, "typ": "", "jku": "x", "x": 1}])
def test_a_header_says_algorithm_and_kid_and_may_say_more_that_changes_nothing(header: dict[str, Any]) -> None:
    assert keys().verify(made(KEY, header), PAYLOAD, [KEY.jwk()]) == "k1"


def test_a_header_has_4096_characters_at_most() -> None:
    start = len(json.dumps({**GOOD, "x": ""}))
    for size, kid in ((3072, "k1"), (3073, ""), (9000, "")):  # three bytes are four characters
        signature = made(KEY, {**GOOD, "x": "x" * (size - start)})
        assert (len(signature["protected"]) > 4096) is (kid == "")
        assert keys().verify(signature, PAYLOAD, [KEY.jwk()]) == kid


def test_without_a_usable_key_nothing_is_believed() -> None:
    for none in ([], [{}], [KEY.jwk(), OTHER.jwk()], [KEY.jwk(use="enc")], [EcKey("k2").jwk()]):
        assert keys().verify(made(KEY, GOOD), PAYLOAD, none) == ""


@pytest.mark.parametrize(
    ("exp", "kid"),
    [(1000.5, "k1"), (1001, "k1"), (None, "k1"), (1000, ""), (999.5, ""), (0, ""), (-1, ""), (True, ""), ("2999-01-01", ""), ([], "")],
)
def test_an_expired_key_signs_nothing_any_more(exp: object, kid: str) -> None:  # attack REG-01
    assert keys().verify(made(KEY, GOOD), PAYLOAD, [KEY.jwk(exp=exp)]) == kid
    assert keys().verify(made(RSA, {"alg": "RS256", "kid": "r1"}), PAYLOAD, [KEY.jwk(exp=exp), RSA.jwk()]) == "r1"


@pytest.mark.parametrize(
    "given",
    [
        [KEY.jwk(kid="")],
        [KEY.jwk(d=KEY.secret_member())],
        [KEY.jwk(), KEY.jwk()],
        [{"kty": "oct", "k": "AAAA", "kid": "s"}],
        [KEY.jwk(), {}],
        [KEY.jwk(), "a text"],
        [KEY.jwk(kid=f"k{number}") for number in range(51)],
    ],
)
def test_keys_that_can_not_be_used_are_not_pinned(given: list[dict[str, Any]]) -> None:
    with pytest.raises(BadKeySet):
        keys().check(given)


def test_too_many_keys_and_useless_ones_are_told_in_the_same_words() -> None:
    for given in ([KEY.jwk(kid=f"k{number}") for number in range(51)], [KEY.jwk(), RSA.jwk(use="enc")]):
        with pytest.raises(BadKeySet, match="50 public keys"):
            keys().check(given)


@pytest.mark.parametrize("given", [[], [KEY.jwk(), RSA.jwk()], [KEY.jwk(kid=f"k{number}") for number in range(50)]], ids=len)
def test_up_to_50_usable_keys_are_pinned(given: list[dict[str, Any]]) -> None:
    assert keys().check(given) is None  # type: ignore[func-returns-value]  # it raises or not


JKU = "https://keys.example/jwks"
SET = b'{"keys": [{"kid": "k1"}, 5, "k2", null, {"kid": "k3"}]}'


async def test_a_jku_is_followed_to_trusted_origins() -> None:
    way = Way(Answer(200, SET))
    trusting = keys(way, "https://keys.example", "https://KEYS.example:8443/", "http://localhost:8080", "https://KEY.BOX")
    followed = ("https://keys.example/jwks", "HTTPS://KEYS.example:8443/x?y#z", "http://localhost:8080/", "https://key.box/")
    for jku in followed:
        assert await trusting.fetch_published(made(KEY, {**GOOD, "jku": jku})) == [{"kid": "k1"}, {"kid": "k3"}]
    assert way.asked == [(jku, 65_536) for jku in followed]


NOWHERE = [
    "https://evil.example/jwks",
    "http://keys.example/jwks",
    "ftp://keys.example/jwks",
    "https://keys.example:444/jwks",
    "https://keys.example@evil.example/",
    "https://evil.example@keys.example/",
    "https://x:y@keys.example/",
    "https://:y@keys.example/",
    "https://keys.example.evil.example/",
    "https://keys.example\\@evil.example/",
    "https://keys.example\\/",
    "https://keys.example/\\evil.example",
    "https://keys.example/\n",
    "https://keys.example/\u202e",
    "https://[keys.example/",
    "//keys.example/",
    "https:///jwks",
    "https://",
    "",
    7,
    None,
    [JKU],
]


@pytest.mark.parametrize("jku", NOWHERE)
async def test_nobody_is_led_anywhere_else(jku: object) -> None:  # attack REG-01
    way = Way(Answer(200, SET))
    for origins in (("https://keys.example",), ("https://keys.example", "", "https://", "ftp://keys.example")):
        assert await keys(way, *origins).fetch_published(made(KEY, {**GOOD, "jku": jku})) is None
    assert way.asked == []


async def test_only_the_header_of_a_signature_that_counts_leads_anywhere() -> None:  # attack REG-01
    way = Way(Answer(200, SET))
    for header in ({**GOOD, "alg": "none"}, {**GOOD, "crit": ["jku"]}, {**GOOD, "kid": ""}, {**GOOD, "typ": "at+jwt"}):
        assert await keys(way, "https://keys.example").fetch_published(made(KEY, {**header, "jku": JKU})) is None
    for unread in ({}, {"protected": "###"}, {**made(KEY, GOOD), "jku": JKU}):
        assert await keys(way, "https://keys.example").fetch_published(unread) is None
    assert await keys(way).fetch_published(made(KEY, {**GOOD, "jku": JKU})) is None
    assert way.asked == []


def members(number: int) -> bytes:
    return json.dumps({"keys": [{"kid": f"k{index}"} for index in range(number)]}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, SET),
        Answer(201, SET),
        Answer(302, SET),
        Answer(200, b"<html>"),
        Answer(200, b""),
        Answer(200, b'{"keys": 7}'),
        Answer(200, b'{"keys": {}}'),
        Answer(200, b'{"jwks": []}'),
        Answer(200, b"[]"),
        Answer(200, b'{"keys": [], "keys": []}'),
        Answer(200, members(51)),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:20]!r}",
)
async def test_a_trusted_origin_without_a_key_set_is_told(answer: Answer) -> None:
    with pytest.raises(BadKeySet):
        await keys(Way(answer), "https://keys.example").fetch_published(made(KEY, {**GOOD, "jku": JKU}))


@pytest.mark.parametrize("number", [0, 1, 50])
async def test_a_published_set_has_up_to_50_keys(number: int) -> None:
    found = await keys(Way(Answer(200, members(number))), "https://keys.example").fetch_published(made(KEY, {**GOOD, "jku": JKU}))
    assert found is not None and len(found) == number
