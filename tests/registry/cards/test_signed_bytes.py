"""What exactly is signed in a card of ours (A2A 1.0 s8.4), told apart without any A2A library."""

import base64
import json
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from policies.keys.signing import SigningKeys
from registry.cards.republish import publish_card
from tests.fakes.cards import card
from tests.registry.cards.test_republish import PUBLIC, registration


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def published(folder: Path) -> tuple[dict[str, Any], SigningKeys]:
    """A card whose members JSON could write in several ways."""
    document = {**card("http://10.0.0.7:9999/", "1.0"), "name": "Zürich € \U0001f600", "description": 'a/b \\ "quoted"'}
    keys = SigningKeys.open(folder)
    return publish_card(registration(document), PUBLIC, keys), keys


def signs(keys: SigningKeys, signature: dict[str, str], payload: bytes) -> bool:
    """By RFC 7515: base64url of the header, a dot, base64url of the payload; r and s beside each other."""
    kid = json.loads(unpadded(signature["protected"]))["kid"]
    jwk = next(each for each in keys.jwks()["keys"] if each["kid"] == kid)
    x, y = (int.from_bytes(unpadded(jwk[name])) for name in ("x", "y"))
    raw = unpadded(signature["signature"])
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    signed = signature["protected"].encode() + b"." + base64.urlsafe_b64encode(payload).rstrip(b"=")
    try:
        ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key().verify(der, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def test_the_canonical_form_is_signed_and_no_other(tmp_path: Path) -> None:
    ours, keys = published(tmp_path)
    (signature,) = ours.pop("signatures")
    assert signs(keys, signature, rfc8785.dumps(ours))
    for other in (json.dumps(ours).encode(), json.dumps(ours, separators=(",", ":"), ensure_ascii=False).encode()):
        assert not signs(keys, signature, other)


def test_signatures_are_no_part_of_what_is_signed(tmp_path: Path) -> None:
    ours, keys = published(tmp_path)
    (signature,) = ours["signatures"]
    assert not signs(keys, signature, rfc8785.dumps(ours))
    assert not signs(keys, signature, rfc8785.dumps({**ours, "signatures": []}))


def test_the_header_names_the_algorithm_and_the_key(tmp_path: Path) -> None:
    ours, keys = published(tmp_path)
    header = json.loads(unpadded(ours["signatures"][0]["protected"]))
    assert (header["alg"], header["typ"]) == ("ES256", "JOSE")
    assert header["kid"] in {each["kid"] for each in keys.jwks()["keys"]} and header["jku"] == f"{PUBLIC}/.well-known/jwks.json"
