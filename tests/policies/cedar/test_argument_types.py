"""The JSON Schema of a tool's arguments as a Cedar type."""

import json
from typing import Any

import cedarpy
import pytest

from policies.cedar.argument_types import ArgumentTypes, KnownTool, argument_types_of
from policies.cedar.engine import schema_text
from policies.cedar.schema import argument_types_by_action, schema_document


def typed(schema: Any, *required: str, **more: Any) -> ArgumentTypes:
    return argument_types_of({"type": "object", "properties": {"a": schema}, "required": list(required), **more})


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


SEVERAL, COMBINED, MISSING, NONE = "several types", "combination", "not there", "no single type"


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": ["integer", "string"]}, SEVERAL),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, SEVERAL),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, SEVERAL),
        ({"oneOf": []}, SEVERAL),
        ({"anyOf": {"type": "integer"}}, SEVERAL),
        ({"anyOf": [{"type": "null"}]}, SEVERAL),
        ({"type": ["null"]}, SEVERAL),
        ({"enum": ["a", 1]}, SEVERAL),
        ({"enum": "abc"}, SEVERAL),
        ({"const": 1}, SEVERAL),
        ({"allOf": [{"type": "integer"}]}, COMBINED),
        ({"type": "integer", "not": {"const": 1}}, COMBINED),
        ({"type": "integer", "if": {"const": 1}}, COMBINED),
        ({"$dynamicRef": "#x"}, COMBINED),
        ({"anyOf": [{"allOf": []}]}, COMBINED),
        ({"$ref": "#/$defs/nothing"}, MISSING),
        ({"$ref": "#/$defs/count/type/more"}, MISSING),
        ({"$ref": "https://elsewhere.example/schema"}, MISSING),
        ({"$ref": "#"}, MISSING),
        ({"$ref": 3}, MISSING),
        ({"$ref": "#/$defs/itself"}, MISSING),
        (17, MISSING),
        (False, MISSING),
        ({}, NONE),
        (True, NONE),
        ({"type": "file"}, NONE),
        ({"type": [["string"]]}, NONE),
        ({"type": [{}, "null"]}, NONE),
        ({"type": {"of": "string"}}, NONE),
        ({"type": "array"}, "list of what"),
        ({"type": "array", "items": {"type": ["integer", "string"]}}, "list of what"),
        ({"type": "object"}, "any members"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "any members"),
        ({"properties": []}, "any members"),
    ],
)
def test_what_cedar_has_no_type_for_is_left_out_and_said_so(schema: Any, why: str) -> None:
    types = typed(schema, "a", **{"$defs": {"count": {"type": "integer"}, "itself": {"$ref": "#/$defs/itself"}}})
    assert types.record["attributes"] == {} and not types.has_path(("a",))
    assert why in types.why_unclear(("a",)) and why in types.why_unclear(("a", "b"))
    assert types.why_unclear(("b",)) == types.why_unclear(()) == ""


def test_a_choice_of_choices_without_end_has_one() -> None:
    """Of which a server could make as many as it likes."""
    nested: Any = {"type": "string"}
    for _ in range(3000):
        nested = {"anyOf": [nested]}
    mutual = {"x": {"anyOf": [{"$ref": "#/$defs/y"}]}, "y": {"oneOf": [{"$ref": "#/$defs/x"}]}}
    for schema in (nested, {"$ref": "#/$defs/x"}):
        assert "too deeply" in typed(schema, **{"$defs": mutual}).why_unclear(("a",))


NULLABLE = {"anyOf": [{"type": "integer"}, {"type": "null"}]}


@pytest.mark.parametrize(
    "schema",
    [
        NULLABLE,
        {"oneOf": [{"type": "null"}, {"type": "integer"}]},
        {"type": ["integer", "null"]},
        {"$ref": "#/$defs/maybe"},
        {"anyOf": [NULLABLE]},
        {"anyOf": [{"type": ["null", "integer"]}]},
        {"anyOf": [{"$ref": "#/$defs/count"}, {"type": "null"}]},
        {"enum": ["a", None]},
        {"anyOf": [{"enum": [None, "a"]}]},
        {"const": None},
    ],
)
def test_what_may_be_null_may_be_absent(schema: Any) -> None:
    """Since a null is left out of what policies see."""
    types = typed(schema, "a", **{"$defs": {"maybe": NULLABLE, "count": {"type": "integer"}}})
    assert types.has_path(("a",)) and types.record["attributes"]["a"]["required"] is False


@pytest.mark.parametrize(
    "schema", [{"type": "integer"}, {"type": ["integer"]}, {"anyOf": [{"type": "integer"}]}, {"enum": ["a"]}, {"const": "a"}]
)
def test_what_is_required_and_never_null_is_there(schema: Any) -> None:
    assert typed(schema, "a").record["attributes"]["a"]["required"] is True
    assert typed(schema, "b").record["attributes"]["a"]["required"] is False


@pytest.mark.parametrize("required", ["a", ["a", 1], None, {"a": 1}, [["a"]]])
def test_a_list_of_required_members_that_is_none_requires_nothing(required: Any) -> None:
    types = argument_types_of({"type": "object", "properties": {"a": {"type": "integer"}}, "required": required})
    assert types.record["attributes"]["a"]["required"] is False


@pytest.mark.parametrize(("reference", "found"), [("#/$defs/a~1b", LONG), ("#/$defs/c~0d", TEXT), ("#/$defs/~01", LONG)])
def test_a_reference_is_a_json_pointer(reference: str, found: Any) -> None:
    definitions = {"a/b": {"type": "integer"}, "c~d": {"$ref": "#/$defs/e"}, "e": {"type": "string"}, "~1": {"type": "integer"}}
    types = typed({"$ref": reference}, **{"$defs": definitions})
    assert types.record["attributes"]["a"] == found | {"required": False}


def test_members_that_may_come_beside_those_named_are_unclear_and_no_others() -> None:
    open_one = typed({"type": "integer"}, additionalProperties=True)
    assert open_one.has_path(("a",)) and not open_one.why_unclear(("a",))
    assert open_one.why_unclear(("b",))
    assert not typed({"type": "integer"}).why_unclear(("b",))
    assert "other members" in open_one.why_unclear(("b", "c")) and open_one.why_unclear(("a", "b")) == ""


@pytest.mark.parametrize(
    ("more", "open_to_others"),
    [
        ({"additionalProperties": False}, False),
        ({"additionalProperties": None}, False),
        ({"patternProperties": {}}, False),
        ({"additionalProperties": {"type": "string"}}, True),
        ({"additionalProperties": {}}, True),
        ({"patternProperties": {"^x": {"type": "string"}}}, True),
        ({"additionalProperties": False, "patternProperties": {"^x": {}}}, True),
    ],
)
def test_a_schema_says_whether_there_may_be_others(more: Any, open_to_others: bool) -> None:
    assert bool(typed({"type": "integer"}, **more).why_unclear(("b",))) is open_to_others
    inner = typed({"type": "object", "properties": {"b": {"type": "integer"}}, **more})
    assert bool(inner.why_unclear(("a", "c"))) is open_to_others and not inner.why_unclear(("a", "b")) and not inner.why_unclear(("c",))


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({}, NONE),
        ({"type": "object"}, "any members"),
        ({"properties": []}, "any members"),
        ({"type": "string"}, "something else than an object"),
        ({"type": "array", "items": {"type": "string"}}, "something else than an object"),
        ({"$ref": "#"}, MISSING),
        ({"$ref": "#/x", "x": {"$ref": "#/x"}}, MISSING),
    ],
)
def test_a_tool_that_says_nothing_of_its_arguments_may_have_any(schema: Any, why: str) -> None:
    types = argument_types_of(schema)
    assert why in types.why_unclear(("a",)) and why in types.why_unclear(())
    assert types.record == {"type": "Record", "attributes": {}}
    assert types.has_path(()) and not types.has_path(("a",))


def test_arguments_without_a_type_are_an_object_where_they_have_properties() -> None:
    types = argument_types_of({"properties": {"a": {"properties": {"b": {"type": "integer"}}}}})
    assert types.has_path(("a", "b")) and types.unclear == {}


def test_a_schema_is_read_to_a_depth_of_eight() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(9):
        schema = {"type": "object", "properties": {"a": schema}}
    types = argument_types_of(schema)
    assert types.has_path(("a",) * 8) and types.why_unclear(("a",) * 8) == ""
    assert not types.has_path(("a",) * 9) and "too deeply" in types.why_unclear(("a",) * 9)


def test_a_list_is_as_deep_as_what_is_in_it() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(8):
        schema = {"type": "array", "items": schema}
    assert "list of what" in typed(schema).why_unclear(("a",)) and typed(schema["items"]).has_path(("a",))


def test_a_tool_has_so_many_arguments_and_no_more() -> None:
    wide = argument_types_of({"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(5000)}})
    assert len(wide.record["attributes"]) == 1000
    assert wide.has_path(("p999",)) and not wide.why_unclear(("p999",))
    assert not wide.has_path(("p1000",)) and "too many" in wide.why_unclear(("p1000",)) and "too many" in wide.why_unclear(("p4999",))
    inner = {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(999)}}
    split = typed(inner, properties={"a": inner, "b": {"type": "integer"}})
    assert split.has_path(("a", "p998")) and "too many" in split.why_unclear(("b",))


def test_reserved_names_never_reach_cedar() -> None:
    odd = {name: {"type": "string"} for name in ("__entity", "__extn", "__expr", "*", 'q"\n')}
    types = argument_types_of({"type": "object", "properties": odd})
    assert list(types.record["attributes"]) == ['q"\n']
    assert all("reserved" in types.why_unclear((name,)) for name in ("__entity", "__extn", "__expr", "*"))
    cedarpy.Schema.from_json_str(json.dumps(schema_document({'s.t"': types})))


def test_whatever_else_a_list_has_is_not_asked_of_its_members() -> None:
    types = typed({"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer"}}}})
    element = {"type": "Record", "attributes": {"b": LONG | {"required": False}}}
    assert types.record["attributes"]["a"] == {"type": "Set", "element": element, "required": False}
    assert types.has_path(("a",)) and not types.has_path(("a", "b")) and types.unclear == {}
    assert set(typed({"type": "array", "items": {"type": "object"}}).unclear) == {("a",), ("a", "[]")}


def test_arguments_have_names_that_can_be_read() -> None:
    inner = {"type": "object", "properties": {"c": {"type": "integer"}, "d": {"type": "object", "properties": {"e": {"type": "string"}}}}}
    assert list(typed({}, properties={"a": {"type": "string"}, "b": inner}).path_names()) == ["a", "b", "b.c", "b.d", "b.d.e"]


def test_a_tool_is_an_action_by_its_server_and_its_name() -> None:
    assert KnownTool("acme", "inventory", "admin.drop", {}).action == "inventory.admin.drop"


def test_tools_of_one_name_that_differ_between_tenants_are_unclear() -> None:
    integer, text = ({"type": "object", "properties": {"a": {"type": kind}}} for kind in ("integer", "string"))
    one = argument_types_by_action([KnownTool("a", "s", "t", integer), KnownTool("b", "s", "t", text), KnownTool("a", "s", "u", text)])
    assert "differ between tenants" in one["s.t"].why_unclear(("a",)) and not one["s.t"].has_path(("a",))
    assert one["s.t"].record == {"type": "Record", "attributes": {}}
    assert not one["s.u"].why_unclear(("a",)) and list(one) == ["s.t", "s.u"]
    same = argument_types_by_action([KnownTool(tenant, "s", "t", text) for tenant in "abc"])
    assert same == {"s.t": argument_types_of(text)}


def test_the_schema_is_cedars_with_an_action_for_each_tool_in_the_group_of_all() -> None:
    text = schema_text([KnownTool("default", "inventory", "reserve", {"type": "object", "properties": {"n": {"type": "integer"}}})])
    assert 'action "inventory.reserve" in [Action::"callTool"]' in text
    assert "n?: __cedar::Long" in text
