"""Schemas of OpenAPI documents as JSON Schema 2020-12: nothing is lost that a caller has to say."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from adapters.openapi.document import OPERATION_KEY, read_api

WORDS = ["example", "xml", "nullable", "discriminator", "externalDocs", "x-tag", "$ref", "properties", "items", "enum", "type"]


def schema_of(schema: Any, version: str = "3.1.0", **components: Any) -> dict[str, Any]:
    """The input schema of the one operation of a document, whose body has this schema."""
    operation = {"operationId": "op", "requestBody": {"content": {"application/json": {"schema": schema}}}}
    document = {"openapi": version, "paths": {"/x": {"post": operation}}, "components": {"schemas": components}}
    (tool,) = read_api(document).tools
    Draft202012Validator.check_schema(tool["inputSchema"])
    return dict(tool["inputSchema"])


def body_of(schema: Any, version: str = "3.1.0") -> Any:
    return schema_of(schema, version)["properties"]["body"]


@pytest.mark.parametrize("word", WORDS)
def test_a_property_may_have_the_name_of_a_keyword(word: str) -> None:
    given = {"type": "object", "properties": {word: {"type": "string", "example": "a"}}, "required": [word]}
    assert body_of(given) == {"type": "object", "properties": {word: {"type": "string"}}, "required": [word]}


@pytest.mark.parametrize("word", WORDS)
def test_a_parameter_may_have_the_name_of_a_keyword(word: str) -> None:
    operation = {"operationId": "op", "parameters": [{"name": word, "in": "query", "schema": {"type": "string"}}]}
    (tool,) = read_api({"openapi": "3.0.3", "paths": {"/x": {"get": operation}}}).tools
    assert tool["inputSchema"]["properties"] == {word: {"type": "string"}}


@pytest.mark.parametrize("keyword", ["default", "const", "examples", "enum"])
def test_data_is_shown_as_it_was_written(keyword: str) -> None:
    data: Any = {"example": 1, "x-a": 2, "nullable": True, "$ref": "https://elsewhere.example/s.json"}
    given = {keyword: [data] if keyword in ("examples", "enum") else data}
    assert body_of(given) == given


def test_schemas_are_found_wherever_a_keyword_has_one() -> None:
    inner = {"type": "string", "nullable": True, "x-a": 1}
    modern = {"type": ["string", "null"]}
    single = dict.fromkeys(("not", "if", "then", "else", "contains", "propertyNames", "items", "additionalProperties"), inner)
    named = {name: {"example": inner} for name in ("properties", "patternProperties", "$defs", "dependentSchemas")}
    several = {name: [inner] for name in ("allOf", "anyOf", "oneOf", "prefixItems")}
    expected = dict.fromkeys(single, modern) | {name: {"example": modern} for name in named} | {name: [modern] for name in several}
    assert body_of({**single, **named, **several}) == expected


def test_exclusive_limits_of_openapi_3_0_become_numbers() -> None:
    given = {"type": "integer", "minimum": 1, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False}
    assert body_of(given, "3.0.3") == {"type": "integer", "exclusiveMinimum": 1, "maximum": 9}


@pytest.mark.parametrize(("version", "kept"), [("3.0.3", {}), ("3.1.0", {"description": "mine"})])
def test_what_stands_beside_a_reference_counts_since_3_1(version: str, kept: dict[str, str]) -> None:
    made = schema_of({"$ref": "#/components/schemas/Node", "description": "mine", "x-a": 1}, version, Node={"type": "string"})
    assert made["properties"]["body"] == {"$ref": "#/$defs/Node", **kept}


def test_a_reference_into_a_component_leads_to_it() -> None:
    made = schema_of({"$ref": "#/components/schemas/A/properties/b~1c%20d"}, A={"properties": {"b/c d": {"type": "integer"}}})
    assert not Draft202012Validator(made).is_valid({"body": "text"}) and Draft202012Validator(made).is_valid({"body": 1})


def test_an_operation_that_is_left_out_says_why() -> None:
    parameters = [{"name": "Authorization", "in": "cookie", "schema": {}}, {"name": "Host", "in": "header", "required": True, "schema": {}}]
    paths = {
        "/a": {"get": {"parameters": parameters}},
        "/b": {"post": {"requestBody": {"required": True, "content": {"multipart/mixed": {}}}}},
        "/c": {"get": {"parameters": [{"name": "q", "in": "query", "schema": {"enum": ["x" * 70_000]}}]}},
        "/d": {"get": {"parameters": [{"name": "q", "in": "query", "schema": {"$ref": "#/paths/~1a"}}]}},
        "/e": {"get": {}},
    }
    api = read_api({"openapi": "3.1.0", "paths": paths})
    assert [name for name, _ in api.left_out] == ["GET /a", "POST /b", "GET /c", "GET /d"]
    reasons = [why for _, why in api.left_out]
    assert [word in why for why, word in zip(reasons, ("Host", "multipart/mixed", "larger", "has a reference"), strict=True)] == [True] * 4
    assert [tool["_meta"][OPERATION_KEY]["path"] for tool in api.tools] == ["/e"]
