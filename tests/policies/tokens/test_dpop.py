"""A bound token is taken only with a fresh proof of its own key, for this very request, once."""

import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from policies.keys.signing import SigningKeys
from policies.tokens.dpop import (
    INVALID_PROOF,
    INVALID_TOKEN,
    NONCE_SECONDS,
    USE_NONCE,
    DpopVerifier,
    PresentedProof,
    ProofRefused,
    is_same_target,
    thumbprint_of,
)
from policies.tokens.replay_guard import ReplayGuard
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, EcKey, RsaKey
from tests.fakes.oauth import FakeWriter
from tests.fakes.proofs import Prover, other_form

URL = "https://gw.test/mcp/crm"
TOKEN = "the.access.token"


@pytest.fixture
def possession(keys: SigningKeys, clock: Clock) -> DpopVerifier:
    return DpopVerifier(keys, ReplayGuard(FakeWriter(), lambda: int(clock.now * 1e6)), clock)


@pytest.fixture
def prover(clock: Clock) -> Prover:
    return Prover(clock)


async def refusal(possession: DpopVerifier, proof: str | None, thumbprint: str = "") -> ProofRefused:
    with pytest.raises(ProofRefused) as refused:
        await possession.verify(PresentedProof(proof, "POST", URL, TOKEN), "acme", thumbprint)
    return refused.value


async def test_whoever_holds_the_key_is_let_in(possession: DpopVerifier, clock: Clock) -> None:
    for key in (EcKey(), RsaKey()):
        prover = Prover(clock, key)
        shown = PresentedProof(prover.proof("POST", URL, TOKEN), "POST", URL, TOKEN)
        assert await possession.verify(shown, "acme", prover.thumbprint) == prover.thumbprint


async def test_a_proof_without_a_token_tells_the_key_to_bind_one_to(possession: DpopVerifier, prover: Prover) -> None:
    shown = PresentedProof(prover.proof("POST", URL), "POST", URL)
    assert await possession.verify(shown, "acme") == prover.thumbprint


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    example = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn6"
        "4tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbI"
        "SD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint_of(example) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


SECRET = EcKey()
WRONG: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # what -> reason, header, claims
    "a bearer token's type": ("header", {"typ": "at+jwt"}, {}),
    "no type": ("header", {"typ": ABSENT}, {}),
    "a kid beside the key": ("header", {"kid": "k1"}, {}),
    "a key elsewhere": ("header", {"jku": "https://evil.test/jwks"}, {}),
    "critical headers": ("header", {"crit": ["exp"]}, {}),
    "no key": ("header", {"jwk": ABSENT}, {}),
    "a key that is text": ("jwk", {"jwk": "k1"}, {}),
    "a key whose name is none": ("jwk", {"jwk": SECRET.jwk(kid=5)}, {}),
    "a secret key": ("jwk", {"jwk": {**SECRET.jwk(), "d": SECRET.secret_member()}}, {}),
    "a symmetric key": ("jwk", {"jwk": {"kty": "oct", "k": "c2VjcmV0"}}, {}),
    "a small key": ("jwk", {"jwk": RsaKey(bits=1024).jwk()}, {}),
    "a key for encryption": ("jwk", {"jwk": SECRET.jwk(use="enc")}, {}),
    "no algorithm": ("alg", {"alg": "none"}, {}),
    "a symmetric algorithm": ("alg", {"alg": "HS256"}, {}),
    "an algorithm of another key": ("alg", {"alg": "RS256"}, {}),
    "another method": ("htm", {}, {"htm": "GET"}),
    "a method in small letters": ("htm", {}, {"htm": "post"}),
    "no method": ("htm", {}, {"htm": ABSENT}),
    "another path": ("htu", {}, {"htu": "https://gw.test/mcp/other"}),
    "another host": ("htu", {}, {"htu": "https://evil.test/mcp/crm"}),
    "another scheme": ("htu", {}, {"htu": "http://gw.test/mcp/crm"}),
    "user information": ("htu", {}, {"htu": "https://gw.test@gw.test/mcp/crm"}),
    "no address": ("htu", {}, {"htu": ABSENT}),
    "an address that is none": ("htu", {}, {"htu": "https://[/mcp"}),
    "another token": ("ath", {}, {"ath": "A" * 43}),
    "no token": ("ath", {}, {"ath": ABSENT}),
    "no id": ("jti", {}, {"jti": ABSENT}),
    "an empty id": ("jti", {}, {"jti": ""}),
    "a long id": ("jti", {}, {"jti": "x" * 257}),
    "no time": ("times", {}, {"iat": ABSENT}),
    "a time that is text": ("times", {}, {"iat": "1800000000"}),
    "a time that is true": ("times", {}, {"iat": True}),
}


@pytest.mark.parametrize("what", WRONG)
async def test_tok_12_a_proof_that_is_not_right_is_none(possession: DpopVerifier, prover: Prover, what: str) -> None:  # attack TOK-12
    reason, header, claims = WRONG[what]
    refused = await refusal(possession, prover.proof("POST", URL, TOKEN, header, **claims))
    assert (refused.reason, refused.error, refused.nonce) == (f"dpop-{reason}", "invalid_dpop_proof", "")


@pytest.mark.parametrize("shown", [None, "", "x", "a.b", "a.b.c", "a.b.c.d", "x" * 9000], ids=str)
async def test_tok_12_what_is_no_proof_at_all_is_none(possession: DpopVerifier, shown: str | None) -> None:  # attack TOK-12
    refused = await refusal(possession, shown)
    assert (refused.reason, refused.error) == ("dpop-missing" if shown is None else "dpop-shape", INVALID_PROOF)


async def test_tok_12_a_proof_of_another_key_is_none(possession: DpopVerifier, prover: Prover, clock: Clock) -> None:  # attack TOK-12
    stolen = Prover(clock).proof("POST", URL, TOKEN)
    assert (await refusal(possession, stolen, prover.thumbprint)).reason == "dpop-other-key"
    forged = Prover(clock).proof("POST", URL, TOKEN, {"jwk": prover.jwk()})  # names the right key, and is signed with another
    assert (await refusal(possession, forged, prover.thumbprint)).reason == "dpop-signature"


async def test_tok_12_a_proof_counts_once(possession: DpopVerifier, prover: Prover, clock: Clock) -> None:  # attack TOK-12
    proof = prover.proof("POST", URL, TOKEN)
    await possession.verify(PresentedProof(proof, "POST", URL, TOKEN), "acme", prover.thumbprint)
    assert (await refusal(possession, proof, prover.thumbprint)).reason == "dpop-replayed"
    assert (await refusal(possession, other_form(proof), prover.thumbprint)).reason == "dpop-replayed"
    same_id = Prover(clock).proof("POST", URL, TOKEN, jti="p1")  # ids of different keys are different
    await possession.verify(PresentedProof(same_id, "POST", URL, TOKEN), "acme")


async def test_tok_12_a_forged_proof_uses_up_no_id(possession: DpopVerifier, prover: Prover, clock: Clock) -> None:  # attack TOK-12
    await refusal(possession, Prover(clock).proof("POST", URL, TOKEN, {"jwk": prover.jwk()}, jti="one"))
    await possession.verify(PresentedProof(prover.proof("POST", URL, TOKEN, jti="one"), "POST", URL, TOKEN), "acme", prover.thumbprint)


@pytest.mark.parametrize(("age", "fresh"), [(0, True), (60, True), (61, False), (600, False), (-30, True), (-31, False)])
async def test_tok_12_without_a_nonce_a_proof_is_fresh_for_a_minute(  # attack TOK-12
    possession: DpopVerifier, prover: Prover, clock: Clock, age: int, fresh: bool
) -> None:
    proof = prover.proof("POST", URL, TOKEN, iat=int(clock.now) - age)
    if fresh:
        await possession.verify(PresentedProof(proof, "POST", URL, TOKEN), "acme")
    else:
        refused = await refusal(possession, proof)
        assert (refused.reason, refused.error, refused.nonce) == ("dpop-stale", "use_dpop_nonce", possession.current_nonce())


async def test_a_client_whose_clock_is_wrong_comes_in_with_a_nonce(possession: DpopVerifier, prover: Prover, clock: Clock) -> None:
    wrong = int(clock.now) - 86_400
    told = (await refusal(possession, prover.proof("POST", URL, TOKEN, iat=wrong))).nonce
    proof = prover.proof("POST", URL, TOKEN, iat=wrong, nonce=told)
    await possession.verify(PresentedProof(proof, "POST", URL, TOKEN), "acme", prover.thumbprint)
    assert (await refusal(possession, proof)).reason == "dpop-replayed"
    clock.now += NONCE_SECONDS
    await possession.verify(PresentedProof(prover.proof("POST", URL, TOKEN, nonce=told), "POST", URL, TOKEN), "acme")
    clock.now += NONCE_SECONDS
    late = await refusal(possession, prover.proof("POST", URL, TOKEN, nonce=told))
    assert (late.error, late.nonce != told) == ("use_dpop_nonce", True)


@pytest.mark.parametrize("nonce", ["", "made up", 5, [], {}])
async def test_a_nonce_that_is_not_ours_is_none(possession: DpopVerifier, prover: Prover, nonce: object) -> None:  # attack TOK-12
    refused = await refusal(possession, prover.proof("POST", URL, TOKEN, nonce=nonce))
    assert (refused.reason, refused.error, refused.nonce) == ("dpop-nonce", "use_dpop_nonce", possession.current_nonce())


def test_every_process_that_shares_the_keys_knows_the_nonce(tmp_path: Path, clock: Clock) -> None:
    nonces = {
        DpopVerifier(SigningKeys.open(tmp_path, clock), ReplayGuard(FakeWriter(), lambda: 0), clock).current_nonce() for _ in range(2)
    }
    assert len(nonces) == 1
    assert (
        DpopVerifier(SigningKeys.open(tmp_path / "other", clock), ReplayGuard(FakeWriter(), lambda: 0), clock).current_nonce() not in nonces
    )


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("https://gw.test/mcp/crm", True),
        ("HTTPS://GW.test:443/mcp/crm?x=1#y", True),
        ("https://gw.test:8443/mcp/crm", False),
        ("https://gw.test/mcp/crm/", False),
        ("https://gw.test/MCP/crm", False),
        ("https://gw.test//mcp/crm", False),
        ("/mcp/crm", False),
        ("https://gw.test:x/mcp/crm", False),
    ],
)
def test_addresses_are_compared_as_addresses(said: str, same: bool) -> None:
    assert is_same_target(said, URL) is same


@pytest.mark.parametrize(
    ("said", "url", "same"),
    [
        ("http://gw.test:80/x", "http://gw.test/x", True),
        ("http://gw.test:81/x", "http://gw.test/x", False),
        ("http://gw.test:443/x", "http://gw.test/x", False),
        ("https://gw.test:80/x", "https://gw.test/x", False),
        ("https://gw.test:8443/x", "https://gw.test:8443/x", True),
        ("https://gw.test", "https://gw.test/", True),
        ("https://gw.test?x=1", "https://gw.test/#y", True),
        ("https:///x", "https://x/x", False),
        ("https://me@gw.test/x", "https://me@gw.test/x", False),
        ("https://me:secret@gw.test/x", "https://me:secret@gw.test/x", False),
        ("https://:secret@gw.test/x", "https://gw.test/x", False),
        ("https://[::1]:443/x", "https://[::1]/x", True),
    ],
)
def test_targets_match_with_default_ports_and_empty_paths_but_not_with_userinfo(said: str, url: str, same: bool) -> None:
    assert is_same_target(said, url) is is_same_target(url, said) is same


def test_refusals_are_called_what_the_standards_call_them() -> None:
    assert (INVALID_PROOF, USE_NONCE, INVALID_TOKEN) == ("invalid_dpop_proof", "use_dpop_nonce", "invalid_token")
    plain = ProofRefused("unbound")
    assert (plain.reason, plain.error, plain.nonce) == ("dpop-unbound", INVALID_PROOF, "")


async def test_a_key_may_have_a_name_of_its_own(possession: DpopVerifier, clock: Clock) -> None:
    prover = Prover(clock)
    proof = prover.proof("POST", URL, TOKEN, {"jwk": {**prover.jwk(), "kid": "mine"}})
    assert await possession.verify(PresentedProof(proof, "POST", URL, TOKEN), "acme") == prover.thumbprint


@pytest.mark.parametrize("typ", ["dpop+jwt", "DPoP+JWT"])
async def test_the_type_may_be_written_large(possession: DpopVerifier, prover: Prover, typ: str) -> None:
    proof = PresentedProof(prover.proof("POST", URL, TOKEN, {"typ": typ}), "POST", URL, TOKEN)
    assert await possession.verify(proof, "acme") == prover.thumbprint


class Ledger:
    """Notes what is spent."""

    def __init__(self) -> None:
        self.spent: list[tuple[str, str, float]] = []

    async def consume(self, tenant: str, spent_id: str, not_after: float) -> bool:
        self.spent.append((tenant, spent_id, not_after))
        return True


async def test_an_id_is_spent_for_as_long_as_its_proof_could_be_shown_again(keys: SigningKeys, clock: Clock) -> None:
    ledger, prover = Ledger(), Prover(clock)
    possession = DpopVerifier(keys, cast(ReplayGuard, ledger), clock)
    aged = prover.proof("POST", URL, TOKEN, iat=int(clock.now) - 20, jti="one")
    await possession.verify(PresentedProof(aged, "POST", URL, TOKEN), "acme")
    nonced = prover.proof("POST", URL, TOKEN, iat=5, jti="one", nonce=possession.current_nonce())
    await possession.verify(PresentedProof(nonced, "POST", URL, TOKEN), "evil")
    name = f"dpop {prover.thumbprint} {hashlib.sha256(b'one').hexdigest()}"
    assert ledger.spent == [("acme", name, clock.now + 40), ("evil", name, clock.now + 240)]


async def test_a_nonce_is_good_until_two_minutes_after_the_next_one(possession: DpopVerifier, prover: Prover, clock: Clock) -> None:
    first = possession.current_nonce()  # the clock stands at the beginning of a period
    clock.now += 119.9
    assert possession.current_nonce() == first
    clock.now += 0.1
    assert possession.current_nonce() != first
    clock.now += 119.9
    await possession.verify(PresentedProof(prover.proof("POST", URL, TOKEN, nonce=first), "POST", URL, TOKEN), "acme")
    clock.now += 0.1
    assert (await refusal(possession, prover.proof("POST", URL, TOKEN, nonce=first))).reason == "dpop-nonce"
    clock.now -= 360
    assert (await refusal(possession, prover.proof("POST", URL, TOKEN, nonce=first))).reason == "dpop-nonce"  # it is still to come
