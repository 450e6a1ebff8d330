"""Virtual servers and the search mode: over the reference client, in every mode, with reference servers behind."""

from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

from gateway.server.configured import build_configured_entries
from gateway.server.settings import Settings, VirtualServerSettings
from registry.cards.card import RegistrationStatus
from registry.seeds import OPERATOR
from registry.seeds import ConfiguredVirtualServer as PlantedSeed
from tests.fakes.house import TRACE, CallbackAgent, House
from tests.fakes.reception import Reception
from tests.gateway.behaviour.tools.test_catalogue import registered
from tests.gateway.behaviour.tools.test_mcp_client import MODES, Mode, client_of, text

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SELECTED = {
    "tools": ["shop.*", "sales/quote", "depot.check"],
    "prompts": ["shop.greeting"],
    "resources": ["shop+note://*"],
    "aliases": {"stock": "shop.check"},
}


@pytest.fixture
def desk(open_home: House) -> Reception:
    return Reception(open_home)


async def furnished(desk: Reception, **more: Any) -> None:
    """Two servers, an agent, and a virtual server `front`."""
    await registered(desk, "shop")
    await registered(desk, "depot")
    await desk.home.agent(CallbackAgent("sales"))
    answer = await desk.post("/api/virtual-servers", name="front", **SELECTED | more)
    assert answer.status_code == 201, answer.text
    await desk.home.gateway.database.refresh_epochs()


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


@sqlite_only
@pytest.mark.parametrize("mode", MODES)
class TestSelection:
    async def test_what_was_selected_is_all_there_is(self, desk: Reception, mode: Mode) -> None:
        await furnished(desk)
        async with client_of(desk.home, "admin", mode, "virtual/front") as client:
            assert await names(client) == ["depot_check", "sales_quote", "stock"]
            assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["shop_greeting"]
            assert [str(each.uri) for each in (await client.list_resources()).resources] == ["shop+note://one"]
            assert (await client.list_resource_templates()).resource_templates == []
            assert text(await client.call_tool("stock", {"sku": "7"})) == "7: 3"
            assert "got: two" in text(await client.call_tool("sales_quote", {"message": "two"}))
            read = await client.read_resource("shop+note://one")
            assert [(str(each.uri), getattr(each, "text", "")) for each in read.contents] == [("shop+note://one", "one")]
            got = await client.get_prompt("shop_greeting", {"name": "Ada"})
            assert getattr(got.messages[0].content, "text", "") == "Greet Ada."
            for name in ("shop_check", "check", "sales", "depot_reserve"):
                with pytest.raises(MCPError) as unknown:
                    await client.session.call_tool(name, {})
                assert unknown.value.error.code == -32602
            for uri in ("depot+note://one", "ui://shop/cart/view.html", "shop+stock://7", "note://one"):
                with pytest.raises(MCPError) as hidden:
                    await client.read_resource(uri)
                assert hidden.value.error.code in (-32602, -32002), uri

    async def test_a_selection_gives_nobody_a_right(self, desk: Reception, mode: Mode) -> None:
        await furnished(desk)
        async with client_of(desk.home, "admin", mode, "virtual/front", scope="tool:depot.check") as client:
            assert await names(client) == ["depot_check"]
            with pytest.raises(MCPError) as refused:
                await client.session.call_tool("stock", {"sku": "7"})
            assert refused.value.error.code == -32010
        async with client_of(desk.home, "alice", mode, "virtual/front") as client:  # agent:* and another server's tools
            assert await names(client) == ["sales_quote"]

    async def test_a_tool_is_shown_and_called_as_the_virtual_server_says(self, desk: Reception, mode: Mode) -> None:
        shown = {"description": "Is it there?", "arguments": {"sku": {"name": "article", "description": "Its number."}}}
        fixed = {"arguments": {"sku": {"value": "9"}}}
        agent = {"title": "Quotes", "arguments": {"message": {"default": "a quote"}}}
        await furnished(desk, overrides={"shop.check": shown, "depot.check": fixed, "sales/quote": agent})
        async with client_of(desk.home, "admin", mode, "virtual/front") as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tools["stock"].description == "Is it there?" and tools["stock"].input_schema["required"] == ["article"]
            assert tools["depot_check"].input_schema["properties"] == {} and tools["sales_quote"].title == "Quotes"
            assert text(await client.call_tool("stock", {"article": "7"})) == "7: 3"
            assert text(await client.call_tool("depot_check", {})) == "9: 3"
            assert "got: a quote" in text(await client.call_tool("sales_quote", {}))
            for name, arguments in (("stock", {"sku": "7"}), ("depot_check", {"sku": "8"})):
                with pytest.raises(MCPError) as refused:
                    await client.session.call_tool(name, arguments)
                assert refused.value.error.code == -32602
        async with client_of(desk.home, "admin", mode, "shop") as client:  # elsewhere nothing has changed
            assert (await client.list_tools()).tools[0].input_schema["required"] == ["sku"]

    async def test_two_tools_find_and_call_all_others(self, desk: Reception, mode: Mode) -> None:
        await furnished(desk, mode="search")
        async with client_of(desk.home, "admin", mode, "virtual/front") as client:
            assert await names(client) == ["search_tools", "call_tool"]
            found = (await client.call_tool("search_tools", {"query": "look at the STOCK"})).structured_content
            assert found is not None and [each["name"] for each in found["tools"]] == ["stock", "depot_check"]
            assert found["tools"][0]["inputSchema"]["required"] == ["sku"]
            called = await client.call_tool("call_tool", {"name": "stock", "arguments": {"sku": "8"}})
            assert text(called) == "8: 3"
            asked = await client.call_tool("call_tool", {"name": "sales_quote", "arguments": {"message": "one"}})
            assert "got: one" in text(asked)
            for name, arguments in (
                ("stock", {"sku": "8"}),
                ("call_tool", {"name": "shop_check", "arguments": {}}),
                ("call_tool", {"name": "call_tool", "arguments": {"name": "stock"}}),
                ("call_tool", {"name": 5}),
                ("call_tool", {"name": "stock", "sku": "8"}),
                ("search_tools", {"query": 5}),
                ("search_tools", {"query": "x", "limit": 0}),
            ):
                with pytest.raises(MCPError) as refused:
                    await client.session.call_tool(name, arguments)
                assert refused.value.error.code == -32602, name

    async def test_search_shows_and_calls_only_what_may_be_called(self, desk: Reception, mode: Mode) -> None:
        await registered(desk, "shop")
        await desk.home.server("inventory", "check", "reserve")
        async with client_of(desk.home, "bob", mode, "?mode=search") as client:
            found = (await client.call_tool("search_tools", {"query": "check reserve"})).structured_content
            assert found is not None and [each["name"] for each in found["tools"]] == ["inventory_check"] and found["total"] == 1
            with pytest.raises(MCPError) as refused:
                await client.session.call_tool("call_tool", {"name": "inventory_reserve", "arguments": {}})
            assert refused.value.error.code == -32010 and refused.value.error.data["missing"] == ["tool:inventory.reserve (user)"]


class TestAdministration:
    async def test_one_is_made_shown_changed_and_removed(self, desk: Reception) -> None:
        await furnished(desk)
        shown = (await desk.ask("GET", "/api/virtual-servers/front")).json()
        assert (shown["path"], shown["tools"], shown["aliases"]) == ("/mcp/virtual/front", SELECTED["tools"], SELECTED["aliases"])
        changed = (await desk.ask("PATCH", "/api/virtual-servers/front", body={"tools": ["depot.*"], "mode": "search"})).json()
        assert (changed["tools"], changed["prompts"], changed["mode"]) == (["depot.*"], ["shop.greeting"], "search")
        assert (await desk.ask("GET", "/api/virtual-servers")).json()["items"] == [changed]
        assert (await desk.ask("DELETE", "/api/virtual-servers/front")).status_code == 204
        answer = await desk.home.rpc("/mcp/virtual/front", desk.home.token("admin"), "tools/list", {})
        assert answer.json()["error"]["code"] == -32011 and (await desk.ask("GET", "/api/virtual-servers/front")).status_code == 404

    async def test_names_are_of_one_namespace_and_operators_make_them(self, desk: Reception) -> None:
        await furnished(desk)
        taken = await desk.post("/api/virtual-servers", name="shop", tools=["shop.check"])
        assert (taken.status_code, taken.json()["reason_id"]) == (409, "name-taken")
        for user in ("alice", "nora"):
            assert (await desk.post("/api/virtual-servers", user, name="mine", tools=["*"])).status_code == 403
            assert (await desk.ask("DELETE", "/api/virtual-servers/front", user)).status_code == (403 if user == "alice" else 404)
        for path in ("/mcp/front", "/mcp/virtual/shop", "/mcp/virtual/none", "/mcp/virtual"):
            answer = await desk.home.rpc(path, desk.home.token("admin"), "tools/list", {})
            assert answer.json()["error"]["code"] == -32011, path

    async def test_whoever_may_use_nothing_of_one_does_not_know_of_it(self, desk: Reception) -> None:  # attack ISO-02
        await furnished(desk)
        for path in ("/mcp/virtual/front", "/mcp/virtual/none"):
            answer = await desk.home.rpc(path, desk.home.token("nora"), "tools/list", {})
            assert answer.json()["error"] == {
                "code": -32011,
                "message": "There is no such agent or server.",
                "data": {"reason_id": "unknown", "trace_id": TRACE},
            }
        assert (await desk.ask("GET", "/api/virtual-servers", "nora")).json()["items"] == []
        assert (await desk.ask("GET", "/api/virtual-servers/front", "nora")).status_code == 404

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "tools"),
            ({"tools": ["Shop.check"]}, "tools[0]"),
            ({"tools": [""]}, "tools[0]"),
            ({"prompts": ["shop"]}, "prompts[0]"),
            ({"resources": ["shop.note"]}, "resources[0]"),
            ({"tools": ["*"], "aliases": {"a b": "shop.check"}}, "aliases"),
            ({"tools": ["*"], "aliases": {"a": "shop.*"}}, "aliases.a"),
            ({"tools": ["*"], "aliases": {"a": "shop.check", "b": "shop.check"}}, "aliases"),
            ({"tools": ["*"], "mode": "none"}, "mode"),
            ({"tools": ["*"], "url": "http://x"}, "url"),
        ],
    )
    async def test_what_selects_nothing_is_refused(self, desk: Reception, body: dict[str, Any], field: str) -> None:
        answer = await desk.post("/api/virtual-servers", name="front", **body)
        assert answer.status_code == 422 and answer.json()["detail"].startswith(f"{field} "), answer.text

    async def test_the_file_plants_one_and_changes_it(self, desk: Reception) -> None:
        gateway = desk.home.gateway
        for tools in (["shop.*"], ["depot.*"]):
            (seed,) = build_configured_entries([], [], [VirtualServerSettings(name="front", tools=tools)])
            assert await gateway.configured_entries._seeds.register(seed)
            found = gateway.registry.find("default", "front")
            assert found.selection is not None and found.selection.tools == tuple(tools)
            assert (found.owner, found.status) == (OPERATOR, RegistrationStatus.ACTIVE)


@sqlite_only
async def test_an_alias_takes_its_name_from_whoever_had_it(desk: Reception) -> None:
    await furnished(desk, tools=["shop.check", "depot.check"], aliases={"depot_check": "shop.check"})
    async with client_of(desk.home, "admin", "auto", "virtual/front") as client:
        shown = await names(client)
        assert shown[1] == "depot_check" and shown[0].startswith("depot_check-") and len(shown) == 2
        assert text(await client.call_tool("depot_check", {"sku": "1"})) == "1: 3"


def test_the_file_names_them(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, virtual=[{"name": "front", "tools": ["*"], "aliases": {"a_b": "c.d"}, "mode": "search"}])
    (seed,) = build_configured_entries([], [], settings.virtual)
    assert isinstance(seed, PlantedSeed) and seed.selection.search and seed.selection.alias_of("c.d") == "a_b"
