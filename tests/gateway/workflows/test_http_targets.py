"""`call: http` reaches only operations of registered HTTP APIs, found by method and address."""

from dataclasses import replace
from typing import Any

import pytest

from adapters.openapi.document import read_api
from gateway.workflows.engine.http_targets import NoOperation, arguments_of, find_target
from gateway.workflows.publishing.needs import BadTarget, Need, needs_of
from registry.cards.card import Family, McpTool, Registration, RegistrationStatus
from tests.gateway.workflows.documents import document_of

BASE = "https://shop.example/api"
API = {
    "openapi": "3.1.0",
    "paths": {
        "/stock/{sku}": {
            "get": {
                "operationId": "stock",
                "parameters": [
                    {"name": "sku", "in": "path", "schema": {"type": "integer"}},
                    {"name": "where", "in": "query", "schema": {"type": "string"}},
                    {"name": "X-Tag", "in": "header", "schema": {"type": "string"}},
                ],
            }
        },
        "/stock/all": {"get": {"operationId": "everything", "parameters": [{"name": "page", "in": "query", "required": True}]}},
        "/orders": {"post": {"operationId": "order", "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}},
    },
}


def server(name: str = "shop", url: str = BASE, kind: str = "openapi") -> Registration:
    tools = tuple(McpTool(tool["name"], tool) for tool in read_api(API).tools)
    return Registration(
        "default", name, Family.SERVER, kind, RegistrationStatus.ACTIVE, url, "", ("*",), "none", {}, {}, "", None, "", tools, "", 0, 0
    )


@pytest.mark.parametrize(
    ("method", "uri", "tool"),
    [
        ("get", f"{BASE}/stock/{{sku}}", "stock"),
        ("GET", "HTTPS://SHOP.example:443/api/stock/7?where={place}", "stock"),
        ("get", f"{BASE}/stock/all", "everything"),
        ("get", "interlock://tools/shop/stock/{sku}", "stock"),
        ("post", f"{BASE}/orders", "order"),
    ],
)
def test_an_address_is_an_operation(method: str, uri: str, tool: str) -> None:
    found = find_target([server("other", "https://other.example"), server()], method, uri)
    assert (found.server, found.tool) == ("shop", tool)


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        ("delete", f"{BASE}/stock/7"),
        ("get", f"{BASE}/nothing"),
        ("get", f"{BASE}/stock/7/more"),
        ("get", f"{BASE}/stock/"),
        ("get", f"{BASE}x/stock/7"),
        ("get", "http://shop.example/api/stock/7"),
        ("get", "https://shop.example:444/api/stock/7"),
        ("get", "https://shop.example.evil/api/stock/7"),
        ("get", "https://evil/@shop.example/api/stock/7"),
        ("get", "https://[/stock/7"),
        ("get", f"{BASE}/stock/7?unknown=1"),
        ("get", "interlock://tools/shop"),
        ("get", "interlock://tools/absent/stock/7"),
        ("get", "${ .where }"),
    ],
)
def test_another_address_is_none(method: str, uri: str) -> None:
    with pytest.raises(NoOperation):
        find_target([server()], method, uri)


def test_a_server_of_another_kind_has_no_operations() -> None:
    with pytest.raises(NoOperation):
        find_target([server(kind="mcp")], "get", f"{BASE}/stock/7")


def test_the_parts_of_a_request_are_arguments() -> None:
    target = find_target([server()], "get", f"{BASE}/stock/{{sku}}?where=in%20{{place}}")
    given: dict[str, Any] = {"headers": {"x-tag": "t"}, "query": None, "body": None}
    assert arguments_of(target, given, {"sku": 7, "place": "Berlin"}) == {"sku": 7, "where": "in Berlin", "X-Tag": "t"}
    literal = find_target([server()], "get", f"{BASE}/stock/8")
    assert arguments_of(literal, {"query": {"where": "x"}}, {}) == {"sku": 8, "where": "x"}
    order = find_target([server()], "post", f"{BASE}/orders")
    assert arguments_of(order, {"body": {"sku": 1}}, {}) == {"body": {"sku": 1}}


def test_a_value_with_a_slash_stays_in_its_step() -> None:
    target = find_target([server()], "get", f"{BASE}/stock/{{sku}}")
    assert arguments_of(target, {}, {"sku": "../orders"}) == {"sku": "../orders"}  # the tool escapes it
    assert target.tool == "stock"


@pytest.mark.parametrize("given", [{"query": {"x": 1}}, {"headers": {"Authorization": "x"}}, {"body": {}}])
def test_what_the_operation_does_not_know_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(NoOperation, match="does not know"):
        arguments_of(find_target([server()], "get", f"{BASE}/stock/7"), given, {})


def test_a_member_that_the_input_lacks_is_refused() -> None:
    with pytest.raises(NoOperation, match="`sku`, which the input lacks"):
        arguments_of(find_target([server()], "get", f"{BASE}/stock/{{sku}}"), {}, {})


@pytest.mark.parametrize(
    ("request_", "need"),
    [
        ("{method: get, endpoint: 'interlock://tools/shop/stock/{sku}'}", Need("/do/0/a/with/endpoint", "shop", "stock")),
        ("{method: get, endpoint: {uri: 'https://shop.example/api/stock/1'}}", Need("/do/0/a/with/endpoint", "shop", "stock")),
        (
            "{method: get, endpoint: 'interlock://tools/shop/stock/all', query: '${ .q }'}",
            Need("/do/0/a/with/endpoint", "shop", "everything"),
        ),
    ],
)
def test_the_upload_finds_the_tool(request_: str, need: Need) -> None:
    assert list(needs_of(document_of(f"- a: {{call: http, with: {request_}}}"), [server()])) == [need]


@pytest.mark.parametrize(
    ("request_", "path", "reason"),
    [
        ("{method: get, endpoint: 'https://evil.example/x'}", "/do/0/a/with/endpoint", "no operation of a registered HTTP API"),
        ("{method: get, endpoint: '${ .url }'}", "/do/0/a/with/endpoint", "only known when the step runs"),
        ("{method: get, endpoint: 'interlock://tools/shop/stock/1', query: {x: 1}}", "/do/0/a/with", "does not know"),
        ("{method: get, endpoint: 'interlock://tools/shop/stock/all'}", "/do/0/a/with", "lacks `page`"),
    ],
)
def test_the_upload_refuses_other_requests(request_: str, path: str, reason: str) -> None:
    (found,) = needs_of(document_of(f"- a: {{call: http, with: {request_}}}"), [server()])
    assert isinstance(found, BadTarget)
    assert found.path == path and reason in found.reason


def test_an_api_that_is_gone_is_no_target() -> None:
    bare = replace(server(), tools=())
    assert isinstance(
        next(needs_of(document_of("- a: {call: http, with: {method: get, endpoint: 'https://shop.example/api/orders'}}"), [bare])),
        BadTarget,
    )
