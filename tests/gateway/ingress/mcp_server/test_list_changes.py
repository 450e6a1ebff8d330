"""Lists that follow those of servers: when these say that they changed, or find fault with what is known of them."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from gateway.ingress.mcp_server.subscriptions import relist as relisting
from gateway.ingress.mcp_server.subscriptions.relist import Relister
from registry.cards.card import Family, RegistrationStatus
from registry.rows import Candidate, offer_fields
from tests.fakes.house import House
from tests.fakes.mcp_clients import Mode, Person, client_of, upstream
from tests.fakes.mcp_servers import scripted_server
from tests.fakes.mcp_talkers import Talker
from tests.fakes.mcp_wire import document, modern, post, session
from tests.fakes.waiting import until

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]


async def names(home: House, path: str = "/mcp/desk") -> list[str]:
    answer = await post(home, "admin", *modern("tools/list", {}), path)
    return [tool["name"] for tool in answer.json()["result"]["tools"]]


async def test_who_listens_hears_of_a_list_that_a_server_changed_and_new_definitions_wait(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    before = await names(open_home)
    async with client_of(open_home, "admin", "2026-07-28", "desk") as client, client.listen(tools_list_changed=True):
        watching = open_home.app._handlers.mcp._dispatcher._notification_streams._feed._upstream_watcher

        async def grown() -> bool:
            await client.call_tool("grow", {})
            return any(one.kind == "tools" for one in open_home.gateway.registry.find("default", "desk").withheld)

        await until(grown, every=0.5)
        assert len(watching._watch_tasks) == 1
    await until(lambda: not watching._watch_tasks)  # nobody listens any more
    assert await names(open_home) == before  # what is new waits for an operator


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_clients_hear_that_what_they_may_see_has_changed(open_home: House, mode: Mode) -> None:
    talker, person = Talker(), Person()
    await upstream(open_home, "modern", talker.server)
    heard = asyncio.Event()

    async def messaged(message: Any) -> None:
        await person.messaged(message)
        if "tools" in str(person.told).lower() or "ToolListChanged" in type(getattr(message, "root", message)).__name__:
            heard.set()

    async with client_of(open_home, "admin", mode, "desk", message_handler=messaged) as client:
        if mode == "legacy":
            await until(lambda: bool(open_home.app._handlers.mcp._dispatcher._notification_streams._get_streams))
            await client.call_tool("grow", {})
            talker.server.remove_tool("think")
            await client.call_tool("grow", {})
            await asyncio.wait_for(heard.wait(), 60)
        else:
            async with client.listen(tools_list_changed=True) as subscription:
                talker.server.remove_tool("think")
                await client.call_tool("grow", {})
                event = await asyncio.wait_for(anext(aiter(subscription)), 60)
                assert type(event).__name__ == "ToolsListChanged"
        assert "think" not in [tool.name for tool in (await client.list_tools()).tools]


async def test_a_change_before_a_server_reports_changes_is_noticed(open_home: House) -> None:
    talker = Talker()
    await upstream(open_home, "modern", talker.server)
    talker.server.remove_tool("think")  # reported to nobody
    async with client_of(open_home, "admin", "2026-07-28", "desk") as client, client.listen(tools_list_changed=True) as subscription:
        event = await asyncio.wait_for(anext(aiter(subscription)), 60)
        assert type(event).__name__ == "ToolsListChanged"
        assert "think" not in [tool.name for tool in (await client.list_tools()).tools]


async def test_an_older_servers_word_in_a_session_is_enough(open_home: House) -> None:
    await upstream(open_home, "legacy", Talker().server)
    async with client_of(open_home, "admin", "legacy", "desk", **Person().able()) as client:

        async def grown() -> bool:
            await client.call_tool("grow", {})
            return bool(open_home.gateway.registry.find("default", "desk").withheld)

        assert not open_home.gateway.registry.find("default", "desk").withheld
        await until(grown, every=0.5)
        assert [*open_home.gateway.registry.find("default", "desk").withheld]


async def test_a_server_that_rejects_the_headers_is_relisted_and_called_once_more(
    open_home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relisting, "RELIST_PAUSE_SECONDS", 3600.0)
    seen: list[str] = []
    tools = [{"name": "ship", "inputSchema": {"type": "object"}}]
    faults = 1

    async def answer(request: dict[str, Any]) -> Response:
        nonlocal faults
        seen.append(request["method"])
        if request["method"] == "tools/call":
            faults -= 1
            if faults >= 0:
                error = {"code": -32020, "message": "differs"}
                return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": error}, 400)
            result: dict[str, Any] = {"resultType": "complete", "content": [{"type": "text", "text": "sent"}]}
        elif request["method"] == "server/discover":
            result = {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        elif request["method"] == "tools/list":
            result = {"resultType": "complete", "tools": tools}
        else:
            error = {"code": -32601, "message": "no"}
            return JSONResponse({"jsonrpc": "2.0", "id": request.get("id"), "error": error}, 404)
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": result})

    url = await open_home.stack.enter_async_context(scripted_server(answer))
    given: dict[str, Any] = {"tenant": "default", "name": "port", "family": Family.SERVER, "kind": "mcp", "url": url, "owner": "operator"}
    await open_home.gateway.registry.add(
        Candidate(**given, status=RegistrationStatus.ACTIVE, facts={"era": "modern"}, **offer_fields({"tools": tools}))
    )
    await open_home.gateway.database.refresh_epochs()
    call = modern("tools/call", {"name": "ship", "arguments": {}})
    sent = await post(open_home, "admin", *call, "/mcp/port")
    assert sent.json()["result"]["content"][0]["text"] == "sent"
    assert seen.count("tools/call") == 2 and seen.count("tools/list") == 1
    faults = 100
    refused = await post(open_home, "admin", *call, "/mcp/port")
    assert refused.json()["error"]["code"] == -32015
    assert seen.count("tools/call") == 4 and seen.count("tools/list") == 1  # looked at just now
    tools[0]["description"] = "other"
    faults = 1
    open_home.app._handlers.mcp._upstream_requests._relist.__self__._recently_relisted.clear()
    mine = {"mcp-session-id": await session(open_home, path="/mcp/port")}
    changed = await post(open_home, "admin", document("tools/call", {"name": "ship", "arguments": {}}), mine, "/mcp/port")
    assert changed.json()["error"]["code"] == -32602  # it is another tool now, which waits for an operator


async def test_a_server_that_never_stops_saying_so_is_looked_at_seldom(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relisting, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(relisting, "RELIST_PAUSE_SECONDS", 0.1)
    looks: list[float] = []
    clock = asyncio.get_running_loop().time

    async def look(key: Any) -> None:
        looks.append(clock())
        told.relist_soon(*key)  # by being looked at
        if len(looks) == 2:
            raise ValueError

    told = Relister(look)
    for _ in range(100):
        told.relist_soon("default", "desk")
    await until(lambda: len(looks) >= 4, every=0.01)
    gaps = [after - before for before, after in pairwise(looks)]
    assert len(looks) < 10 and all(gap >= 0.09 for gap in gaps)
    await told.close()
