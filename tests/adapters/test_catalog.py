"""Every kind has an adapter behind the guard."""

import pytest

from adapters.catalog import AdapterCatalog, UnknownKind
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import GuardedAdapter
from adapters.vendors.sdk.connection import VendorEndpoint


def test_every_kind_is_guarded() -> None:
    catalog = AdapterCatalog(Egress())
    assert "a2a" in catalog.kinds
    assert all(isinstance(catalog.adapter(kind), GuardedAdapter) for kind in catalog.kinds)


def test_an_unknown_kind_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownKind):
        AdapterCatalog(Egress()).adapter("telepathy")


async def test_an_option_that_names_a_variable_is_read_where_it_is_used() -> None:
    values = {"env:RUNTIME": "arn:aws:bedrock-agentcore:us-east-1:1:runtime/claims"}
    catalog = AdapterCatalog(Egress()).use_option_reader(lambda text: values.get(text, text))
    facts = await catalog.describe("agentcore", VendorEndpoint("https://aws.example", {"runtime": "env:RUNTIME"}, {}, 1e9))
    assert facts.name == "claims"
