"""Watches servers for list changes on the gateway's own behalf, independent of any call."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Raw

from adapters.contract import Unreachable
from adapters.mcp_client.duplex.channel import DuplexChannel
from adapters.mcp_client.duplex.http_sse import SseConnection
from adapters.mcp_client.duplex.listening import listen
from adapters.mcp_client.exchange.http import CUT_TEXT, McpHttp, is_stream
from adapters.mcp_client.exchange.server_messages import CHANGE_METHODS
from adapters.mcp_client.legacy.get_streams import OPEN_SECONDS, read_messages
from adapters.mcp_client.legacy.sessions import ServerSession, SessionKey, close_session, open_session
from adapters.mcp_client.listening import ModernStream, announces_changes
from adapters.mcp_client.wire.messages import error_of, reply_of
from adapters.mcp_client.wire.peer import ListenFilter, PeerRefused

OnListChanged = Callable[[], None]
ALL_LISTS: Final = ListenFilter(tools=True, prompts=True, resources=True)
SEND_SECONDS: Final = 5.0


class _NoChangeNotifications(Exception):
    """The server does not announce list changes."""


class _ListChangeListener:
    """A McpListener that gets notifications and can't be asked."""

    capabilities: Mapping[str, Any] = {}

    def __init__(self, changed: OnListChanged) -> None:
        self._changed = changed

    async def on_acknowledged(self, granted: ListenFilter) -> None:
        if granted == ListenFilter():
            raise _NoChangeNotifications
        self._changed()  # a change after the last listing and before this moment was not announced

    async def notify(self, method: str, params: Raw) -> None:
        self._changed()

    async def ask(self, method: str, params: Raw) -> Raw:
        raise PeerRefused(-32601, "there is no client to ask")


async def watch_modern(http: McpHttp, url: str, credentials: Mapping[str, str], changed: OnListChanged) -> None:
    """Calls `changed` when the server begins to announce list changes, and for each of them; returns if the server announces none.

    Raises UpstreamFault and WrongEra.
    """
    try:
        await ModernStream(http, url, credentials, _ListChangeListener(changed)).run(ALL_LISTS, OPEN_SECONDS)
    except _NoChangeNotifications:
        return


async def watch_legacy(http: McpHttp, url: str, credentials: Mapping[str, str], changed: OnListChanged) -> None:
    """Like `watch_modern`, on the stream of a separate session. Raises NotLegacy instead of WrongEra."""
    session = ServerSession(SessionKey("", url, ""))
    await open_session(http, session, credentials, OPEN_SECONDS)
    session.headers = headers = {**credentials, **session.headers}
    try:
        if not any(announces_changes(session.server_capabilities.get(kind)) for kind in ("tools", "prompts", "resources")):
            return
        get_headers = {name: value for name, value in headers.items() if name != "content-type"} | {"accept": "text/event-stream"}
        async with http.open_stream("GET", url, get_headers, b"") as answer:
            if answer.status != 200 or not is_stream(answer.headers):
                return
            changed()  # as in `_ListChangeListener`
            async for message in read_messages(answer):
                if message.method in CHANGE_METHODS:
                    changed()
                elif message.id is not None:
                    reply = reply_of(message.id, {}) if message.method == "ping" else error_of(message.id, -32601, "there is no client")
                    await http.notify(url, headers, reply, SEND_SECONDS)
        raise Unreachable(CUT_TEXT, "the stream ended")
    finally:
        await close_session(http, session)


async def watch_sse(http: McpHttp, url: str, credentials: Mapping[str, str], changed: OnListChanged) -> None:
    """Like `watch_legacy`, over a separate HTTP+SSE connection."""
    connection = SseConnection(http, SessionKey("", url, ""), credentials)
    try:
        await watch_duplex(await connection.open(OPEN_SECONDS), changed)
    finally:
        connection.close()


async def watch_duplex(duplex: DuplexChannel, changed: OnListChanged) -> None:
    """Like `watch_modern`, over an open channel."""
    try:
        await listen(duplex, ALL_LISTS, _ListChangeListener(changed), frozenset, OPEN_SECONDS)
    except _NoChangeNotifications:
        return
