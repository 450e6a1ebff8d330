"""Whether a card was signed by whom the operator trusts (A2A 1.0 s8.4)."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import rfc8785

from registry.cards.card import BadCard
from registry.cards.older_card import without_empty

SIGNATURES_MAX = 10


class SignatureState(StrEnum):
    NONE = "none"
    VERIFIED = "verified"
    UNVERIFIED = "unverified"


class CardSignatureVerifier(Protocol):
    """policies/keys/pinned.py."""

    def verify(self, signature: Mapping[str, Any], payload: bytes, keys: Sequence[Mapping[str, Any]]) -> str:
        """The kid of the key that made it, or nothing."""
        ...

    async def fetch_published(self, signature: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
        """The keys at its `jku`, where that leads to an origin that the operator trusts. Raises when they can't be had."""
        ...


class SignatureResult(NamedTuple):
    """What the signatures of a card say; `kid` names the key of a verified one."""

    state: SignatureState
    kid: str = ""


async def check_signatures(
    document: Mapping[str, Any], pinned_keys: Sequence[Mapping[str, Any]], verifier: CardSignatureVerifier
) -> SignatureResult:
    """With pinned keys one of them has to have signed the card. Without, a key at a trusted `jku` may have; if one is named, it must.

    Raises BadCard.
    """
    signatures = _parse_signatures(document)
    payloads = list(canonical_forms(document)) if signatures else []
    if pinned_keys:
        return _check_signed_by(signatures, payloads, pinned_keys, verifier)
    for signature in signatures:
        keys = await verifier.fetch_published(signature)
        if keys is not None:
            return _check_signed_by([signature], payloads, keys, verifier)
    return SignatureResult(SignatureState.UNVERIFIED if signatures else SignatureState.NONE)


def canonical_forms(document: Mapping[str, Any]) -> Iterator[bytes]:
    """RFC 8785 of the card without its signatures: exactly as it came, and with empty members left out, as some signers do.

    An empty member says nothing, so no reader takes the two for different cards. Raises BadCard.
    """
    plain = {key: value for key, value in document.items() if key != "signatures"}
    try:
        exact = rfc8785.dumps(plain)
        yield exact
        sparse = rfc8785.dumps(without_empty(plain) or {})
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise BadCard("card", "has no canonical form (RFC 8785), so no signature over it can be verified") from error
    if sparse != exact:
        yield sparse


def _check_signed_by(
    signatures: Sequence[Mapping[str, Any]], payloads: Sequence[bytes], keys: Sequence[Mapping[str, Any]], verifier: CardSignatureVerifier
) -> SignatureResult:
    if not signatures:
        raise BadCard("signatures", "are missing: the card has to be signed by a trusted key")
    for signature in signatures:
        for payload in payloads:
            kid = verifier.verify(signature, payload, keys)
            if kid:
                return SignatureResult(SignatureState.VERIFIED, kid)
    raise BadCard("signatures", "have none that a trusted key made over this card")


def _parse_signatures(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = document.get("signatures") or []
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise BadCard("signatures", "must be a list of objects")
    if len(given) > SIGNATURES_MAX:
        raise BadCard("signatures", f"has more than {SIGNATURES_MAX} entries")
    return given
