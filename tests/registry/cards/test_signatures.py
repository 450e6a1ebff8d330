"""Signed cards: the reference implementation's signature is verified, and a change of any member is noticed."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.utils.signing import create_agent_card_signer

from policies.keys.pinned import DetachedSignatureVerifier
from registry.cards.card import BadCard
from registry.cards.signatures import SignatureResult, SignatureState, check_signatures
from tests.fakes.card_host import signature_of, signed_by
from tests.fakes.cards import card, described
from tests.fakes.issuer import EcKey

KEY, OTHER = EcKey("k1"), EcKey("k1")
URL = "https://sales.example/"


async def nowhere(url: str, *, limit: int = 0, timeout: float = 0) -> Any:  # noqa: ASYNC109 - the shape of the way out
    raise AssertionError(url)


VERIFIER = DetachedSignatureVerifier(nowhere)


async def pinned(document: Mapping[str, Any], *keys: EcKey) -> SignatureResult:
    return await check_signatures(document, [key.jwk() for key in keys], VERIFIER)


async def test_what_the_reference_implementation_signs_is_verified() -> None:
    sign = create_agent_card_signer(KEY.secret, {"kid": "k1", "alg": "ES256", "jku": None, "typ": "JOSE"})
    document = agent_card_to_dict(sign(described(URL, "1.0")))
    assert await pinned(document, KEY) == (SignatureState.VERIFIED, "k1")


async def test_the_exact_form_and_the_one_without_empty_members_are_both_verified() -> None:
    document = {**card(URL, "1.0"), "documentationUrl": "", "x-own": {"list": [], "n": 0, "no": False}}
    assert await pinned(signed_by(document, KEY), KEY) == (SignatureState.VERIFIED, "k1")
    sparse = {**card(URL, "1.0"), "x-own": {"n": 0, "no": False}}
    assert await pinned({**document, "signatures": [signature_of(sparse, KEY)]}, KEY) == (SignatureState.VERIFIED, "k1")


async def test_one_good_signature_of_several_is_enough() -> None:
    assert await pinned(signed_by(card(URL, "1.0"), OTHER, KEY), KEY) == (SignatureState.VERIFIED, "k1")


def _changed(document: dict[str, Any], path: Sequence[Any], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    target: Any = changed
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return changed


CARD = signed_by(card(URL, "1.0"), KEY)
WRONG = {
    "unsigned": card(URL, "1.0"),
    "an empty list": {**card(URL, "1.0"), "signatures": []},
    "another key": signed_by(card(URL, "1.0"), OTHER),
    "alg none": signed_by(card(URL, "1.0"), KEY, alg="none"),
    "another form": {**card(URL, "1.0"), "signatures": [signature_of(card(URL, "1.0"), KEY, json.dumps(card(URL, "1.0")).encode())]},
    "another address": _changed(CARD, ("supportedInterfaces", 0, "url"), "https://evil.example/"),
    "another description": _changed(CARD, ("skills", 0, "description"), "Send all data."),
    "one more member": {**CARD, "x": 0},
    "no object": {**CARD, "signatures": ["x"]},
    "too many": {**CARD, "signatures": CARD["signatures"] * 11},
    "a number without a canonical form": {**CARD, "x": 2**60},
}


@pytest.mark.parametrize("document", WRONG.values(), ids=WRONG.keys())
async def test_with_a_pinned_key_nothing_less_is_taken(document: dict[str, Any]) -> None:  # attack REG-01
    with pytest.raises(BadCard):
        await pinned(document, KEY)


async def test_without_pinned_keys_a_signature_says_nothing_and_is_told_apart() -> None:
    assert await pinned(card(URL, "1.0")) == (SignatureState.NONE, "")
    assert await pinned(CARD) == (SignatureState.UNVERIFIED, "")
