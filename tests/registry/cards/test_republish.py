"""What is published for an agent: the reference implementation reads it, and verifies its signature."""

from typing import Any

import jwt
import pytest
from a2a.types import AgentCard
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
from google.protobuf.json_format import ParseDict

from policies.keys.signing import SigningKeys
from registry.cards.card import Family, Registration, RegistrationStatus
from registry.cards.reader import read_card
from registry.cards.republish import publish_card
from tests.fakes.cards import card

PUBLIC = "https://gateway.example"


def registration(document: dict[str, Any]) -> Registration:
    return Registration(
        tenant="default",
        name="sales",
        family=Family.AGENT,
        kind="a2a",
        status=RegistrationStatus.ACTIVE,
        url="http://10.0.0.7:9999/",
        owner="operator",
        ceiling=("*",),
        delegation="bearer",
        upstream={},
        facts={},
        client_id="client_1",
        card=read_card(document),
        card_text="",
        tools=(),
        card_hash="",
        created=0,
        updated=0,
    )


BARE = {"name": "Bare", "description": "Nothing declared.", "version": "1", "url": "http://10.0.0.7:9999/"}


@pytest.mark.parametrize("document", [card("http://10.0.0.7:9999/", "1.0"), card("http://10.0.0.7:9999/", "0.3"), BARE])
def test_the_reference_implementation_verifies_what_we_publish(document: dict[str, Any], tmp_path: Any) -> None:
    keys = SigningKeys.open(tmp_path)
    ours = publish_card(registration(document), PUBLIC, keys)
    parsed = ParseDict(ours, AgentCard())  # refuses every member that 1.0 does not know
    found: list[str | None] = []

    def key(kid: str | None, jku: str | None) -> Any:
        found.append(jku)
        return next(jwt.PyJWK(dict(entry)) for entry in keys.jwks()["keys"] if entry["kid"] == kid)

    verify = create_signature_verifier(key, ["ES256"])
    verify(parsed)
    assert found == [f"{PUBLIC}/.well-known/jwks.json"]
    parsed.skills[0].description = "Something else"
    with pytest.raises(InvalidSignaturesError):
        verify(parsed)


def test_callers_are_sent_to_us_and_never_see_where_the_agent_is(tmp_path: Any) -> None:
    ours = publish_card(registration(card("http://10.0.0.7:9999/", "1.0", "0.3")), PUBLIC, SigningKeys.open(tmp_path))
    assert ours["supportedInterfaces"] == [
        {"url": f"{PUBLIC}/agents/sales", "protocolBinding": binding, "protocolVersion": "1.0"} for binding in ("JSONRPC", "HTTP+JSON")
    ]
    assert {name: given for name, given in ours["capabilities"].items() if name != "extensions"} == {
        "streaming": True,
        "pushNotifications": True,
        "extendedAgentCard": True,
    }
    assert ours["skills"][0]["examples"] == ["2 of SKU-7"]
    assert "10.0.0.7" not in str(ours)
    assert "url" not in ours
