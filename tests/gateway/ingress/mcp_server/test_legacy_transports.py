"""What servers of the older transports say outside of requests, and addresses that people are sent to, in all pairs of eras."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp_types import ElicitResult
from starlette.responses import JSONResponse, Response

from tests.fakes import stdio_talker
from tests.fakes.house import House, open_house
from tests.fakes.mcp_clients import Mode, client_of, probed, text, upstream
from tests.fakes.mcp_servers import scripted_server, serving
from tests.fakes.mcp_talkers import Talker
from tests.fakes.mcp_wire import document, modern, post, session
from tests.fakes.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MODES = pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
COMMAND = {"name": "desk", "command": sys.executable, "args": [str(Path(stdio_talker.__file__).resolve())]}
ADDRESS = "https://sign.example/in"


@asynccontextmanager
async def desk(home: Path, database_url: str, transport: str) -> AsyncIterator[House]:
    """A gateway with a server that talks back behind it."""
    async with open_house(home, database_url, **({"servers": [COMMAND]} if transport == "stdio" else {})) as built:
        if transport == "legacy":
            await upstream(built, "legacy", Talker().server)
        elif transport == "sse":
            await probed(built, f"{await built.stack.enter_async_context(serving(Talker().server.sse_app(), grace=0))}/sse")
        else:
            await until(lambda: "desk" in [entry.name for entry in built.gateway.registry.list("default")], every=0.05)
        yield built


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("transport", ["legacy", "sse", "stdio"])
@MODES
async def test_lists_and_resources_that_change_behind_any_transport_are_told_of(
    tmp_path: Path, database_url: str, transport: str, mode: Mode
) -> None:
    async with desk(tmp_path / "home", database_url, transport) as home, asyncio.timeout(60):
        heard: set[str] = set()

        async def messaged(message: Any) -> None:
            heard.add(type(getattr(message, "root", message)).__name__)

        async with client_of(home, "admin", mode, "desk", message_handler=messaged) as client:

            async def shrunk() -> bool:
                await client.call_tool("shrink", {})
                return any("ToolListChanged" in each or "ToolsListChanged" in each for each in heard)

            async def changed() -> bool:
                await client.call_tool("change", {})
                return any("ResourceUpdated" in each for each in heard)

            if mode == "legacy":
                await until(lambda: bool(home.app._handlers.mcp._dispatcher._notification_streams._get_streams))
                await client.subscribe_resource("note://one")
                await until(shrunk, every=0.5)
                await until(changed, every=0.3)
            else:
                async with client.listen(tools_list_changed=True, resource_subscriptions=["note://one"]) as subscription:
                    listening = asyncio.create_task(_collect(subscription, heard))
                    await until(shrunk, every=0.5)
                    await until(changed, every=0.3)
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)
            assert "think" not in [tool.name for tool in (await client.list_tools()).tools]


async def _collect(subscription: Any, heard: set[str]) -> None:
    async for event in subscription:
        heard.add(type(event).__name__)


class Signing:
    """A server of 2026-07-28 that wants an address visited before it answers. It knows no `initialize`."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    async def __call__(self, request: dict[str, Any]) -> Response:
        if request["method"] == "initialize":
            return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no"}}, 404)
        result: dict[str, Any] = {"resultType": "complete", "content": [{"type": "text", "text": "signed"}]}
        if "inputResponses" in request["params"]:
            self.answers.append(request["params"]["inputResponses"])
        else:
            params = {"mode": "url", "message": "Sign in", "url": ADDRESS}
            asking = {"sign": {"method": "elicitation/create", "params": params}}
            result = {"resultType": "input_required", "inputRequests": asking, "requestState": "theirs"}
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": result})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@MODES
async def test_a_newer_server_sends_a_person_to_an_address_where_the_client_can(open_home: House, mode: Mode) -> None:
    server = Signing()
    url = await open_home.stack.enter_async_context(scripted_server(server))
    await open_home.server("desk", "sign", url=url.removesuffix("/mcp"))
    asked: list[Any] = []

    async def elicited(_context: Any, params: Any) -> ElicitResult:
        asked.append(params)
        return ElicitResult(action="accept")

    async with client_of(open_home, "admin", mode, "desk", elicitation_callback=elicited) as client:
        assert text(await client.call_tool("sign", {})) == "signed"
    assert [(one.mode, one.url) for one in asked] == [("url", ADDRESS)]
    if mode == "legacy":
        assert asked[0].elicitation_id  # which that era asks for
    assert [answer["sign"]["action"] for answer in server.answers] == ["accept"]
    call, form = {"name": "sign", "arguments": {}}, {"elicitation": {"form": {}}}
    if mode == "legacy":
        refused = await post(
            open_home, "admin", document("tools/call", call), {"mcp-session-id": await session(open_home, capabilities=form)}
        )
    else:
        refused = await post(open_home, "admin", *modern("tools/call", call, form))
    assert refused.json()["error"]["code"] == -32021 and ADDRESS not in refused.text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_older_servers_refusal_until_an_address_is_visited_reaches_both_eras(open_home: House) -> None:
    visited = False
    elicitation = {"mode": "url", "elicitationId": "e-1", "url": ADDRESS, "message": "Sign in"}

    async def answer(request: dict[str, Any]) -> Response:
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": request.get("id")}
        if "2026-07-28" in str(request):
            return Response("unknown", 400)
        if request["method"] == "tools/list":
            return JSONResponse({**body, "result": {"tools": [{"name": "sign", "inputSchema": {"type": "object"}}]}})
        if request["method"].endswith("/list"):
            return JSONResponse({**body, "error": {"code": -32601, "message": "no"}})
        if request["method"] == "initialize":
            said = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "old", "version": "1"}}
            return JSONResponse({**body, "result": said})
        if "id" not in request:
            return Response(status_code=202)
        if visited:
            return JSONResponse({**body, "result": {"content": [{"type": "text", "text": "signed"}]}})
        return JSONResponse({**body, "error": {"code": -32042, "message": "visit", "data": {"elicitations": [elicitation]}}})

    url = await open_home.stack.enter_async_context(scripted_server(answer))
    await probed(open_home, url)
    able, call = {"elicitation": {"url": {}}}, {"name": "sign", "arguments": {}}
    mine = {"mcp-session-id": await session(open_home, capabilities=able)}
    older = (await post(open_home, "admin", document("tools/call", call), mine)).json()
    assert older["error"].keys() == {"code", "message", "data"} and older["error"]["data"].keys() == {"elicitations", "trace_id"}
    assert (older["error"]["code"], older["error"]["data"]["elicitations"]) == (-32042, [elicitation])
    newer = (await post(open_home, "admin", *modern("tools/call", call, able))).json()["result"]
    ((key, question),) = newer["inputRequests"].items()
    assert (newer["resultType"], question["params"]["url"], question["params"]["mode"]) == ("input_required", ADDRESS, "url")
    visited = True
    again = {**call, "inputResponses": {key: {"action": "accept"}}, "requestState": newer["requestState"]}
    done = (await post(open_home, "admin", *modern("tools/call", again, able))).json()
    assert done["result"]["content"][0]["text"] == "signed", done
