"""HTTP APIs as upstream servers: their documents become tools, pinned and ruled on like all others. The API is one of FastAPI's."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Cookie, FastAPI, Header, HTTPException, Query, Response
from pydantic import BaseModel

from adapters.contract import UpstreamFault
from adapters.openapi.document import OPERATION_KEY, read_api
from adapters.openapi.text import parse_document
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.remote.servers import _registration_body
from tests.fakes.house import House, house
from tests.fakes.mcp_servers import serving
from tests.fakes.ports import nowhere
from tests.fakes.reception import Reception
from tests.gateway.behaviour.tools.test_mcp_client import MODES, Mode, client_of, text

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Line(BaseModel):
    sku: str
    count: int = 1
    more: "list[Line]" = []


class Shop:
    """The API, and what it was called with."""

    def __init__(self) -> None:
        self.app = FastAPI(title="shop")
        self.seen: list[dict[str, Any]] = []
        app = self.app

        @app.get("/stock/{sku}", operation_id="get_stock", summary="Looks at the stock.")
        def stock(
            sku: str,
            where: Annotated[list[str], Query()] = [],  # noqa: B006 (read only)
            x_tag: Annotated[str, Header()] = "",
            authorization: Annotated[str, Header(include_in_schema=False)] = "",
            sid: Annotated[str, Cookie()] = "",
        ) -> dict[str, Any]:
            self.seen.append({"authorization": authorization})
            return {"sku": sku, "where": where, "tag": x_tag, "sid": sid}

        @app.post("/orders", status_code=201)
        def order(line: Line, dry: bool = False) -> dict[str, Any]:
            return {"sku": line.sku, "count": line.count, "more": len(line.more), "dry": dry}

        @app.delete("/orders/{number}")
        def cancel(number: int) -> None:
            raise HTTPException(409, "shipped already")

        @app.get("/picture", responses={200: {"content": {"image/png": {}}}})
        def picture() -> Response:
            return Response(b"\x89PNG", media_type="image/png")


@pytest.fixture
def desk(open_home: House) -> Reception:
    return Reception(open_home)


@pytest.fixture
async def shop(desk: Reception) -> AsyncIterator[Shop]:
    built = Shop()
    async with serving(built.app) as url:
        answer = await desk.post(
            "/api/servers", name="shop", openapi=f"{url}/openapi.json", upstream={"headers": {"Authorization": "Key k"}}
        )
        assert answer.status_code == 201, answer.text
        assert answer.json()["url"] == url and answer.json()["kind"] == "openapi"
        await desk.home.gateway.database.refresh_epochs()
        yield built


@sqlite_only
@pytest.mark.parametrize("mode", MODES)
async def test_operations_are_tools_with_arguments_by_position(desk: Reception, shop: Shop, mode: Mode) -> None:
    async with client_of(desk.home, "mel", mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert sorted(tools) == [
            "shop_cancel_orders__number__delete",
            "shop_get_stock",
            "shop_order_orders_post",
            "shop_picture_picture_get",
        ]
        assert tools["shop_get_stock"].input_schema["required"] == ["sku"]
        assert tools["shop_get_stock"].annotations is not None and tools["shop_get_stock"].annotations.read_only_hint
        plain = await client.call_tool("shop_get_stock", {"sku": "a b&c", "where": ["x y", "z"], "x-tag": "t", "sid": "s"})
        assert plain.structured_content == {"sku": "a b&c", "where": ["x y", "z"], "tag": "t", "sid": "s"}
        body = {"sku": "7", "count": 2, "more": [{"sku": "8"}]}
        made = await client.call_tool("shop_order_orders_post", {"body": body, "dry": True})
        assert made.structured_content == {"sku": "7", "count": 2, "more": 1, "dry": True} and not made.is_error
        failed = await client.call_tool("shop_cancel_orders__number__delete", {"number": 7})
        assert failed.is_error and text(failed) == 'HTTP status 409\n{"detail":"shipped already"}'
        (image,) = (await client.call_tool("shop_picture_picture_get", {})).content
        assert image.type == "image" and image.mime_type == "image/png"
        wrong = await client.call_tool("shop_get_stock", {"sku": "..", "where": []})
        assert wrong.is_error and "can't be part of a path" in text(wrong)


@sqlite_only
async def test_the_operators_credential_goes_along_and_the_callers_never(desk: Reception, shop: Shop) -> None:  # attack TOK-01
    token = desk.home.token("mel")
    answer = await desk.home.call(token, "/mcp/shop", "get_stock", {"sku": "1", "authorization": "Key mine"})
    assert answer.json()["result"]["isError"] is True  # there is no such argument
    await desk.home.call(token, "/mcp/shop", "get_stock", {"sku": "1"})
    assert shop.seen == [{"authorization": "Key k"}]


@sqlite_only
async def test_an_argument_of_another_type_passes_no_policy_and_is_not_sent(tmp_path: Path, database_url: str) -> None:  # attack PRO-07
    policy = '@id("vault") forbid(principal, action == Action::"shop.get_stock", resource) when { context.input.sku == "vault" };'
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "ours.cedar").write_text(policy)
    async with house(tmp_path / "home", database_url, policies=str(folder)) as built:
        made = await Reception(built).post("/api/servers", name="shop", openapi=Shop().app.openapi(), url=nowhere())
        assert made.status_code == 201, made.text
        await built.gateway.database.refresh_epochs()
        token = built.token("mel")
        data = (await built.call(token, "/mcp/shop", "get_stock", {"sku": ["vault"]})).json()["error"]["data"]
        assert data["reason_id"] == "policy-error" and "sku" in json.dumps(data)
        told = (await built.call(token, "/mcp/shop", "get_stock", {"sku": "1", "x-tag": {"sid": "s"}})).json()["result"]
        assert told["isError"] and "the argument 'x-tag' has the wrong type: expected string, got object" in json.dumps(told)


async def test_a_tool_of_an_api_is_ruled_on_like_any_other(desk: Reception, shop: Shop) -> None:
    refused = await desk.home.call(desk.home.token("mel", "tool:shop.picture_picture_get"), "/mcp/shop", "get_stock", {"sku": "1"})
    assert refused.json()["error"]["data"]["missing"] == ["tool:shop.get_stock (token)"] and shop.seen == []


async def test_an_api_is_an_agent_whose_messages_name_an_operation(desk: Reception, shop: Shop) -> None:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {"tool": "get_stock", "arguments": {"sku": "1"}}}]}
    headers = {"A2A-Version": "1.0"}
    answer = await desk.home.rpc("/agents/shop", desk.home.token("mel"), "SendMessage", {"message": message}, **headers)
    parts = answer.json()["result"]["task"]["artifacts"][0]["parts"]
    assert parts[0]["data"] == {"sku": "1", "where": [], "tag": "", "sid": ""}


async def test_an_operation_that_changes_is_withheld(desk: Reception, shop: Shop) -> None:  # attack REG-02
    @shop.app.get("/reports", operation_id="reports")
    def reports() -> str:
        return ""

    shop.app.openapi_schema = None
    document = shop.app.openapi()
    document["paths"]["/stock-and-tell/{sku}"] = document["paths"].pop("/stock/{sku}")
    told = (await desk.ask("POST", "/api/servers/shop/refresh")).json()
    assert sorted((one["name"], one["state"]) for one in told["withheld"]) == [("get_stock", "changed"), ("reports", "new")]
    assert f"tools[get_stock]._meta.{OPERATION_KEY}.path" in [change["path"] for change in told["drift"]]
    assert (await desk.home.call(desk.home.token("mel"), "/mcp/shop", "get_stock", {"sku": "1"})).json()["error"]["code"] == -32602


async def test_a_document_may_come_with_the_registration(desk: Reception) -> None:
    document = Shop().app.openapi()
    assert (await desk.post("/api/servers", name="shop", openapi=document)).status_code == 422  # it does not say where
    made = await desk.post("/api/servers", name="shop", openapi=document, url=f"{nowhere()}/v1")
    assert made.status_code == 201, made.text
    assert (made.status_code, made.json()["tools"]) == (201, 4), made.text
    told = (await desk.ask("POST", "/api/servers/shop/refresh")).json()
    assert told["withheld"] == [] and told["tools"] == 4
    answer = await desk.home.call(desk.home.token("mel"), "/mcp/shop", "get_stock", {"sku": "1"})
    assert answer.json()["error"]["code"] == -32015  # nobody is there


@sqlite_only
async def test_an_operator_may_register_a_document_above_the_usual_body_limit(desk: Reception) -> None:
    document = {**Shop().app.openapi(), "x-filler": "x" * desk.home.gateway.settings.server.max_body}
    made = await desk.post("/api/servers", name="shop", openapi=document, url=f"{nowhere()}/v1")
    assert (made.status_code, made.json()["tools"]) == (201, 4), made.text
    member = await desk.home.http.post(
        "/api/servers", json={"name": "mine", "openapi": document}, headers={"authorization": f"Bearer {desk.home.token('mel')}"}
    )
    assert member.status_code == 413


@sqlite_only
async def test_operators_see_which_operations_are_no_tools(desk: Reception) -> None:
    document = Shop().app.openapi()
    document["paths"]["/parts"] = {"post": {"requestBody": {"required": True, "content": {"multipart/related": {}}}}}
    await desk.post("/api/servers", name="shop", openapi=document, url=f"{nowhere()}/v1")
    told = (await desk.ask("GET", "/api/servers/shop")).json()
    why = "it needs a body of the media type multipart/related"
    assert told["tools"] == 4 and told["left_out"] == {"count": 1, "first": [{"name": "POST /parts", "why": why}]}


@sqlite_only
@pytest.mark.parametrize(
    ("openapi", "status"),
    [
        ({}, 502),
        ({"openapi": "2.0", "paths": {}}, 502),
        ({"openapi": "3.1.0", "paths": {}, "servers": [{"url": "http://169.254.169.254/"}]}, 400),
        ({"openapi": "3.1.0", "paths": {}, "servers": [{"url": "file:///etc/passwd"}]}, 422),
        ("http://169.254.169.254/openapi.json", 400),
        ("file:///etc/passwd", 400),
        (5, 422),
    ],
)
async def test_what_leads_nowhere_good_is_refused(desk: Reception, openapi: Any, status: int) -> None:  # attack SSR-01
    answer = await desk.post("/api/servers", name="shop", openapi=openapi)
    assert answer.status_code == status, answer.text


def document(schema: Any, **operation: Any) -> dict[str, Any]:
    given = {"operationId": "op", "requestBody": {"content": {"application/json": {"schema": schema}}}, **operation}
    return {
        "openapi": "3.1.0",
        "paths": {"/x": {"post": given}},
        "components": {"schemas": {"Node": {"$ref": "#/components/schemas/Node"}}},
    }


@pytest.mark.parametrize("reference", ["https://evil.example/s.json", "other.json#/X", "#/paths/~1x", "//evil.example/x"])
def test_a_reference_that_leads_out_leaves_the_operation_out(reference: str) -> None:  # attack PRO-12
    assert read_api(document({"type": "object", "properties": {"a": {"$ref": reference}}})).tools == []


def test_schemas_without_a_bottom_end() -> None:  # attack PRO-12
    (tool,) = read_api(document({"$ref": "#/components/schemas/Node"})).tools
    assert tool["inputSchema"]["properties"]["body"] == {"$ref": "#/$defs/Node"} and set(tool["inputSchema"]["$defs"]) == {"Node"}
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"allOf": [deep]}
    assert read_api(document(deep)).tools == []
    assert read_api(document({"enum": ["x" * 70_000]})).tools == []


def test_names_are_plain_and_distinct() -> None:
    paths = {f"/{n}": {"get": {"operationId": "do it!"}} for n in range(3)} | {"/größe/{id}": {"get": {}}}
    names = [tool["name"] for tool in read_api({"openapi": "3.0.3", "paths": paths}).tools]
    assert len(set(names)) == 4 and all(name.isascii() and len(name) <= 64 for name in names) and names[0] == "do_it"


def test_yaml_is_read_and_its_bombs_are_not() -> None:  # attack PRO-12
    assert parse_document(b"openapi: 3.1.0\npaths:\n  /x:\n    get: {responses: {200: {description: ok}}}\n")["paths"]["/x"]["get"][
        "responses"
    ]
    for text_given in (b"a: &a [x]\nb: [*a, *a]\n", b"a: !!python/object/apply:os.system ['true']\n", b"\x00"):
        with pytest.raises(UpstreamFault):
            parse_document(text_given)


def test_the_command_line_knows_a_document_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("openapi: 3.1.0\npaths: {}\n")
    assert _registration_body("http://shop.example/mcp", False, "") == {"url": "http://shop.example/mcp"}
    assert _registration_body("http://shop.example/openapi.json", False, "") == {"openapi": "http://shop.example/openapi.json"}
    assert _registration_body("http://shop.example/api", True, "http://b") == {"openapi": "http://shop.example/api", "url": "http://b"}
    assert json.dumps(_registration_body(str(tmp_path / "shop.yaml"), False, "")) == '{"openapi": {"openapi": "3.1.0", "paths": {}}}'
    with pytest.raises(WrongUsage):
        _registration_body("shop.yaml", False, "")
