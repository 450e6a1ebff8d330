"""Arguments of an HTTP operation have the types that its document declares: nothing else is written into the request."""

from typing import Any

import pytest

from adapters.openapi.document import OPERATION_KEY, operation_of, read_api
from adapters.openapi.encoding import HttpCall, encode_call
from adapters.openapi.multipart import BadArguments

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
FORM = {"type": "object", "properties": {"to": TEXT, "amount": NUMBER, "tags": {"type": "array", "items": TEXT}}}
FILES = {"type": "object", "properties": {"title": TEXT, "file": {"type": "string", "format": "binary"}}}
URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


def tool(schema: Any, place: str = "query", body: Any = None, media: str = URLENCODED, **more: Any) -> dict[str, Any]:
    """One operation with the parameter `a` of this schema and the text parameter `user` beside it."""
    given = [{"name": "a", "in": place, "schema": schema, **more}, {"name": "user", "in": "query", "schema": TEXT}]
    operation = {"operationId": "op", "parameters": given} | ({"requestBody": {"content": {media: {"schema": body}}}} if body else {})
    path = "/pay/{a}" if place == "path" else "/pay"
    components = {"schemas": {"Text": TEXT}}
    (found,) = read_api({"openapi": "3.0.3", "paths": {path: {"post": operation}}, "components": components}).tools
    return dict(found)


def sent(schema: Any, value: Any, place: str = "query", **more: Any) -> HttpCall:
    return encode_call(operation_of(tool(schema, place, **more)), {"a": value})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (TEXT, ["vault"]),
        (TEXT, {"user": "bob"}),
        (TEXT, 7),
        (TEXT, True),
        ({"$ref": "#/components/schemas/Text"}, ["vault"]),
        ({"enum": ["x", "y"]}, ["x"]),
        (NUMBER, "13"),
        (NUMBER, 1.5),
        (NUMBER, True),
        ({"type": "number"}, "1.5"),
        ({"type": "boolean"}, "true"),
        ({"type": "array", "items": TEXT}, "x"),
        ({"type": "array", "items": TEXT}, [["x"]]),
        ({"type": "array", "items": TEXT}, [None]),
        ({"type": "array"}, [{"x": 1}]),
        ({"oneOf": [TEXT, NUMBER]}, ["x"]),
        ({"type": "string", "nullable": True}, ["x"]),
        ({}, ["x"]),
        ({}, {"x": 1}),
        ({"description": "anything"}, ["x"]),
    ],
)
@pytest.mark.parametrize("place", ["path", "query", "header", "cookie"])
def test_a_value_of_another_type_is_refused_by_name(schema: Any, value: Any, place: str) -> None:  # attack PRO-07
    with pytest.raises(BadArguments, match=r"the argument 'a' has the wrong type: expected .*, got "):
        sent(schema, value, place)


@pytest.mark.parametrize(
    ("schema", "value", "query"),
    [
        ({}, "x", "a=x"),
        ({}, 7, "a=7"),
        (NUMBER, 4.0, "a=4.0"),
        ({"type": "number"}, 4, "a=4"),
        ({"type": "string", "nullable": True}, "x", "a=x"),
        ({"oneOf": [TEXT, {"type": "array", "items": TEXT}]}, ["x", "y"], "a=x&a=y"),
        ({"allOf": [{"$ref": "#/components/schemas/Text"}, {"description": "x"}]}, "x", "a=x"),
        ({"type": "array"}, ["x", 1], "a=x&a=1"),
        ({"type": "object", "properties": {"b": TEXT, "c": NUMBER}}, {"b": "x", "c": 1}, "b=x&c=1"),
    ],
)
def test_a_value_of_its_type_is_sent(schema: Any, value: Any, query: str) -> None:
    assert sent(schema, value).url == f"/pay?{query}"


def test_null_is_left_out_where_it_is_not_declared() -> None:
    assert sent(TEXT, None).url == "/pay"


@pytest.mark.parametrize(
    ("schema", "place", "more"),
    [
        ({"type": "object"}, "query", {}),
        ({"type": "object", "additionalProperties": TEXT}, "query", {}),
        ({"type": "object", "properties": {"b": TEXT}}, "query", {}),
        ({"type": "object", "properties": {"b": TEXT, "user": TEXT}}, "query", {}),  # which is another parameter
        ({"type": "object", "properties": {"b": TEXT}}, "cookie", {}),
        ({"type": "object", "properties": {"b": TEXT}}, "path", {"style": "matrix", "explode": True}),
        ({"type": "object", "properties": {"b": TEXT}}, "query", {"style": "deepObject"}),
    ],
)
def test_an_object_becomes_no_parameter_that_the_document_does_not_name(schema: Any, place: str, more: Any) -> None:  # attack PRO-07
    with pytest.raises(BadArguments, match="'a' must not have the member 'user'"):
        sent(schema, {"user": "mallory"}, place, **more)


def test_members_of_a_deep_object_stay_within_its_brackets() -> None:
    free = {"type": "object", "additionalProperties": TEXT}
    assert sent(free, {"x": "1"}, style="deepObject").url == "/pay?a%5Bx%5D=1"
    with pytest.raises(BadArguments, match="must not have the member"):
        sent(free, {"x][y": "1"}, style="deepObject")


@pytest.mark.parametrize("media", [URLENCODED, MULTIPART])
@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"to": ["alice"]}, "body.to"),
        ({"to": {"x": 1}}, "body.to"),
        ({"amount": "5000"}, "body.amount"),
        ({"tags": "x"}, "body.tags"),
        ({"role": "admin"}, "role"),
        (["to"], "body"),
        ("to=alice", "body"),
    ],
)
def test_members_of_a_form_have_their_types(media: str, body: Any, named: str) -> None:  # attack PRO-07
    with pytest.raises(BadArguments, match=f"'{named}'"):
        encode_call(operation_of(tool(TEXT, body=FORM, media=media)), {"body": body})


def test_a_form_without_named_members_has_plain_ones() -> None:
    operation = operation_of(tool(TEXT, body={"type": "object"}))
    assert encode_call(operation, {"body": {"to": "alice", "n": 1, "gone": None}}).body == b"to=alice&n=1"
    with pytest.raises(BadArguments, match=r"'body\.to' has the wrong type: expected a plain value, got array"):
        encode_call(operation, {"body": {"to": ["alice"]}})


def test_a_file_may_be_given_as_its_text_but_not_as_several() -> None:
    operation = operation_of(tool(TEXT, body=FILES, media=MULTIPART))
    assert b"hello" in (encode_call(operation, {"body": {"title": "x", "file": "hello"}}).body or b"")
    with pytest.raises(BadArguments, match=r"'body\.file' has the wrong type"):
        encode_call(operation, {"body": {"file": ["hello"]}})


def test_what_is_pinned_of_an_operation_does_not_repeat_its_schema() -> None:
    assert "schema" not in tool(TEXT)["_meta"][OPERATION_KEY] and operation_of(tool(TEXT)).schema == tool(TEXT)["inputSchema"]
