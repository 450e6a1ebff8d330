"""A card for clients of both versions is signed so that the libraries of each verify it, though each reads other members."""

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from a2a.client.card_resolver import parse_agent_card
from a2a.compat.v0_3.types import AgentCard as OldCard
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier

from policies.keys.signing import SigningKeys
from registry.cards.older_card import older, older_form
from registry.cards.republish import add_a2a_03_members, publish_card, signed_for_both
from registry.cards.signatures import canonical_forms
from tests.fakes.cards import card
from tests.registry.cards.test_republish import BARE, PUBLIC, registration

PARAMS = {"depth": 2, "share": 1.5, "empty": "", "nested": {"none": []}}
EXTENDED = {"extensions": [{"uri": "https://example.org/a", "required": True, "params": PARAMS}, {"uri": "https://example.org/b"}]}
RICH = {
    **card("http://10.0.0.7:9999/", "1.0"),
    "name": "Zürich € \U0001f600",
    "description": 'a/b \\ "quoted"',
    "capabilities": EXTENDED,
    "provider": {"organization": "Example", "url": "https://example.org"},
}
# What a2a-sdk 0.3.26 makes of the card of RICH (a2a.utils.helpers.canonicalize_agent_card)
CANONICAL = Path(__file__).with_name("canonical_0_3.json")
documents = pytest.mark.parametrize("document", [RICH, BARE, card("http://10.0.0.7:9999/", "0.3")])


def signed_over(made: dict[str, Any], payload: bytes, keys: SigningKeys) -> list[int]:
    """The places of the signatures that our key made over these bytes."""
    key, found = jwt.PyJWK(dict(keys.jwks()["keys"][0])), []
    for place, each in enumerate(made["signatures"]):
        token = b".".join([each["protected"].encode(), jwt.utils.base64url_encode(payload), each["signature"].encode()])
        try:
            jwt.PyJWS().decode(token, key, ["ES256"])
        except jwt.InvalidSignatureError:
            continue
        found.append(place)
    return found


def canonical_0_3(document: dict[str, Any]) -> bytes:
    """As a2a-sdk 0.3.26 has it, by the models of 0.3 that the SDK of 1.0 keeps."""
    read = OldCard.model_validate(document).model_dump(exclude={"signatures"}, exclude_defaults=True, exclude_none=True, by_alias=True)
    return json.dumps(_without_empty(read), separators=(",", ":"), sort_keys=True).encode()


def _without_empty(given: Any) -> Any:
    if isinstance(given, dict):
        return {name: kept for name, value in given.items() if (kept := _without_empty(value)) is not None} or None
    if isinstance(given, list):
        return [kept for value in given if (kept := _without_empty(value)) is not None] or None
    return None if given == "" else given


def test_the_form_of_0_3_is_that_of_the_official_sdk(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    made = registration(RICH)
    both = add_a2a_03_members(made, publish_card(made, PUBLIC, keys, grpc="grpc.example:50051"), PUBLIC, keys)
    assert older_form(both).decode() == CANONICAL.read_text().strip()


@documents
def test_a_card_of_both_versions_is_signed_over_what_each_reads(document: dict[str, Any], tmp_path: Path) -> None:
    keys, made = SigningKeys.open(tmp_path), registration(document)
    both = add_a2a_03_members(made, publish_card(made, PUBLIC, keys), PUBLIC, keys)
    assert signed_over(both, canonical_0_3(both), keys) == [2]
    assert signed_over(both, next(canonical_forms(both)), keys) == [0]

    def key(kid: str | None, _jku: str | None) -> Any:
        return next(jwt.PyJWK(dict(entry)) for entry in keys.jwks()["keys"] if entry["kid"] == kid)

    verify = create_signature_verifier(key, ["ES256"])
    verify(parse_agent_card(json.loads(json.dumps(both))))
    with pytest.raises(InvalidSignaturesError):
        verify(parse_agent_card({**json.loads(json.dumps(both)), "name": "Something else"}))
    assert signed_over(both, canonical_0_3({**both, "url": "https://evil.test"}), keys) == []


@documents
def test_an_extended_card_is_signed_for_clients_of_0_3(document: dict[str, Any], tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    given = signed_for_both(publish_card(registration(document), PUBLIC, keys), PUBLIC, keys)
    told = {**given, **older(given)}
    last = len(given["signatures"]) - 1
    assert signed_over(told, canonical_0_3(told), keys) == [last] and last >= 1


def test_a_card_with_empty_parameters_is_verified_by_the_sdk_of_1_0(tmp_path: Path) -> None:
    """The SDK leaves out what is empty before it verifies."""
    keys = SigningKeys.open(tmp_path)
    ours = publish_card(registration(RICH), PUBLIC, keys)
    verify = create_signature_verifier(lambda _kid, _jku: jwt.PyJWK(dict(keys.jwks()["keys"][0])), ["ES256"])
    verify(parse_agent_card(json.loads(json.dumps(ours))))
    assert len(ours["signatures"]) == 2
