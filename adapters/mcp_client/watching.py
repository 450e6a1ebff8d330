"""Hears from servers that their lists changed, on the gateway's own behalf: like a probe, it is part of nobody's call."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Raw

from adapters.contract import Unreachable
from adapters.mcp_client.duplex.channel import Duplex
from adapters.mcp_client.duplex.http_sse import SseLine
from adapters.mcp_client.duplex.listening import listen
from adapters.mcp_client.exchange.http import CUT, McpHttp, is_stream
from adapters.mcp_client.exchange.server_messages import CHANGES
from adapters.mcp_client.legacy.get_streams import OPEN_SECONDS, messages
from adapters.mcp_client.legacy.sessions import Session, SessionKey, close_session, open_session
from adapters.mcp_client.listening import ModernStream, tells
from adapters.mcp_client.wire.messages import refusal_of, reply_of
from adapters.mcp_client.wire.peer import Listening, PeerRefused

Changed = Callable[[], None]
LISTS: Final = Listening(tools=True, prompts=True, resources=True)
TELL_SECONDS: Final = 5.0


class _Nothing(Exception):
    """The server does not tell of its lists."""


class _Watcher:
    """A Listener that is told, and asked nothing."""

    capabilities: Mapping[str, Any] = {}

    def __init__(self, changed: Changed) -> None:
        self._changed = changed

    async def acknowledged(self, granted: Listening) -> None:
        if granted == Listening():
            raise _Nothing

    async def notify(self, method: str, params: Raw) -> None:
        self._changed()

    async def ask(self, method: str, params: Raw) -> Raw:
        raise PeerRefused(-32601, "nobody is there who could be asked")


async def watch_modern(http: McpHttp, url: str, credentials: Mapping[str, str], changed: Changed) -> None:
    """Calls `changed` for each change of a list; returns where the server tells of none. Raises UpstreamFault and WrongEra."""
    try:
        await ModernStream(http, url, credentials, _Watcher(changed)).follow(LISTS, OPEN_SECONDS)
    except _Nothing:
        return


async def watch_legacy(http: McpHttp, url: str, credentials: Mapping[str, str], changed: Changed) -> None:
    """The same on the stream of a session of its own. Raises NotLegacy in place of WrongEra."""
    session = Session(SessionKey("", url, ""))
    await open_session(http, session, credentials, OPEN_SECONDS)
    session.headers = headers = {**credentials, **session.headers}
    try:
        if not any(tells(session.offered.get(kind)) for kind in ("tools", "prompts", "resources")):
            return
        asked = {name: value for name, value in headers.items() if name != "content-type"} | {"accept": "text/event-stream"}
        async with http.lasting("GET", url, asked, b"") as answer:
            if answer.status != 200 or not is_stream(answer.headers):
                return
            async for message in messages(answer):
                if message.method in CHANGES:
                    changed()
                elif message.id is not None:
                    said = reply_of(message.id, {}) if message.method == "ping" else refusal_of(message.id, -32601, "nobody is there")
                    await http.tell(url, headers, said, TELL_SECONDS)
        raise Unreachable(CUT, "the stream ended")
    finally:
        await close_session(http, session)


async def watch_sse(http: McpHttp, url: str, credentials: Mapping[str, str], changed: Changed) -> None:
    """The same over a connection of its own."""
    line = SseLine(http, SessionKey("", url, ""), credentials)
    try:
        await watch_duplex(await line.open(OPEN_SECONDS), changed)
    finally:
        line.close()


async def watch_duplex(duplex: Duplex, changed: Changed) -> None:
    """The same over a channel that is open."""
    try:
        await listen(duplex, LISTS, _Watcher(changed), frozenset, OPEN_SECONDS)
    except _Nothing:
        return
