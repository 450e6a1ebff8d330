"""Forms made from JSON Schemas: what they show, and which values they make."""

from typing import Any

import pytest

from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.schema_forms import FIELDS_MAX, fields_of, read_value


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_objects_within_objects_keep_their_shape() -> None:
    schema = object_of(to=object_of(city={"type": "string"}, at=object_of(n={"type": "integer"})), plain={"type": "string"})
    (to, _) = fields_of(schema)
    assert (to.kind, [member.name for member in to.members]) == ("group", ["to.city", "to.at"])
    form = {"value.to.city": "Bern", "value.to.at.n": "7", "value.plain": ""}
    assert read_value(schema, form) == {"to": {"city": "Bern", "at": {"n": 7}}}
    assert read_value(schema, {}) == {}


def test_a_member_with_a_dot_in_its_name_is_not_one_of_another_object() -> None:
    schema = object_of(**{"a.b": {"type": "string"}, "a": object_of(b={"type": "string"})})
    assert read_value(schema, {"value.a%2Eb": "one", "value.a.b": "two"}) == {"a.b": "one", "a": {"b": "two"}}


def test_lists_are_made_of_lines_and_of_checked_options() -> None:
    schema = object_of(
        names={"type": "array", "items": {"type": "string"}},
        sizes={"type": "array", "items": {"type": "number"}},
        tags={"type": "array", "items": {"enum": ["a", 2]}},
        rows={"type": "array", "items": {"type": "object"}},
    )
    assert [each.kind for each in fields_of(schema)] == ["list", "list", "choices", "json"]
    form = {"value.names": "x\r\n\r\ny z", "value.sizes": "1\n2.5", "value.tags.1": "true", "value.rows": '[{"a": 1}]'}
    assert read_value(schema, form) == {"names": ["x", "y z"], "sizes": [1, 2.5], "tags": [2], "rows": [{"a": 1}]}
    with pytest.raises(FormRefused, match='"sizes" is not a number'):
        read_value(schema, {"value.sizes": "1\nmany"})


def test_defaults_and_given_values_are_what_a_form_shows_first() -> None:
    schema = object_of(
        n={"type": "integer", "default": 3}, on={"type": "boolean", "default": True}, pick={"enum": ["a", "b"], "default": "b"}
    )
    assert [each.initial for each in fields_of(schema)] == ["3", "true", '"b"']
    assert [each.initial for each in fields_of(schema, {"n": 5, "on": False, "pick": "a"})] == ["5", "false", '"a"']


def test_references_within_the_schema_are_followed_and_never_for_ever() -> None:
    schema = {
        **object_of(who={"$ref": "#/$defs/person"}, me={"$ref": "#/properties/me"}),
        "$defs": {"person": object_of(name={"type": "string"})},
    }
    who, me = fields_of(schema)
    assert (who.kind, who.members[0].name, me.kind) == ("group", "who.name", "json")
    endless = {**object_of(node={"$ref": "#/$defs/n"}), "$defs": {"n": object_of(next={"$ref": "#/$defs/n"})}}
    assert fields_of(endless)[0].kind == "group"


ODD: list[Any] = [
    None,
    True,
    {"oneOf": [{}, {}], "properties": {"a": {}}},
    object_of(**{f"m{number}": {"type": "string"} for number in range(FIELDS_MAX + 1)}),
    {"type": "object", "properties": []},
    {"type": "object", "patternProperties": {".": {}}, "properties": {"a": {}}},
]


@pytest.mark.parametrize("schema", ODD)
def test_an_odd_schema_is_answered_in_json(schema: Any) -> None:
    assert fields_of(schema) == ()
    assert read_value(schema, {"json": '{"a": [1]}'}) == {"a": [1]}


@pytest.mark.parametrize("text", ["{", "NaN", "[" * 100_000, ""])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(FormRefused):
        read_value({}, {"json": text})


def test_a_nullable_text_is_a_text_and_a_choice_of_types_is_json() -> None:
    schema = object_of(a={"type": ["string", "null"]}, b={"type": ["string", "integer"]}, c={"type": "number"})
    assert [each.kind for each in fields_of(schema)] == ["text", "json", "number"]
    with pytest.raises(FormRefused):
        read_value(schema, {"value.c": "Infinity"})


def test_members_that_multiply_by_references_make_no_form() -> None:
    """A schema of a few kilobytes would have a hundred million fields."""
    wide = {"type": "object", "properties": {f"m{number}": {"$ref": "#/$defs/wide"} for number in range(FIELDS_MAX)}}
    assert fields_of({**wide, "$defs": {"wide": wide}}) == ()


def test_the_widest_form_of_the_deepest_objects_is_shown() -> None:
    deepest = object_of(a=object_of(b=object_of(c=object_of(d={"type": "string"}))))["properties"]["a"]
    assert len(fields_of(object_of(**{f"m{number}": deepest for number in range(FIELDS_MAX)}))) == FIELDS_MAX


def test_long_options_are_written_as_they_are_and_not_listed() -> None:
    (found,) = fields_of(object_of(pick={"type": "string", "enum": ["a", "b" * 5000]}))
    assert (found.kind, found.options) == ("text", ())
