"""The reference MCP client against the door, over a real socket, in every mode: all servers together, one of them, agents as tools."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import EmptyResult, Request, RequestParams

from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import CallbackAgent, House
from tests.fakes.mcp_servers import Era, mcp_server, shipping

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
Mode = Literal["auto", "legacy", "2026-07-28"]
MODES: list[Mode] = ["auto", "legacy", "2026-07-28"]


@asynccontextmanager
async def client_of(home: House, user: str, mode: Mode, server: str = "", scope: str | None = None) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {home.token(user, scope)}"}
    url = f"{home.url}/mcp/{server}" if server and not server.startswith("?") else f"{home.url}/mcp{server}"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


async def upstream(home: House, era: Era, name: str = "desk", server: MCPServer | None = None) -> None:
    """A reference server of that era, with the tools that it tells us of."""
    url, _ = await home.stack.enter_async_context(mcp_server(era, server=server))
    found = await home.gateway.tools.probe(name, url, {})
    entry = Candidate(
        tenant="default",
        name=name,
        family=Family.SERVER,
        kind="mcp",
        url=url,
        owner="operator",
        status=RegistrationStatus.ACTIVE,
        facts={"era": found.era, "protocol_version": found.protocol_version},
        tools=tuple(McpTool(tool["name"], tool) for tool in found.tools),
    )
    await home.gateway.registry.add(entry)
    await home.gateway.database.refresh_epochs()


def text(result: Any) -> str:
    return " ".join(block.text for block in result.content)


@pytest.mark.parametrize("era", ["modern", "legacy", "both"])
@pytest.mark.parametrize("mode", MODES)
class TestEveryPair:
    async def test_a_tool_is_listed_and_called_at_one_server_under_its_own_name(self, open_home: House, mode: Mode, era: Era) -> None:
        await upstream(open_home, era)
        async with client_of(open_home, "mel", mode, "desk") as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["echo", "note", "fail"]
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            told = None if mode == "2026-07-28" else "interlock"  # a client that is told its version asks for no more
            assert (client.server_info and client.server_info.name) == told
            answers = await asyncio.gather(*(client.call_tool("echo", {"text": f"t{n}"}) for n in range(5)))
            assert [text(answer) for answer in answers] == [f"t{n}" for n in range(5)]
            failed = await client.call_tool("fail", {})
            assert failed.is_error and text(failed)

    async def test_a_tool_is_listed_and_called_among_all_under_its_servers_name(self, open_home: House, mode: Mode, era: Era) -> None:
        await upstream(open_home, era)
        await upstream(open_home, era, "shop")
        async with client_of(open_home, "mel", mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == [f"{server}_{tool}" for server in ("desk", "shop") for tool in ("echo", "note", "fail")]
            assert text(await client.call_tool("shop_echo", {"text": "größer"})) == "größer"


@pytest.mark.parametrize("mode", MODES)
class TestEachMode:
    async def test_an_agent_is_a_tool_and_so_is_each_of_its_skills(self, open_home: House, mode: Mode) -> None:
        agent = await open_home.agent(CallbackAgent("sales"))
        async with client_of(open_home, "alice", mode) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == ["sales", "sales_quote"]
            first = await client.call_tool("sales", {"message": "two of them"})
            assert text(first) == "sales got: two of them" and not first.is_error
            content = first.structured_content
            assert content is not None and content["state"] == "TASK_STATE_COMPLETED"
            second = await client.call_tool("sales_quote", {"message": "and a third", "context_id": content["context_id"]})
            assert second.structured_content is not None and second.structured_content["context_id"] == content["context_id"]
            assert agent.requests[1]["params"]["message"]["contextId"] == "sales-context"
            task = await open_home.send_get(open_home.token("alice"), "sales", content["task_id"])
            assert task["result"]["artifacts"][0]["parts"][0]["text"] == "sales got: two of them"
            for arguments in ({}, {"message": 5}, {"message": "x", "more": 1}, {"message": "x", "context_id": "a\u0000b"}):
                with pytest.raises(MCPError) as refused:
                    await client.session.call_tool("sales", arguments)
                assert refused.value.error.code == -32602

    async def test_everybody_sees_what_they_may_use_and_nothing_else(self, open_home: House, mode: Mode) -> None:
        await open_home.server("inventory", "check", "reserve")
        await open_home.server("mail", "send")
        await open_home.agent(CallbackAgent("sales"))
        expected = {
            "alice": ["inventory_check", "inventory_reserve", "sales", "sales_quote"],
            "bob": ["inventory_check", "sales", "sales_quote"],
            "mel": ["inventory_check", "inventory_reserve", "mail_send", "sales", "sales_quote"],
            "nora": [],
        }
        for user, names in expected.items():
            async with client_of(open_home, user, mode) as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == names, user
        async with client_of(open_home, "alice", mode, scope="tool:inventory.check") as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["inventory_check"]
        async with client_of(open_home, "bob", mode, "inventory") as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["check"]

    async def test_a_refusal_is_told_with_its_reason(self, open_home: House, mode: Mode) -> None:
        server = await open_home.server("inventory", "check", "reserve")
        async with client_of(open_home, "bob", mode, "inventory") as client:
            with pytest.raises(MCPError) as refused:
                await client.session.call_tool("reserve", {})
            assert refused.value.error.code == -32010 and refused.value.error.data["missing"] == ["tool:inventory.reserve (user)"]
            with pytest.raises(MCPError) as unknown:
                await client.session.call_tool("nothing", {})
            assert unknown.value.error.code == -32602
            await client.call_tool("check", {})  # the session, where there is one, goes on
        assert [name for name, _ in server.calls] == ["check"]

    async def test_what_is_not_served_is_told_without_ending_the_session(self, open_home: House, mode: Mode) -> None:
        await open_home.server("inventory", "check")
        async with client_of(open_home, "alice", mode) as client:
            with pytest.raises(MCPError) as refused:
                await client.session.send_request(Request[RequestParams, str](method="no/such", params=RequestParams()), EmptyResult)
            assert refused.value.error.code == -32601
            assert len((await client.list_tools()).tools) == 1
            if mode == "legacy":
                with pytest.warns(MCPDeprecationWarning):
                    await client.send_ping()


async def test_an_upstreams_session_belongs_to_one_person(open_home: House) -> None:
    await upstream(open_home, "legacy")
    for user in ("mel", "mia"):
        async with client_of(open_home, user, "auto", "desk") as client:
            noted = await client.call_tool("note", {"text": user})
            assert noted.structured_content == {"result": [user]}
    async with client_of(open_home, "mel", "legacy", "desk") as client:
        noted = await client.call_tool("note", {"text": "again"})
        assert noted.structured_content == {"result": ["again"]}  # each session of ours has one of its own behind it


async def test_names_are_short_plain_and_always_the_same(open_home: House) -> None:
    inner = ["x" * 100, "x" * 100 + "y", "a b", "a-b", "a/b", "plain", "größe"]
    entry = Candidate(
        tenant="default",
        name="desk",
        family=Family.SERVER,
        kind="mcp",
        url="http://127.0.0.1:9/mcp",
        owner="operator",
        status=RegistrationStatus.ACTIVE,
        facts={"era": "modern"},
        tools=tuple(McpTool(name, {"name": name, "inputSchema": {"type": "object"}}) for name in inner),
    )
    await open_home.gateway.registry.add(entry)
    lists = []
    for mode in MODES:
        async with client_of(open_home, "mel", mode) as client:
            lists.append([tool.name for tool in (await client.list_tools()).tools])
    assert lists[0] == lists[1] == lists[2] and len(set(lists[0])) == len(inner)
    assert all(len(name) <= 64 and name.isascii() and " " not in name and "/" not in name for name in lists[0])
    assert "desk_plain" in lists[0] and "desk_a-b" in lists[0]


@pytest.mark.parametrize("mode", MODES)
async def test_arguments_that_travel_as_headers_arrive_as_such(open_home: House, mode: Mode) -> None:
    """The upstream is a server that refuses a call whose headers do not say what its arguments say."""
    await upstream(open_home, "modern", "depot", shipping())
    async with client_of(open_home, "mel", mode, "depot") as client:
        await client.list_tools()
        for region, size, urgent in (("eu-west", 5, True), ("größe", -1, False), (" edge ", 0, True), ("=?base64?eA==?=", 10**20, False)):
            told = await client.call_tool("ship", {"region": region, "size": size, "urgent": urgent})
            assert text(told) == f"{region} {size} {urgent}", told
        assert text(await client.call_tool("ship", {"region": "eu", "size": 1})) == "eu 1 False"
    async with client_of(open_home, "mel", mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["depot_ship"]
        assert text(await client.call_tool("depot_ship", {"region": "eu", "size": 1})) == "eu 1 False"
