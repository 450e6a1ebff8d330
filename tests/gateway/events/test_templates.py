"""Templates take values of an event as data."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.templates import TEXT_MAX, ValueMissing, render, render_text

EVENT = {"id": "e1", "type": "shop.paid", "data": {"order": 7, "who": {"name": "Ann"}, "lines": [{"sku": "a"}], "note": "{id}"}}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{data.order}", 7),
        ("order {data.order} of {data.who.name}", "order 7 of Ann"),
        ("{data.who}", {"name": "Ann"}),
        ("who: {data.who}", 'who: {"name":"Ann"}'),
        ("{data.lines.0.sku}", "a"),
        ({"a": ["{id}", 3], "b": {"c": "{type}"}}, {"a": ["e1", 3], "b": {"c": "shop.paid"}}),
        ("a {JSON} { id }", "a {JSON} { id }"),
    ],
)
def test_places_become_the_values_of_the_event(template: Any, value: Any) -> None:
    assert render(template, EVENT) == value


def test_a_value_is_no_template() -> None:
    assert render("{data.note}", EVENT) == "{id}" and render_text("x {data.note}", EVENT) == "x {id}"


@given(st.text(max_size=60))
def test_no_text_of_an_event_reads_another_value(text: str) -> None:
    assert render_text("<{data.x}>", {"id": "secret-id", "data": {"x": text}}) == f"<{text}>"


@pytest.mark.parametrize("template", ["{data.missing}", "{data.lines.1}", "{data.lines.x}", "{subject}", "{data.order.x}"])
def test_a_missing_value_is_named(template: str) -> None:
    with pytest.raises(ValueMissing, match="has no"):
        render(template, EVENT)


def test_a_text_that_would_be_too_long_is_refused() -> None:
    with pytest.raises(ValueMissing, match=str(TEXT_MAX)):
        render_text("{data} {data}", {"data": "x" * TEXT_MAX})
