"""What is told outside of requests: to `subscriptions/listen`, and to older clients' GET streams."""

import asyncio
from typing import Any

import pytest

from tests.fakes.clock import leap
from tests.fakes.house import House
from tests.fakes.mcp_clients import Person, client_of, upstream
from tests.fakes.mcp_talkers import Talker
from tests.fakes.mcp_wire import META, document, modern, post, session, stream
from tests.fakes.waiting import until

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
ALL = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}


def listen(**wanted: Any) -> tuple[dict[str, Any], dict[str, str]]:
    body, headers = modern("subscriptions/listen", {"notifications": wanted})
    return {**body, "id": "s-1"}, headers


async def test_it_is_acknowledged_first_and_tells_only_what_was_asked_for(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    async with stream(open_home, "admin", *listen(toolsListChanged=True), path="/mcp") as events:
        assert events.answer.headers["x-accel-buffering"] == "no"
        first = await events.next()
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"] == {"notifications": {"toolsListChanged": True}, "_meta": {META + "subscriptionId": "s-1"}}
        await upstream(open_home, "legacy", Talker().server, "shop")  # has tools and resources
        changed = await asyncio.wait_for(events.next(), 60)
        assert changed == {
            "jsonrpc": "2.0",
            "method": "notifications/tools/list_changed",
            "params": {"_meta": {META + "subscriptionId": "s-1"}},
        }
        await open_home.gateway.registry.remove("default", "shop")
        await open_home.gateway.database.refresh_epochs()
        assert (await asyncio.wait_for(events.next(), 60))["method"] == "notifications/tools/list_changed"


async def test_nobody_is_told_of_what_they_may_not_see(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    async with stream(open_home, "alice", *listen(**ALL, resourceSubscriptions=["desk+note://one"]), path="/mcp") as events:
        assert (await events.next())["params"]["notifications"] == ALL  # and not the resource
        await upstream(open_home, "legacy", Talker().server, "shop")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(events.next(), 2.5)


@ERAS
@pytest.mark.parametrize(("path", "uri"), [("/mcp/desk", "note://one"), ("/mcp", "desk+note://one")])
async def test_a_resource_that_changes_is_told_of_under_the_name_it_was_asked_for(open_home: House, era: Any, path: str, uri: str) -> None:
    talker = Talker()
    await upstream(open_home, era, talker.server)
    foreign = ["shop+note://one", "nothing"] if path == "/mcp" else []
    async with stream(open_home, "admin", *listen(resourceSubscriptions=[uri, *foreign]), path=path) as events:
        assert (await events.next())["params"]["notifications"] == {"resourceSubscriptions": [uri]}
        tool = "change" if path != "/mcp" else "desk_change"
        updated = asyncio.create_task(events.next())
        while not updated.done():
            await post(open_home, "admin", *modern("tools/call", {"name": tool, "arguments": {}}), path)
            await asyncio.wait([updated], timeout=0.3)
        assert updated.result()["method"] == "notifications/resources/updated"
        assert updated.result()["params"]["uri"] == uri
        assert updated.result()["params"]["_meta"] == {META + "subscriptionId": "s-1"}


async def test_the_reference_client_listens(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    async with client_of(open_home, "admin", "2026-07-28") as client, client.listen(tools_list_changed=True) as subscription:
        await upstream(open_home, "modern", Talker().server, "shop")
        event = await asyncio.wait_for(anext(aiter(subscription)), 60)
        assert type(event).__name__ == "ToolsListChanged"


async def test_it_ends_in_order_when_the_gateway_closes(open_home: House) -> None:
    async with stream(open_home, "admin", *listen(toolsListChanged=True), path="/mcp") as events:
        await events.next()
        await open_home.gateway.lifecycle.stop()
        assert await asyncio.wait_for(events.next(), 60) == {
            "jsonrpc": "2.0",
            "id": "s-1",
            "result": {"resultType": "complete", "_meta": {META + "subscriptionId": "s-1"}},
        }
        assert await events.next() is None


async def test_it_ends_when_the_token_does(open_home: House) -> None:
    body, headers = listen(toolsListChanged=True)
    mine = {**headers, "authorization": f"Bearer {open_home.token('admin', ttl=600)}"}
    async with stream(open_home, "admin", body, mine, path="/mcp") as events:
        await events.next()
        leap(600)
        assert (await asyncio.wait_for(events.next(), 60))["result"]["resultType"] == "complete"


async def test_a_filter_of_the_wrong_kind_is_refused(open_home: House) -> None:
    wrong: list[Any] = [5, [], {"toolsListChanged": 1}, {"resourceSubscriptions": "x"}, {"resourceSubscriptions": [1]}]
    for notifications in [None, *wrong, {"resourceSubscriptions": ["x"] * 1001}]:
        answer = await post(open_home, "admin", *modern("subscriptions/listen", {"notifications": notifications}), "/mcp")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602), notifications
    body, headers = listen(toolsListChanged=True)
    plain = await post(open_home, "admin", body, headers | {"accept": "application/json"}, "/mcp")
    assert plain.status_code == 406


@ERAS
async def test_an_older_client_subscribes_and_hears_on_its_own_stream(open_home: House, era: Any) -> None:
    talker = Talker()
    await upstream(open_home, era, talker.server)
    person = Person()
    async with client_of(open_home, "admin", "legacy", "desk", message_handler=person.messaged) as client:
        await client.subscribe_resource("note://one")

        async def told() -> bool:
            await client.call_tool("change", {})
            return any("updated" in each or "Updated" in each for each in person.told)

        await until(told, every=0.3)
        assert await told()
        await client.unsubscribe_resource("note://one")


async def test_an_older_clients_stream_tells_of_changed_lists_and_can_be_gone_on_with(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    mine = {"mcp-session-id": await session(open_home, path="/mcp")}
    async with stream(open_home, "admin", None, mine, "/mcp", "GET") as events:
        assert events.answer.status_code == 200
        reading = asyncio.create_task(events.next())
        await until(lambda: bool(events.last_id), every=0.01)
        await upstream(open_home, "modern", Talker().server, "shop")
        first = await asyncio.wait_for(reading, 60)
        assert first == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        second = await asyncio.wait_for(events.next(), 60)
        assert second["method"] == "notifications/resources/list_changed"
        number = events.last_id.rpartition(".")[0] + ".1"
    async with stream(open_home, "admin", None, {**mine, "last-event-id": number}, "/mcp", "GET") as events:
        assert (await asyncio.wait_for(events.next(), 60)) == second


async def test_streams_are_for_older_sessions_and_their_holders(open_home: House) -> None:
    await open_home.server("inventory", "check")
    mine = {"mcp-session-id": await session(open_home, path="/mcp")}
    for user, headers, status in (
        ("mel", mine, 404),
        ("admin", {"mcp-session-id": "x"}, 404),
        ("admin", {"accept": "*/*"}, 405),
        ("admin", {**mine, "mcp-protocol-version": "2026-07-28"}, 405),
        ("admin", {**mine, "accept": "application/json"}, 406),
    ):
        async with stream(open_home, user, None, headers, "/mcp", "GET") as events:
            assert events.answer.status_code == status, (user, headers)


async def test_a_subscription_needs_the_leave_to_read(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    mine = {"mcp-session-id": await session(open_home, "alice", "/mcp")}
    hidden = await post(open_home, "alice", document("resources/subscribe", {"uri": "desk+note://one"}), mine, "/mcp")
    unknown = await post(open_home, "alice", document("resources/subscribe", {"uri": "none+note://one"}), mine, "/mcp")
    assert hidden.json() == unknown.json() and "error" in hidden.json()


async def test_a_session_subscribes_to_so_much_and_no_more(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    mine = {"mcp-session-id": await session(open_home)}
    for number in range(5):
        answer = await post(open_home, "admin", document("resources/subscribe", {"uri": f"note://{number}{'x' * 2000}"}), mine)
        assert ("error" in answer.json()) == (number == 4)
