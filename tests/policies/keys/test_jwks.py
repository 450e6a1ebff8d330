"""Key sets of others: which members count, and what survives an outage."""

import asyncio
import json
from typing import Any

import pytest

from policies.keys.jwks import BadKeySet, RemoteKeySet, decode_base64url, is_identifier, vet_key_set
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, Answer, EcKey, FakeIssuer, RsaKey, b64, number, serving

EC, RSA = EcKey("ec"), RsaKey("rsa")


def without_curve_point(**overrides: Any) -> dict[str, Any]:
    from cryptography.hazmat.primitives.asymmetric import ec

    return EcKey("p384", ec.SECP384R1()).jwk(**overrides)


SKIPPED = {
    "oct": {"kty": "oct", "k": "AAAA", "kid": "x", "alg": "HS256"},
    "for encryption": EC.jwk(kid="x", use="enc"),
    "not to verify with": EC.jwk(kid="x", key_ops=["sign"]),
    "no operations": EC.jwk(kid="x", key_ops=[]),
    "operations are no list": EC.jwk(kid="x", key_ops="verify"),
    "operations are null": EC.jwk(kid="x", key_ops=None),
    "for nothing": EC.jwk(kid="x", use=""),
    "for null": EC.jwk(kid="x", use=None),
    **{f"secret {name}": EC.jwk(kid="x", **{name: EC.secret_member()}) for name in ("d", "p", "q", "dp", "dq", "qi", "k")},
    "secret other primes": RSA.jwk(kid="x", oth=[]),
    "P-384 labelled ES256": without_curve_point(kid="x"),
    "P-384 labelled P-256": without_curve_point(kid="x", crv="P-256"),
    "point off the curve": EC.jwk(kid="x", y=EC.jwk()["x"]),
    "short coordinate": EC.jwk(kid="x", x=number(7)),
    "short other coordinate": EC.jwk(kid="x", y=number(7)),
    "long coordinate": EC.jwk(kid="x", x=b64(b"\0" + decode_base64url(EC.jwk()["x"]))),
    "long other coordinate": EC.jwk(kid="x", y=b64(b"\0" + decode_base64url(EC.jwk()["y"]))),
    "no coordinate": EC.jwk(kid="x", y=ABSENT),
    "a curve of another name": EC.jwk(kid="x", crv="p-256"),
    "RSA of 1024 bits": RsaKey("x", 1024).jwk(),
    "RSA of 2047 bits": RSA.jwk(kid="x", n=number((1 << 2047) - 1)),
    "RSA of 8193 bits": RSA.jwk(kid="x", n=number((1 << 8192) + 1)),
    "even exponent": RSA.jwk(kid="x", e=number(65536)),
    "exponent one": RSA.jwk(kid="x", e=number(1)),
    "exponent two": RSA.jwk(kid="x", e=number(2)),
    "huge exponent": RSA.jwk(kid="x", e=number((1 << 32) + 1)),
    "no exponent": RSA.jwk(kid="x", e=ABSENT),
    "no modulus": RSA.jwk(kid="x", n=ABSENT),
    "RSA that says another type": RSA.jwk(kid="x", kty="rsa"),
    "RSA that says EC": RSA.jwk(kid="x", kty="EC"),
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
    assert set(vet_key_set({"keys": [member, EC.jwk(), RSA.jwk()]})) == {"ec", "rsa"}


def test_a_key_without_labels_gets_the_algorithm_of_its_type() -> None:
    keys = vet_key_set({"keys": [EC.jwk(alg=ABSENT, use=ABSENT), RSA.jwk(alg=ABSENT, use=ABSENT, key_ops=["verify"])]})
    assert {kid: key.alg for kid, key in keys.items()} == {"ec": "ES256", "rsa": "RS256"}


@pytest.mark.parametrize("operations", [["verify"], ["sign", "verify"], ABSENT])
def test_a_key_may_say_that_it_verifies(operations: object) -> None:
    assert set(vet_key_set({"keys": [EC.jwk(key_ops=operations)]})) == {"ec"}


@pytest.mark.parametrize("bits", [2048, 8192])
@pytest.mark.parametrize("exponent", [3, 65537, (1 << 32) - 1])
def test_rsa_keys_are_taken_up_to_their_limits(bits: int, exponent: int) -> None:
    limit = {"n": number((1 << bits) - 1), "e": number(exponent)}
    assert vet_key_set({"keys": [RSA.jwk(**limit)]})["rsa"].alg == "RS256"


def test_a_key_verifies_what_its_secret_half_signed_and_nothing_else() -> None:
    for mine, other in ((EC, EcKey("ec")), (RSA, RsaKey("rsa"))):
        found = vet_key_set({"keys": [mine.jwk()]})[mine.kid]
        assert (found.kid, found.alg) == (mine.kid, mine.alg)
        assert found.key.verify(b"text", mine.sign(b"text"))
        assert not found.key.verify(b"text", other.sign(b"text"))


def test_50_members_are_a_set_and_some_of_them_may_have_no_kid() -> None:
    members = [EC.jwk(kid=f"k{n}") for n in range(48)]
    assert len(vet_key_set({"keys": [*members, EC.jwk(kid=ABSENT), EC.jwk(kid=ABSENT)]})) == 48


def test_a_key_is_shown_by_its_name_alone() -> None:
    assert repr(vet_key_set({"keys": [EC.jwk()]})["ec"]) == "VettedKey(kid='ec', alg='ES256')"


def test_algorithms_that_the_operator_did_not_list_are_left_out() -> None:
    assert set(vet_key_set({"keys": [EC.jwk(), RSA.jwk()]}, ("RS256",))) == {"rsa"}


@pytest.mark.parametrize(
    "document",
    [
        {"keys": [EC.jwk(), RSA.jwk(kid="ec")]},
        {"keys": [EC.jwk(), SKIPPED["oct"] | {"kid": "ec"}]},  # type: ignore[operator]  # this member is a dict
        {"keys": [EC.jwk(kid=f"k{n}") for n in range(51)]},
        {"keys": [EC.jwk(kid=f"k{n}") for n in range(50)] + ["one that does not count"]},
        {"keys": [SKIPPED["oct"]]},
        {"keys": []},
        {"Keys": [EC.jwk()]},
        {"keys": {}},
        EC.jwk(),
        [],
        None,
    ],
)
def test_the_whole_set_is_refused_for_a_kid_given_twice_too_many_or_no_usable_keys(document: object) -> None:  # attack TOK-06
    with pytest.raises(BadKeySet):
        vet_key_set(document)


@pytest.mark.parametrize("text", ["", "A", "AB", "AA==", "A A", "A+", "Aé", None, 5, b"AA"])
def test_only_canonical_base64url_is_read(text: object) -> None:
    with pytest.raises(ValueError, match="base64url"):
        decode_base64url(text)


@pytest.mark.parametrize("text", ["AAAAA", "AAAAAAAAA", "AAB", "AAAAAAB", "AAAA=", "AA\n", "\nAA", "AA/A", "AA\x00A"])
def test_other_spellings_are_no_base64url(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        decode_base64url(text)


def test_canonical_base64url_is_read() -> None:
    assert decode_base64url("AA") == b"\0"
    for size in range(1, 40):
        for raw in (bytes(size), b"\xff" * size, bytes(range(size)), b"\xfb\xef\xbe" * size):
            assert decode_base64url(b64(raw)) == raw


@pytest.mark.parametrize("text", ["x", "x" * 256, "a b", "é", "日本", "https://idp.test/a?b#c", "0"])
def test_an_identifier_is_printable_text_of_1_to_256_characters(text: str) -> None:
    assert is_identifier(text) is True


@pytest.mark.parametrize("text", ["", "x" * 257, "a\0", "a\tb", "a\x7f", "a\u200bb", "a\u202eb", "a\ud800", None, 5, True, ["a"], b"a"])
def test_anything_else_is_no_identifier(text: object) -> None:
    assert is_identifier(text) is False


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


async def test_a_set_is_not_fetched_again_within_ten_minutes(keys: RemoteKeySet, issuer: FakeIssuer, clock: Clock) -> None:
    for seconds in (0, 31, 300, 268):
        clock.now += seconds
        assert await keys.find("k1")
        assert issuer.requests == 1
    clock.now += 1
    assert await keys.find("k1")
    assert issuer.requests == 2


async def test_the_cool_down_holds_to_the_second(keys: RemoteKeySet, issuer: FakeIssuer, clock: Clock) -> None:
    assert await keys.find("k1")
    for seconds, requests in ((29.9, 1), (0.1, 2), (29.9, 2), (0.1, 3)):
        clock.now += seconds
        assert await keys.find("other") is None
        assert issuer.requests == requests


class Way:
    """A way out that forgets its limit, and keeps how it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, url: str, *, limit: int = 0, timeout: float = 0) -> Answer:  # noqa: ASYNC109 - the port's shape
        self.asked.append((url, limit))
        return self.answer


@pytest.mark.parametrize(("more", "found"), [(0, True), (1, False)])
async def test_a_key_set_has_64_kib_at_most(clock: Clock, more: int, found: bool) -> None:  # attack TOK-06
    document = FakeIssuer().jwks().body
    way = Way(Answer(200, document + b" " * (65_536 - len(document) + more)))
    assert bool(await RemoteKeySet("https://idp.test/jwks", way, clock).find("k1")) is found
    assert way.asked == [("https://idp.test/jwks", 65_536)]


@pytest.mark.parametrize("status", [199, 201, 204, 301, 404, 500])
async def test_only_a_200_is_a_key_set(clock: Clock, status: int) -> None:
    way = Way(Answer(status, FakeIssuer().jwks().body))
    assert await RemoteKeySet("https://idp.test/jwks", way, clock).find("k1") is None


async def test_keys_of_algorithms_that_were_not_asked_for_are_not_found(issuer: FakeIssuer, clock: Clock) -> None:
    issuer.answer = issuer.jwks(EC.jwk(), RSA.jwk())
    keys = RemoteKeySet(issuer.jwks_url, issuer.fetch, clock, ("RS256",))
    assert await keys.find("rsa") is not None
    assert await keys.find("ec") is None


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
    assert await asyncio.wait_for(keys.find("k1"), 60) is good
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
