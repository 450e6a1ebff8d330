"""Checks whether a card was signed by a key that the operator trusts (A2A 1.0 s8.4)."""

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
    """Verifies signatures of cards (policies/keys/pinned.py)."""

    def verify(self, signature: Mapping[str, Any], payload: bytes, keys: Sequence[Mapping[str, Any]]) -> str:
        """The kid of the key that made the signature, or the empty string."""
        ...

    async def fetch_published(self, signature: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
        """The keys at the signature's `jku`; None where that is no trusted origin. Raises when they can't be fetched."""
        ...


class SignatureResult(NamedTuple):
    """The state of a card's signatures; `kid` is the key of a verified one."""

    state: SignatureState
    kid: str = ""


async def check_signatures(
    document: Mapping[str, Any], pinned_keys: Sequence[Mapping[str, Any]], verifier: CardSignatureVerifier
) -> SignatureResult:
    """Checks the signatures of a card. Raises BadCard.

    One of the pinned keys must have signed it. Without pinned keys, a signature that names a trusted `jku` must be made by a key there.
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
    """Yields the RFC 8785 form of the card without its signatures: as received, and without empty members, as some signers do.

    The two mean the same to every reader of cards. Raises BadCard.
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
        raise BadCard("signatures", "are missing: the card must be signed by a trusted key")
    for signature in signatures:
        for payload in payloads:
            kid = verifier.verify(signature, payload, keys)
            if kid:
                return SignatureResult(SignatureState.VERIFIED, kid)
    raise BadCard("signatures", "include none by a trusted key over this card")


def _parse_signatures(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    signatures = document.get("signatures") or []
    if not isinstance(signatures, list) or not all(isinstance(one, dict) for one in signatures):
        raise BadCard("signatures", "must be a list of objects")
    if len(signatures) > SIGNATURES_MAX:
        raise BadCard("signatures", f"has more than {SIGNATURES_MAX} entries")
    return signatures
