"""Every exception that can reach a door has a row in the table of errors."""

import importlib

from gateway.ingress.http.errors import ERROR_MAPPINGS
from tests.house.errors import INSIDE, exceptions
from tests.house.source import Source, product


def named(path: str) -> type[Exception]:
    module, _, name = path.rpartition(".")
    found: type[Exception] = getattr(importlib.import_module(module), name)
    return found


def test_every_exception_has_a_row_or_stays_inside() -> None:
    reaching = exceptions(list(product())) - set(INSIDE)
    assert len(reaching) > 20
    assert sorted(path for path in reaching if not any(kind in ERROR_MAPPINGS for kind in named(path).__mro__)) == []


def test_nothing_that_stays_inside_is_forgotten_there() -> None:
    assert set(INSIDE) <= exceptions(list(product()))
    assert all(len(reason) > 5 for reason in INSIDE.values())


def test_exceptions_are_found_through_their_parents() -> None:
    first = Source("a/x.py", "class One(Exception): ...\nclass _Own(Exception): ...\nclass Plain: ...\n")
    second = Source("a/y.py", "class Two(x.One): ...\nclass Three(Two, Plain): ...\n")
    assert exceptions([second, first]) == {"a.x.One", "a.y.Two", "a.y.Three"}
