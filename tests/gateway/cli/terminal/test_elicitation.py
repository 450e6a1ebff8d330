"""Forms at the terminal: what is shown, what is taken for an answer, and what is asked again."""

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.cli.terminal.elicitation import Terminal, current_terminal, parse_value

SIZES = {"type": "string", "oneOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]}
EXTRAS = {"type": "array", "minItems": 1, "maxItems": 2, "items": {"enum": ["bow", "card", "box"]}}


class Person:
    """Types the given lines, and then ends the input."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.shown = ""
        self.terminal = Terminal(self._see, lambda: self.lines.pop(0) + "\n" if self.lines else "")

    def _see(self, text: str, ends: bool) -> None:
        self.shown += text + ("\n" if ends else "")

    def form(self, properties: dict[str, Any], required: Sequence[str] = ()) -> Any:
        return self.terminal.ask_form("shop", "What?", {"type": "object", "properties": properties, "required": list(required)})


def test_every_kind_of_field_is_asked_for_and_comes_as_its_type() -> None:
    person = Person("2", "Large", "bow, 3", "7", "1.5", "yes", "  Ada ")
    fields = {
        "plain": {"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]},
        "size": SIZES,
        "extras": EXTRAS,
        "count": {"type": "integer", "minimum": 1},
        "weight": {"type": "number"},
        "gift": {"type": "boolean"},
        "name": {"type": "string", "title": "Your name", "description": "as on the parcel"},
    }
    given = {"plain": "b", "size": "l", "extras": ["bow", "box"], "count": 7, "weight": 1.5, "gift": True, "name": "Ada"}
    assert person.form(fields) == ("accept", given)
    for text in ("shop asks: What?", "2  b  Second", "1  s  Small", "Your name: as on the parcel", "y/n"):
        assert text in person.shown


@pytest.mark.parametrize(
    ("field", "text", "told"),
    [
        ({"type": "integer"}, "1.5", "whole number"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "10", "at least 1 and at most 9"),
        ({"type": "number"}, "nan", "number"),
        ({"type": "number"}, "inf", "not infinity"),
        ({"type": "boolean"}, "maybe", "y or n"),
        (SIZES, "3", "choose one of"),
        (SIZES, "", "choose one of"),
        (EXTRAS, "", "1 to 2"),
        (EXTRAS, "bow,card,box", "1 to 2"),
        ({"type": "string", "minLength": 2}, "a", "at least 2"),
        ({"type": "string", "maxLength": 2}, "abc", "at most 2"),
        ({"type": "string"}, "", "one character or more"),
    ],
)
def test_what_does_not_fit_is_said_and_asked_again(field: dict[str, Any], text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_value(text, field)
    person = Person(text)
    assert person.form({"x": field}, ["x"]) == ("decline", None)
    assert told in person.shown


def test_an_empty_line_takes_the_default_or_leaves_out_what_is_not_needed() -> None:
    fields = {"count": {"type": "integer", "default": 2}, "note": {"type": "string"}, "name": {"type": "string"}}
    person = Person("", "", "", "Ada")
    assert person.form(fields, ["name"]) == ("accept", {"count": 2, "name": "Ada"})
    assert "empty: 2" in person.shown and "empty: leave out" in person.shown


@pytest.mark.parametrize(("line", "action"), [("y", "accept"), ("", "decline"), ("n", "decline")])
def test_a_form_without_any_answer_is_agreed_to_by_itself(line: str, action: str) -> None:
    assert Person(line).form({})[0] == action
    assert Person("", line).form({"note": {"type": "string"}})[0] == action


def test_nobody_is_asked_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with (tmp_path / "none").open("w+") as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert current_terminal() is None
