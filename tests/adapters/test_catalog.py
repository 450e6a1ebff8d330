"""Every kind has an adapter behind the guard."""

import pytest

from adapters.catalog import Catalog, UnknownKind
from adapters.egress import Egress
from adapters.guarded import Guarded


def test_every_kind_is_guarded() -> None:
    catalog = Catalog(Egress())
    assert "a2a" in catalog.kinds
    assert all(isinstance(catalog.adapter(kind), Guarded) for kind in catalog.kinds)


def test_an_unknown_kind_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownKind):
        Catalog(Egress()).adapter("telepathy")
