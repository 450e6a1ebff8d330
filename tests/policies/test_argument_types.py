"""The JSON Schema of a tool's arguments as a Cedar type."""

import json
from typing import Any

import cedarpy
import pytest

from policies.argument_types import ArgumentTypes, KnownTool, argument_types
from policies.cedar import schema_text
from policies.policy_schema import known_types, schema_document


def typed(schema: Any, *required: str, **more: Any) -> ArgumentTypes:
    return argument_types({"type": "object", "properties": {"a": schema}, "required": list(required), **more})


LONG = {"type": "Long"}
TEXT = {"type": "String"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "integer", "minimum": 1}, LONG),
        ({"type": "number"}, {"type": "Extension", "name": "decimal"}),
        ({"type": "boolean"}, {"type": "Bool"}),
        ({"enum": ["a", "b"]}, TEXT),
        ({"const": "a"}, TEXT),
        ({"type": ["integer", "null"]}, LONG),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, LONG),
        ({"$ref": "#/$defs/count"}, LONG),
        ({"type": "array", "items": {"type": "string"}}, {"type": "Set", "element": TEXT}),
        (
            {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
            {"type": "Record", "attributes": {"b": LONG | {"required": True}}},
        ),
    ],
)
def test_what_cedar_has_a_type_for_gets_it(schema: Any, expected: Any) -> None:
    types = typed(schema, **{"$defs": {"count": {"type": "integer"}}})
    assert types.record["attributes"] == {"a": expected | {"required": False}}
    assert types.unclear == {}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["integer", "string"]},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"oneOf": []},
        {"allOf": [{"type": "integer"}]},
        {"enum": ["a", 1]},
        {},
        True,
        {"$ref": "#/$defs/nothing"},
        {"$ref": "https://elsewhere.example/schema"},
        {"type": "array"},
        {"type": "array", "items": {"type": ["integer", "string"]}},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "file"},
        {"type": [["string"]]},
        {"type": [{}, "null"]},
        {"type": {"of": "string"}},
        17,
    ],
)
def test_what_cedar_has_no_type_for_is_left_out_and_said_so(schema: Any) -> None:
    types = typed(schema)
    assert not types.has(("a",))
    assert types.doubt(("a",)) and types.doubt(("a", "b"))
    assert not types.doubt(("b",))


def test_what_may_be_null_may_be_absent() -> None:
    """Since a null is left out of what policies see."""
    nullable = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert typed({"type": "integer"}, "a").record["attributes"]["a"]["required"]
    for schema in (nullable, {"type": ["integer", "null"]}, {"$ref": "#/$defs/maybe"}):
        assert not typed(schema, "a", **{"$defs": {"maybe": nullable}}).record["attributes"]["a"]["required"]


def test_members_that_may_come_beside_those_named_are_unclear_and_no_others() -> None:
    open_one = typed({"type": "integer"}, additionalProperties=True)
    assert open_one.has(("a",)) and not open_one.doubt(("a",))
    assert open_one.doubt(("b",))
    assert not typed({"type": "integer"}).doubt(("b",))


@pytest.mark.parametrize(
    "schema", [{}, {"type": "object"}, {"type": "string"}, {"$ref": "#"}, {"$ref": "#/x", "x": {"$ref": "#/x"}}, {"properties": []}]
)
def test_a_tool_that_says_nothing_of_its_arguments_may_have_any(schema: Any) -> None:
    assert argument_types(schema).doubt(("a",))
    assert argument_types(schema).record == {"type": "Record", "attributes": {}}


def test_a_schema_without_end_has_one() -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}}}
    types = argument_types({**schema, "$defs": {}})
    assert (types.has(("n",)) and types.has(("next", "n"))) or types.doubt(("next", "n"))
    wide = argument_types({"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(5000)}})
    assert len(wide.record["attributes"]) == 1000 and wide.doubt(("p4999",))


def test_reserved_names_never_reach_cedar() -> None:
    odd = {name: {"type": "string"} for name in ("__entity", "*", 'q"\n')}
    types = argument_types({"type": "object", "properties": odd})
    assert list(types.record["attributes"]) == ['q"\n']
    cedarpy.Schema.from_json_str(json.dumps(schema_document({'s.t"': types})))


def test_tools_of_one_name_that_differ_between_tenants_are_unclear() -> None:
    integer, text = ({"type": "object", "properties": {"a": {"type": kind}}} for kind in ("integer", "string"))
    one = known_types([KnownTool("a", "s", "t", integer), KnownTool("b", "s", "t", text), KnownTool("a", "s", "u", text)])
    assert one["s.t"].doubt(("a",)) and not one["s.u"].doubt(("a",))


def test_the_schema_is_cedars_with_an_action_for_each_tool_in_the_group_of_all() -> None:
    text = schema_text([KnownTool("default", "inventory", "reserve", {"type": "object", "properties": {"n": {"type": "integer"}}})])
    assert 'action "inventory.reserve" in [Action::"callTool"]' in text
    assert "n?: __cedar::Long" in text
