"""Cards of the reference implementation are read, in every version; each wrong field is named."""

import base64
import json
from typing import Any

import pytest

from registry.cards.card import AgentCard, AgentInterface, BadCard
from registry.cards.reader import choose_interface, fetchable_urls, read_card
from tests.fakes.cards import card

URL = "https://agents.example/sales"


@pytest.mark.parametrize(("versions", "chosen"), [(("1.0",), "1.0"), (("0.3",), "0.3"), (("1.0", "0.3"), "1.0"), (("0.3", "1.0"), "1.0")])
def test_a_card_of_any_version_is_read_into_one_shape(versions: tuple[str, ...], chosen: str) -> None:
    read = read_card(card(URL, *versions))
    assert (read.name, read.version, read.streaming, read.push_notifications) == ("Sales Agent (EU)", "1.2.0", True, True)
    assert [(skill.id, skill.tags) for skill in read.skills] == [("order", ("sales",))]
    assert read.output_modes == ("text/plain", "application/json")
    assert choose_interface(read) == AgentInterface(URL, "JSONRPC", chosen)
    assert read.document == card(URL, *versions)


def test_versions_are_major_and_minor_and_0_3_is_what_an_old_card_means_without_one() -> None:
    old = card(URL, "0.3") | {"protocolVersion": "0.3.0", "preferredTransport": "HTTP+JSON"}
    old["additionalInterfaces"] = [{"url": URL + "/rpc", "transport": "JSONRPC"}, {"url": "agents.example:443", "transport": "GRPC"}]
    assert choose_interface(read_card(old)) == AgentInterface(URL + "/rpc", "JSONRPC", "0.3")
    del old["protocolVersion"]
    assert choose_interface(read_card(old)).version == "0.3"


def test_an_interface_keeps_its_tenant() -> None:
    document = card(URL, "1.0")
    document["supportedInterfaces"][0]["tenant"] = "acme"
    assert choose_interface(read_card(document)).tenant == "acme"


def offering(*interfaces: tuple[str, str]) -> AgentCard:
    document = card(URL, "1.0")
    document["supportedInterfaces"] = [{"url": URL, "protocolBinding": each, "protocolVersion": version} for each, version in interfaces]
    return read_card(document)


ORDER = [("JSONRPC", "1.0"), ("HTTP+JSON", "1.0"), ("GRPC", "1.0"), ("JSONRPC", "0.3"), ("HTTP+JSON", "0.3"), ("GRPC", "0.3")]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_newest_version_is_chosen_and_then_the_binding_that_costs_least(first: int) -> None:
    chosen = choose_interface(offering(*reversed(ORDER[first:])))
    assert (chosen.binding, chosen.version) == ORDER[first]


def test_a_binding_that_is_not_spoken_here_is_passed_over() -> None:
    assert choose_interface(offering(*ORDER[2:]), ("JSONRPC", "HTTP+JSON")).version == "0.3"
    with pytest.raises(BadCard, match=r"one of JSONRPC, HTTP.JSON in"):
        choose_interface(offering(("GRPC", "1.0")), ("JSONRPC", "HTTP+JSON"))


@pytest.mark.parametrize(("binding", "version"), [("WEBSOCKET", "1.0"), ("HTTP+JSON", "2.0"), ("JSONRPC", "1.7"), ("JSONRPC", "0.2")])
def test_an_agent_without_an_interface_that_can_be_called_is_told_so(binding: str, version: str) -> None:
    document = card(URL, "1.0")
    document["supportedInterfaces"] = [{"url": URL, "protocolBinding": binding, "protocolVersion": version}]
    with pytest.raises(BadCard, match="no interface that can be called"):
        choose_interface(read_card(document))


HIDDEN = "\u202e"
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("name", {"name": None}),
    ("name", {"name": ""}),
    ("name", {"name": 7}),
    ("name", {"name": "x" * 201}),
    ("name", {"name": "Sales\u202etnegA"}),
    ("name", {"name": "Sa\u200bles"}),
    ("name", {"name": "Sales\nAgent"}),
    ("description", {"description": ["x"]}),
    ("description", {"description": "a\x00b"}),
    ("description", {"description": "x" * 20_001}),
    ("version", {"version": 1}),
    ("supportedInterfaces", {"supportedInterfaces": []}),
    ("supportedInterfaces", {"supportedInterfaces": {"url": URL}}),
    ("supportedInterfaces[0]", {"supportedInterfaces": ["x"]}),
    ("supportedInterfaces[0].protocolBinding", {"supportedInterfaces": [{"url": URL}]}),
    ("supportedInterfaces[0].url", {"supportedInterfaces": [{"protocolBinding": "JSONRPC"}]}),
    ("supportedInterfaces[0].url", {"supportedInterfaces": [{"url": "file:///etc/passwd", "protocolBinding": "JSONRPC"}]}),
    (
        "supportedInterfaces[0].protocolVersion",
        {"supportedInterfaces": [{"url": URL, "protocolBinding": "JSONRPC", "protocolVersion": 1.0}]},
    ),
    ("supportedInterfaces", {"supportedInterfaces": [{}] * 33}),
    ("url", {"url": 7}),
    ("capabilities", {"capabilities": []}),
    ("capabilities.streaming", {"capabilities": {"streaming": "yes"}}),
    ("skills", {"skills": "many"}),
    ("skills[0]", {"skills": [7]}),
    ("skills[0].id", {"skills": [{"name": "n"}]}),
    ("skills[0].name", {"skills": [{"id": "a", "name": f"a{HIDDEN}"}]}),
    ("skills[1].id", {"skills": [{"id": "a", "name": "a"}, {"id": "a", "name": "b"}]}),
    ("skills[0].tags[1]", {"skills": [{"id": "a", "name": "a", "tags": ["x", 1]}]}),
    ("skills", {"skills": [{"id": str(i), "name": "n"} for i in range(501)]}),
    ("defaultInputModes[0]", {"defaultInputModes": [None]}),
]


@pytest.mark.parametrize(("field", "change"), WRONG)
def test_a_wrong_field_is_named(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(BadCard) as caught:
        read_card(card(URL, "1.0") | change)
    assert caught.value.field == field


@pytest.mark.parametrize("document", [None, [], "card", 7])
def test_what_is_no_object_is_no_card(document: Any) -> None:
    with pytest.raises(BadCard):
        read_card(document)


def test_every_url_that_somebody_could_be_made_to_fetch_is_found() -> None:  # attack SSR-01
    document = card(URL, "1.0")
    protected = base64.urlsafe_b64encode(json.dumps({"alg": "ES256", "jku": "http://e"}).encode()).decode().rstrip("=")
    document |= {
        "iconUrl": "http://a",
        "documentationUrl": "http://b",
        "securitySchemes": {
            "o": {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"tokenUrl": "http://c"}}}},
            "i": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "http://d"}},
        },
        "signatures": [{"protected": protected, "signature": "x"}, {"protected": "%%%", "signature": "x"}],
    }
    found = {url: field for field, url in fetchable_urls(read_card(document))}
    assert set(found) == {URL, "https://provider.example", "http://a", "http://b", "http://c", "http://d", "http://e"}
    assert found["http://c"] == "securitySchemes.o.oauth2SecurityScheme.flows.clientCredentials.tokenUrl"
    assert found["http://e"] == "signatures[0].protected.jku"


def test_a_card_with_too_many_urls_is_refused() -> None:
    document = card(URL, "1.0") | {"securitySchemes": {str(i): {"authorizationUrl": "http://a"} for i in range(80)}}
    with pytest.raises(BadCard):
        fetchable_urls(read_card(document))
