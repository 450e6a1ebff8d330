"""Key sets of others: which members count, and what survives an outage."""

import asyncio
import json
from typing import Any

import pytest

from policies.jwks import BadKeySet, RemoteKeySet, base64url, vet
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, Answer, EcKey, FakeIssuer, RsaKey, number, serving

EC, RSA = EcKey("ec"), RsaKey("rsa")


def without_curve_point(**overrides: Any) -> dict[str, Any]:
    from cryptography.hazmat.primitives.asymmetric import ec

    return EcKey("p384", ec.SECP384R1()).jwk(**overrides)


SKIPPED = {
    "oct": {"kty": "oct", "k": "AAAA", "kid": "x", "alg": "HS256"},
    "for encryption": EC.jwk(kid="x", use="enc"),
    "not to verify with": EC.jwk(kid="x", key_ops=["sign"]),
    "operations are no list": EC.jwk(kid="x", key_ops="verify"),
    "secret": EC.jwk(kid="x", d=EC.secret_member()),
    "P-384 labelled ES256": without_curve_point(kid="x"),
    "P-384 labelled P-256": without_curve_point(kid="x", crv="P-256"),
    "point off the curve": EC.jwk(kid="x", y=EC.jwk()["x"]),
    "short coordinate": EC.jwk(kid="x", x=number(7)),
    "RSA of 1024 bits": RsaKey("x", 1024).jwk(),
    "RSA of 8200 bits": RSA.jwk(kid="x", n=number((1 << 8200) - 1)),
    "even exponent": RSA.jwk(kid="x", e=number(65536)),
    "exponent one": RSA.jwk(kid="x", e=number(1)),
    "huge exponent": RSA.jwk(kid="x", e=number((1 << 2000) + 1)),
    "PS256": RSA.jwk(kid="x", alg="PS256"),
    "RSA labelled ES256": RSA.jwk(kid="x", alg="ES256"),
    "HS256 on a curve": EC.jwk(kid="x", alg="HS256"),
    "no kid": EC.jwk(kid=ABSENT),
    "kid is a number": EC.jwk(kid=7),
    "kid with a line break": EC.jwk(kid="a\nb"),
    "unpadded rule broken": EC.jwk(kid="x", x=EC.jwk()["x"] + "="),
    "no type": EC.jwk(kid="x", kty=ABSENT),
    "type is a list": EC.jwk(kid="x", kty=["EC"]),
    "a string": "key",
    "null": None,
}


@pytest.mark.parametrize("member", SKIPPED.values(), ids=SKIPPED.keys())
def test_a_member_that_is_no_key_of_ours_to_use_is_skipped(member: object) -> None:  # attack TOK-06
    assert set(vet({"keys": [member, EC.jwk(), RSA.jwk()]})) == {"ec", "rsa"}


def test_a_key_without_labels_gets_the_algorithm_of_its_type() -> None:
    keys = vet({"keys": [EC.jwk(alg=ABSENT, use=ABSENT), RSA.jwk(alg=ABSENT, use=ABSENT, key_ops=["verify"])]})
    assert {kid: key.alg for kid, key in keys.items()} == {"ec": "ES256", "rsa": "RS256"}


def test_algorithms_that_the_operator_did_not_list_are_left_out() -> None:
    assert set(vet({"keys": [EC.jwk(), RSA.jwk()]}, ("RS256",))) == {"rsa"}


@pytest.mark.parametrize(
    "document",
    [
        {"keys": [EC.jwk(), RSA.jwk(kid="ec")]},
        {"keys": [EC.jwk(), SKIPPED["oct"] | {"kid": "ec"}]},  # type: ignore[operator]  # this member is a dict
        {"keys": [EC.jwk(kid=f"k{n}") for n in range(51)]},
        {"keys": [SKIPPED["oct"]]},
        {"keys": []},
        {"keys": {}},
        EC.jwk(),
        [],
        None,
    ],
)
def test_the_whole_set_is_refused_for_a_kid_given_twice_too_many_or_no_usable_keys(document: object) -> None:  # attack TOK-06
    with pytest.raises(BadKeySet):
        vet(document)


@pytest.mark.parametrize("text", ["", "A", "AB", "AA==", "A A", "A+", "Aé", None, 5, b"AA"])
def test_only_canonical_base64url_is_read(text: object) -> None:
    with pytest.raises(ValueError, match="base64url"):
        base64url(text)


def test_canonical_base64url_is_read() -> None:
    assert base64url("AA") == b"\0"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(clock: Clock) -> FakeIssuer:
    return FakeIssuer(now=clock)


@pytest.fixture
def keys(issuer: FakeIssuer, clock: Clock) -> RemoteKeySet:
    return RemoteKeySet(issuer.jwks_url, issuer.fetch, clock)


async def test_the_set_is_fetched_once_for_many(keys: RemoteKeySet, issuer: FakeIssuer) -> None:
    found = await asyncio.gather(*(keys.find("k1") for _ in range(20)))
    assert all(found)
    assert issuer.requests == 1


async def test_unknown_kids_cause_one_fetch_per_cool_down(keys: RemoteKeySet, issuer: FakeIssuer, clock: Clock) -> None:
    assert await keys.find("k1")
    for number_ in range(20):
        assert await keys.find(f"guess{number_}") is None
    assert issuer.requests == 1
    clock.now += 30
    await asyncio.gather(*(keys.find(f"guess{n}") for n in range(20)))
    assert issuer.requests == 2


async def test_a_new_key_is_found_after_the_cool_down(keys: RemoteKeySet, issuer: FakeIssuer, clock: Clock) -> None:
    assert await keys.find("k1")
    issuer.key = EcKey("k2")
    clock.now += 30
    assert await keys.find("k2")
    assert await keys.find("k1") is None  # a valid set without the key withdraws it


async def test_a_withdrawn_key_is_gone_after_ten_minutes(keys: RemoteKeySet, issuer: FakeIssuer, clock: Clock) -> None:
    assert await keys.find("k1")
    issuer.key = EcKey("k2")
    clock.now += 599
    assert await keys.find("k1")
    clock.now += 1
    assert await keys.find("k1") is None


OUTAGES = {
    "redirect": Answer(302, b"", {"location": "https://evil.test/jwks"}),
    "HTTP 500": Answer(500, json.dumps({"keys": [EcKey("k1").jwk()]}).encode()),
    "HTML": Answer(200, b"<html>maintenance</html>"),
    "ten megabytes": Answer(200, b'{"keys":[' + b" " * 10_000_000 + b"]}"),
    "one byte too many": Answer(200, b'{"keys":[]}' + b" " * (65_536 - 10)),
    "only oct": Answer(200, json.dumps({"keys": [SKIPPED["oct"]]}).encode()),
    "duplicate kid": Answer(200, json.dumps({"keys": [EC.jwk(kid="k1"), RSA.jwk(kid="k1")]}).encode()),
    "duplicate member": Answer(200, b'{"keys":[],"keys":[]}'),
    "deep": Answer(200, b'{"keys":' + b"[" * 1500 + b"]" * 1500 + b"}"),
    "not UTF-8": Answer(200, b'{"keys":["\xff"]}'),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES.keys())
async def test_the_last_good_set_serves_through_an_outage_for_a_day(  # attack TOK-06
    keys: RemoteKeySet, issuer: FakeIssuer, clock: Clock, outage: Answer
) -> None:
    good = await keys.find("k1")
    issuer.answer = outage
    clock.now += 600
    assert await keys.find("k1") is good
    assert issuer.requests == 2
    clock.now += 86_400 - 601
    assert await keys.find("k1") is good
    clock.now += 1
    assert await keys.find("k1") is None
    issuer.answer = None
    clock.now += 30
    assert await keys.find("k1") is not None


async def test_an_outage_is_not_asked_again_before_the_cool_down(keys: RemoteKeySet, issuer: FakeIssuer, clock: Clock) -> None:
    issuer.answer = Answer(503, b"")
    for _ in range(5):
        assert await keys.find("k1") is None
    assert issuer.requests == 1
    issuer.answer = None
    clock.now += 30
    assert await keys.find("k1")


async def test_nobody_waits_for_a_slow_renewal_whose_key_is_known(issuer: FakeIssuer, clock: Clock) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(url: str, *, limit: int = 0, timeout: float = 0) -> Answer:  # noqa: ASYNC109 - the port's shape
        if asked.is_set():
            await answered.wait()
        asked.set()
        return await issuer.fetch(url)

    keys = RemoteKeySet(issuer.jwks_url, slow, clock)
    good = await keys.find("k1")
    clock.now += 600
    renewing = asyncio.create_task(keys.find("k1"))
    await asyncio.sleep(0)
    assert await asyncio.wait_for(keys.find("k1"), 1) is good
    answered.set()
    assert await renewing


async def test_a_real_server_is_read_through_discovery_and_key_set() -> None:
    import urllib.request

    with serving(FakeIssuer()) as issuer:

        async def fetch(url: str, *, limit: int = 0, timeout: float = 5) -> Answer:  # noqa: ASYNC109 - the port's shape
            def read() -> Answer:
                with urllib.request.urlopen(url, timeout=timeout) as answer:
                    return Answer(answer.status, answer.read(limit))

            return await asyncio.to_thread(read)

        discovery = json.loads((await fetch(f"{issuer.url}/.well-known/openid-configuration", limit=10_000)).body)
        assert discovery["issuer"] == issuer.url
        assert await RemoteKeySet(discovery["jwks_uri"], fetch, Clock()).find("k1")
