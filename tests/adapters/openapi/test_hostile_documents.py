"""OpenAPI documents that are small and made to take for ever, or to grow without end."""

from typing import Any

import pytest

from adapters.contract import UpstreamFault
from adapters.openapi.document import URL_MAX, read_api
from adapters.openapi.text import YAML_MAX, parse_document
from tests.fakes.patience import cpu_seconds

SECONDS = 20  # of the processor, on any machine; what is refused would take minutes and more


def document(**more: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "paths": {}, **more}


def shared(schema: Any, paths: int) -> dict[str, Any]:
    """Many operations that all refer to one thing."""
    query = {"name": "a", "in": "query", "schema": {"$ref": "#/components/schemas/c"}}
    return document(paths={f"/{n}": {"get": {"parameters": [query]}} for n in range(paths)}, components={"schemas": {"c": schema}})


def test_the_address_of_a_server_does_not_grow_by_its_variables() -> None:  # attack PRO-04
    variables = {f"a{n}": {"default": f"{{a{n + 1}}}{{a{n + 1}}}"} for n in range(24)}
    assert len(read_api(document(servers=[{"url": "http://h/{a0}", "variables": variables}])).base) <= URL_MAX


def test_a_document_of_references_is_given_up() -> None:  # attack PRO-04
    paths = {f"/{n}": {"$ref": "#/p"} for n in range(50_000)}
    with cpu_seconds(SECONDS), pytest.raises(UpstreamFault, match="too complicated"):
        read_api(document(paths=paths, p={"$ref": "#/" + "a/" * 500_000}))


def test_a_schema_that_all_operations_share_is_read_once() -> None:  # attack PRO-04
    big = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20_000)}}
    with cpu_seconds(SECONDS):
        assert read_api(shared(big, paths=3000)).tools == []  # its definition would be too large
    small = {"anyOf": [{"$ref": "#/components/schemas/c"}, {"type": "string"}]}
    tool = read_api(shared(small, paths=1)).tools[0]
    assert tool["inputSchema"]["$defs"] == {"c": {"anyOf": [{"$ref": "#/$defs/c"}, {"type": "string"}]}}


def test_numbers_in_yaml_are_those_of_json() -> None:  # attack PRO-04
    with cpu_seconds(SECONDS):
        assert isinstance(parse_document(b"a: 1" + b":1" * 200_000)["a"], str)
        assert isinstance(parse_document(b"a: !!int '1" + b":1" * 200_000 + b"'")["a"], str)
    assert parse_document(b"a: 1\nb: -1.5\nc: 1:30.5\nd: 0b1\ne: 010") == {"a": 1, "b": -1.5, "c": "1:30.5", "d": "0b1", "e": "010"}


def test_yaml_that_would_take_long_is_not_read() -> None:  # attack PRO-04
    with pytest.raises(UpstreamFault, match="too large"):
        parse_document(b"a: b\n" + b"#" * YAML_MAX)
