"""Signatures over documents that stand elsewhere: only keys that somebody trusts count, and only in the way that we verify."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from policies.jwks import BadKeySet
from policies.pinned_keys import PinnedKeys
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
        self.asked: list[str] = []

    async def __call__(self, url: str, *, limit: int = 0, timeout: float = 0) -> Answer:  # noqa: ASYNC109 - the shape of the way out
        self.asked.append(url)
        return self.answer


def keys(way: Way | None = None, *origins: str) -> PinnedKeys:
    return PinnedKeys(way or Way(), origins, lambda: 1000.0)


def made(key: Any, header: Mapping[str, Any], payload: bytes = PAYLOAD) -> dict[str, str]:
    """Detached, as cards carry it."""
    protected, _, signature = compact(header, payload, key if callable(key) else key.sign).split(".")
    return {"protected": protected, "signature": signature}


@pytest.mark.parametrize("key", [KEY, RSA], ids=["ES256", "RS256"])
def test_a_pinned_key_is_named_by_what_it_signed(key: Any) -> None:
    signature = made(key, {"alg": key.alg, "kid": key.kid, "typ": "JOSE"})
    assert keys().verify(signature, PAYLOAD, [EcKey("k9").jwk(), key.jwk()]) == key.kid
    assert keys().verify(signature, PAYLOAD + b" ", [key.jwk()]) == ""


GOOD = {"alg": "ES256", "kid": "k1", "typ": "JOSE"}
FORGED = {
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
    "another type": made(KEY, {**GOOD, "typ": "at+jwt"}),
    "no header": {**made(KEY, GOOD), "protected": b64(b"[]")},
    "no base64": {**made(KEY, GOOD), "signature": "###"},
    "no signature": {"protected": made(KEY, GOOD)["protected"]},
    "nothing": {},
}


@pytest.mark.parametrize("signature", FORGED.values(), ids=FORGED.keys())
def test_nothing_else_is_believed(signature: dict[str, str]) -> None:  # attack REG-01
    assert keys().verify(signature, PAYLOAD, [KEY.jwk()]) == ""


def test_an_expired_key_signs_nothing_any_more() -> None:  # attack REG-01
    assert keys().verify(made(KEY, GOOD), PAYLOAD, [KEY.jwk(exp=1001)]) == "k1"
    assert keys().verify(made(KEY, GOOD), PAYLOAD, [KEY.jwk(exp=1000)]) == ""


@pytest.mark.parametrize(
    "given",
    [
        [KEY.jwk(kid="")],
        [KEY.jwk(d=KEY.secret_member())],
        [KEY.jwk(), KEY.jwk()],
        [{"kty": "oct", "k": "AAAA", "kid": "s"}],
        [KEY.jwk(), {}],
        [EcKey(f"k{number}").jwk() for number in range(51)],
    ],
)
def test_keys_that_can_not_be_used_are_not_pinned(given: list[dict[str, Any]]) -> None:
    with pytest.raises(BadKeySet):
        keys().check(given)
    keys().check([KEY.jwk(), RSA.jwk()])


async def test_a_jku_is_followed_to_trusted_origins_only() -> None:  # attack REG-01
    way = Way(Answer(200, b'{"keys": [{"kid": "k1"}]}'))
    trusting = keys(way, "https://keys.example", "https://keys.example:8443/")
    for jku in ("https://keys.example/jwks", "https://KEYS.example:8443/x"):
        assert await trusting.published(made(KEY, {**GOOD, "jku": jku})) == [{"kid": "k1"}]
    assert len(way.asked) == 2
    for jku in (
        "https://evil.example/jwks",
        "http://keys.example/jwks",
        "https://keys.example:444/jwks",
        "https://keys.example@evil.example/",
        "https://keys.example.evil.example/",
        "https://keys.example\\@evil.example/",
        "//keys.example/",
        "",
        7,
    ):
        assert await trusting.published(made(KEY, {**GOOD, "jku": jku})) is None
    assert await keys(way).published(made(KEY, {**GOOD, "jku": "https://keys.example/jwks"})) is None
    assert len(way.asked) == 2


async def test_a_trusted_origin_without_a_key_set_is_told() -> None:
    for answer in (Answer(404, b""), Answer(200, b"<html>"), Answer(200, b'{"keys": 7}')):
        with pytest.raises(BadKeySet):
            await keys(Way(answer), "https://keys.example").published(made(KEY, {**GOOD, "jku": "https://keys.example/"}))
