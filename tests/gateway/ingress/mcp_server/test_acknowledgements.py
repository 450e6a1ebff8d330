"""What is acknowledged holds, at every process: a change right after it is told, without a second try."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House, two
from tests.fakes.mcp_clients import upstream
from tests.fakes.mcp_talkers import Talker
from tests.fakes.mcp_wire import EVENTS, document, modern, post, session, stream

ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CHANGE = {"name": "change", "arguments": {}}
UPDATED = "notifications/resources/updated"


async def changed_once(home: House, events: Any, mine: dict[str, str] | None = None) -> Any:
    """The URI that is told of after one change; an older server tells of those that were made in the session."""
    answer = await post(home, "admin", *((document("tools/call", CHANGE, "c"), mine) if mine else modern("tools/call", CHANGE)))
    assert "error" not in answer.json(), answer.text
    return (await asyncio.wait_for(events.first_of(UPDATED), 30))["uri"]


async def subscribe(home: House, mine: dict[str, str], uri: str = "note://one", method: str = "resources/subscribe") -> Any:
    return (await post(home, "admin", document(method, {"uri": uri}), mine)).json()


@SQLITE
@ERAS
async def test_a_subscription_holds_when_it_is_acknowledged(open_home: House, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    body, headers = modern("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["note://one"]}})
    async with stream(open_home, "admin", body, headers) as events:
        said = await asyncio.wait_for(events.next(), 30)
        assert said["params"]["notifications"] == {"resourceSubscriptions": ["note://one"]}
        assert await changed_once(open_home, events) == "note://one"


@SQLITE
@ERAS
async def test_a_subscription_of_an_older_session_holds_when_it_is_answered(open_home: House, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    mine = {"mcp-session-id": await session(open_home)}
    async with stream(open_home, "admin", None, mine, verb="GET") as events:
        assert (await subscribe(open_home, mine))["result"] == {}
        assert await changed_once(open_home, events, mine) == "note://one"


@SQLITE
@ERAS
async def test_a_stream_that_opens_later_hears_at_once_of_what_was_subscribed_before(open_home: House, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    mine = {"mcp-session-id": await session(open_home)}
    assert (await subscribe(open_home, mine))["result"] == {}
    async with stream(open_home, "admin", None, mine, verb="GET") as events:
        assert await changed_once(open_home, events, mine) == "note://one"


@SQLITE
async def test_a_subscription_that_the_server_refuses_is_refused(open_home: House) -> None:
    server = Talker().server
    await upstream(open_home, "legacy", server)
    handlers = server._lowlevel_server._request_handlers
    del handlers["resources/subscribe"]
    mine = {"mcp-session-id": await session(open_home)}
    async with stream(open_home, "admin", None, mine, verb="GET"):
        error = (await subscribe(open_home, mine))["error"]
        assert error["code"] == -32602 and "does not send updates" in error["message"]
    body, headers = modern("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["note://one"]}})
    async with stream(open_home, "admin", body, headers) as events:
        said = await asyncio.wait_for(events.next(), 30)
        assert (said["method"], said["params"]["notifications"]) == ("notifications/subscriptions/acknowledged", {})


@SQLITE
async def test_one_subscription_more_loses_none_before_it(open_home: House) -> None:
    talker = Talker()
    await upstream(open_home, "legacy", talker.server)
    mine = {"mcp-session-id": await session(open_home)}
    async with stream(open_home, "admin", None, mine, verb="GET") as events:
        for uri in ("note://one", "note://two", "note://three"):
            assert "error" not in await subscribe(open_home, mine, uri)
        assert await changed_once(open_home, events, mine) == "note://one"
        assert talker.subscribed == ["note://one", "note://two", "note://three"] and talker.unsubscribed == []


class Processes:
    """Two that share a database, with one server behind both."""

    def __init__(self, one: House, other: House) -> None:
        self.one = one
        self.other = other


@asynccontextmanager
async def both(home: Path, url: str, era: Any) -> AsyncIterator[Processes]:
    async with two(home, url) as (one, other), asyncio.timeout(120):
        await upstream(one, era, Talker().server)
        await other.gateway.database.refresh_epochs()
        yield Processes(one, other)


@ERAS
async def test_a_subscription_at_one_process_holds_on_the_stream_at_another(tmp_path: Path, postgres_url: str, era: Any) -> None:
    async with both(tmp_path / "home", postgres_url, era) as processes:
        mine = {"mcp-session-id": await session(processes.one)}
        async with stream(processes.one, "admin", None, mine, verb="GET") as events:
            assert (await subscribe(processes.other, mine))["result"] == {}
            assert await changed_once(processes.one, events, mine) == "note://one"
            assert (await subscribe(processes.other, mine, method="resources/unsubscribe"))["result"] == {}
            (general,) = processes.one.app._handlers.mcp._dispatcher._notification_streams._get_streams.values()
            assert general.confirmations._confirmed == {}


async def test_subscriptions_at_two_processes_at_once_are_both_kept(tmp_path: Path, postgres_url: str) -> None:
    async with both(tmp_path / "home", postgres_url, "modern") as processes:
        mine = {"mcp-session-id": await session(processes.one)}
        uris = [f"note://{number}" for number in range(8)]
        homes = (processes.one, processes.other)
        await asyncio.gather(*(subscribe(homes[number % 2], mine, uri) for number, uri in enumerate(uris)))
        conversations = processes.one.app._handlers.mcp._dispatcher
        shown = await conversations.sessions.find(mine["mcp-session-id"], await admitted(processes.one), "/mcp/desk")
        kept = await conversations.sessions._read_session(shown.id)
        assert sorted(kept.session.uris) == uris


async def admitted(home: House) -> Any:
    return await home.gateway.rulings.caller_resolver.authenticate(home.token("admin"), [f"{home.url}/mcp/desk", home.url])


async def test_a_level_and_the_end_of_a_session_hold_everywhere_when_they_are_answered(tmp_path: Path, postgres_url: str) -> None:
    async with both(tmp_path / "home", postgres_url, "modern") as processes:
        mine = {"mcp-session-id": await session(processes.one)}
        for home in (processes.one, processes.other):  # both know the session now
            assert "result" in (await post(home, "admin", document("ping", {}), mine)).json()
        assert "result" in (await post(processes.one, "admin", document("logging/setLevel", {"level": "error"}), mine)).json()
        sessions = processes.other.app._handlers.mcp._dispatcher.sessions
        assert (await sessions.find(mine["mcp-session-id"], await admitted(processes.other), "/mcp/desk")).level == "error"
        ended = await processes.one.http.delete("/mcp/desk", headers={"authorization": f"Bearer {processes.one.token('admin')}", **mine})
        assert ended.status_code == 204
        assert (await post(processes.other, "admin", document("ping", {}), mine)).status_code == 404


async def test_what_a_client_of_http_and_sse_declares_at_one_process_holds_at_another(tmp_path: Path, postgres_url: str) -> None:
    async with both(tmp_path / "home", postgres_url, "legacy") as processes:
        accept = {"accept": "text/event-stream"}
        async with stream(processes.one, "admin", None, accept, verb="GET") as events:
            address = await events.address()
            able = {"protocolVersion": "2024-11-05", "capabilities": {"roots": {}}, "clientInfo": {"name": "t", "version": "1"}}
            plain = {"accept": EVENTS}
            assert (await post(processes.other, "admin", document("initialize", able), plain, address)).status_code == 202
            assert "result" in await asyncio.wait_for(events.next(), 30)
            call = document("tools/call", {"name": "roots", "arguments": {}}, "c-1")
            waiting = asyncio.create_task(post(processes.one, "admin", call, plain, address))
            assert (await asyncio.wait_for(events.next(), 30))["method"] == "roots/list"
            waiting.cancel()
