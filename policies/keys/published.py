"""Public keys in a file, with which the gateway's signatures are verified elsewhere."""

from collections.abc import Mapping
from typing import Any

from policies.keys.jwks import BadKeySet, VettedKey, vet_key_set
from policies.keys.strict_jwt import TokenRefused, read_unverified, verify_signature


class NotSignedByPublishedKey(ValueError):
    """No statement that one of these keys signed; the message is a reason slug."""


class PublishedKeys:
    """A trusted JWK Set of a gateway: its keys of all times."""

    def __init__(self, document: object) -> None:
        """Parses a JWK Set. Raises BadKeySet."""
        members = document.get("keys") if isinstance(document, Mapping) else None
        if not isinstance(members, list) or not members:
            raise BadKeySet("a JWK Set with at least one key is expected")
        self._keys: dict[str, VettedKey] = {}
        for member in members:  # one by one: a gateway that rotates its keys often has had more than MEMBERS_MAX
            self._keys |= vet_key_set({"keys": [member]}, ("ES256",))

    def verify(self, token: str, typ: str) -> Mapping[str, Any]:
        """The claims of a statement that one of the keys signed as `typ`. Raises NotSignedByPublishedKey."""
        try:
            unverified = read_unverified(token)
            verify_signature(unverified, self._keys.get(unverified.kid))
        except TokenRefused as refusal:
            raise NotSignedByPublishedKey(refusal.reason) from None
        if unverified.typ != typ.lower():
            raise NotSignedByPublishedKey("type")
        return unverified.claims
