"""Whether a value has the types that a schema declares, along a path or as a whole."""

from typing import Any

import pytest

from policies.cedar.json_types import DeclaredTypes, Mismatch

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
NODE = {"$defs": {"n": {"type": "object", "properties": {"v": NUMBER, "next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}


@pytest.mark.parametrize(
    ("schema", "value", "path"),
    [
        ({"properties": {"a": NUMBER}}, {"a": "13"}, ("a",)),
        ({"properties": {"a": TEXT}}, {"a": ["x"]}, ("a",)),
        ({"type": "array", "items": TEXT}, ["x", 1], ()),
        ({"prefixItems": [TEXT], "items": NUMBER}, ["x", "y"], ()),
        ({"additionalProperties": NUMBER}, {"a": "x"}, ("a",)),
        (NODE, {"next": {"next": {"v": "x"}}}, ("next", "next", "v")),
        ({"allOf": [{"properties": {"a": NUMBER}}, {"required": ["a"]}]}, {"a": "x"}, ("a",)),
        ({"anyOf": [TEXT, {"type": "null"}]}, 1, ()),
        ({"enum": ["a", "b"]}, 1, ()),
        ({"const": 1}, "1", ()),
        (NUMBER, True, ()),
        (False, 1, ()),
    ],
)
def test_the_first_value_of_another_type_is_found(schema: Any, value: Any, path: tuple[str, ...]) -> None:
    found = DeclaredTypes(schema).mismatch(value)
    assert found is not None and found.path == path and found.problem


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (NUMBER, 4.0),
        ({"type": "number"}, 4),
        ({"type": ["string", "integer"]}, 4),
        ({"oneOf": [TEXT, NUMBER]}, 4),
        ({"properties": {"a": TEXT}}, {"a": None}),
        ({"properties": {"a": {}}}, {"a": [{}], "b": 1}),
        ({"$ref": "https://elsewhere.example/s"}, {"a": 1}),
        (True, [1]),
        (NODE, {"next": {"v": 1}}),
    ],
)
def test_what_fits_or_is_not_declared_is_no_mismatch(schema: Any, value: Any) -> None:
    assert DeclaredTypes(schema).mismatch(value) is None


def test_only_what_lies_on_the_path_is_looked_at() -> None:
    types = DeclaredTypes({"properties": {"a": {"properties": {"b": TEXT, "c": TEXT}}, "d": TEXT}})
    value = {"a": {"b": "x", "c": 1}, "d": 1}
    assert types.mismatch(value, ("a", "b")) is None
    assert types.mismatch(value, ("a",)) == Mismatch(("a", "c"), "expected string, got integer")


def test_schemas_that_take_for_ever_count_as_a_mismatch() -> None:  # attack PRO-12
    doubling = {"$defs": {f"n{i}": {"anyOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(40)} | {"n40": TEXT}, "$ref": "#/$defs/n0"}
    looping = {"$defs": {"x": {"$ref": "#/$defs/x"}}, "$ref": "#/$defs/x"}
    for schema in (doubling, looping):
        found = DeclaredTypes(schema).mismatch(1)
        assert found is not None and "too complicated" in found.problem
        assert DeclaredTypes(schema).members(schema) == {}
