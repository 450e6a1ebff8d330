"""Catalogs of agents as AI Catalog 1.0 and Agentic Resource Discovery want them."""

import re
from typing import Any

import pytest

from registry.cards.catalog_document import (
    BadFilter,
    Facet,
    catalog_document,
    catalog_entry_of,
    entry_urn,
    matches_filters,
    parse_filter,
    publisher_domain,
)
from tests.fakes.cards import card
from tests.registry.cards.test_republish import registration

URN = re.compile(r"urn:air:[a-zA-Z0-9.-]+(:[a-zA-Z0-9._-]+)+")
PUBLIC = "https://gateway.example:8443"
AGENT = registration(card("http://10.0.0.7:9999/", "1.0"))


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://Gateway.Example:8443", "gateway.example"),
        ("http://localhost:8080", "agent.localhost"),
        ("http://127.0.0.1:8080", "agent.localhost"),
        ("http://[::1]:8080", "agent.localhost"),
        ("http://interlock", "agent.localhost"),
    ],
)
def test_entries_are_anchored_in_a_domain_and_never_in_a_bare_name(url: str, domain: str) -> None:
    assert publisher_domain(url) == domain
    assert entry_urn(url, "acme corp!", "sales") == f"urn:air:{domain}:acme-corp-:sales"
    assert URN.fullmatch(entry_urn(url, "日本", "sales"))


def test_an_entry_has_what_the_schema_wants_and_names_our_address_only() -> None:
    entry = catalog_entry_of(AGENT, PUBLIC)
    assert entry["identifier"] == "urn:air:gateway.example:default:sales"
    assert (entry["type"], entry["url"]) == ("application/a2a-agent-card+json", f"{PUBLIC}/agents/sales/.well-known/agent-card.json")
    assert (entry["capabilities"], entry["tags"]) == (["order"], ["sales"])
    assert entry["trustManifest"] == {"identity": "https://gateway.example", "identityType": "https"}
    assert "10.0.0.7" not in str(entry)
    assert "data" not in entry
    assert "representativeQueries" not in entry  # one is too few
    assert "trustManifest" not in catalog_entry_of(AGENT, "http://127.0.0.1:8080")


def test_examples_of_skills_are_what_people_might_ask() -> None:
    skills = [{"id": "order", "name": "Order", "description": "", "tags": [], "examples": [f"{n} of SKU\u202e-7" for n in range(9)]}]
    queries = catalog_entry_of(registration(card("http://10.0.0.7/", "1.0") | {"skills": skills}), PUBLIC)["representativeQueries"]
    assert queries == [f"{n} of SKU-7" for n in range(5)]


def test_the_public_document_begins_with_the_front_door_and_the_search() -> None:
    found = catalog_document([catalog_entry_of(AGENT, PUBLIC)], AGENT, PUBLIC)
    assert (found["specVersion"], [entry["type"].split("/")[1] for entry in found["entries"]]) == (
        "1.0",
        ["a2a-agent-card+json", "ai-registry+json", "a2a-agent-card+json"],
    )
    for entry in found["entries"]:
        assert {"identifier", "displayName", "type", "url"} <= entry.keys()
        assert URN.fullmatch(entry["identifier"])


def test_a_filter_means_one_of_the_values_of_each_path() -> None:
    entry = catalog_entry_of(AGENT, PUBLIC)
    assert matches_filters(entry, {"tags": ["travel", "sales"], "capabilities": ["order"]})
    assert not matches_filters(entry, {"tags": ["sales"], "capabilities": ["refund"]})
    assert matches_filters(entry, parse_filter("tags = 'sales' AND type = 'application/a2a-agent-card+json'"))
    assert parse_filter("  ") == {}


@pytest.mark.parametrize(
    "text",
    [
        "tags",
        "tags = sales",
        "tags = 'a' OR tags = 'b'",
        "owner = 'x'",
        "tags = 'a' AND tags = 'b'",
        "' OR 1=1 --",
    ],
)
def test_a_filter_that_we_do_not_understand_is_refused(text: str) -> None:  # attack TEN-08
    with pytest.raises(BadFilter):
        parse_filter(text)


def test_facets_count_what_there_is() -> None:
    first, frequent = Facet("tags", 2, 1), Facet("tags", 9, 2)
    entries: list[dict[str, Any]] = [{"tags": ["c"]}, {"tags": ["a", "b", "a"]}, {"tags": ["a"]}, {}]
    for entry in entries:
        first.count(entry)
        frequent.count(entry)
    assert first.document() == {"buckets": [{"value": "a", "count": 2}, {"value": "b", "count": 1}], "otherCount": 1}
    assert frequent.document() == {"buckets": [{"value": "a", "count": 2}], "otherCount": 2}
    with pytest.raises(BadFilter):
        Facet("owner", 1, 1)
