"""What servers of the `initialize` era say outside of any request: one GET stream per session, taken up again when it breaks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from msgspec import Raw

from adapters.contract import Unreachable, UpstreamFault
from adapters.mcp_client.exchange.http import RETRY_MAX_MS, McpHttp
from adapters.mcp_client.legacy.sessions import NotLegacy, Session, Sessions, ask
from adapters.mcp_client.wire.messages import Envelope, encode, read_envelope, refusal_of
from adapters.upstream.egress import Streamed
from adapters.upstream.sse import SseReader
from adapters.upstream.targets import EgressRefused

log = structlog.get_logger()

OPEN_SECONDS: Final = 30.0
SILENT_SECONDS: Final = 900.0  # after so long without a byte a stream may be dead without anybody having said so
STREAM_SECONDS: Final = 2.0  # that a server has to open its stream before it is subscribed to: some send nothing until something happens
PAUSE_SECONDS: Final = 1.0
EVENT_MAX: Final = 1 << 20  # bytes
TELL_SECONDS: Final = 5.0


class _NoStream(Exception):
    """The server offers none."""


class _Place:
    """Where a stream stands."""

    def __init__(self) -> None:
        self.last_id = ""
        self.pause = PAUSE_SECONDS
        self.broken = False  # something may have been missed


async def messages(answer: Streamed, place: _Place | None = None) -> AsyncIterator[Envelope]:
    """What arrives on a stream without end, until it breaks or is silent for too long. Raises UpstreamFault."""
    place, reader, chunks = place or _Place(), SseReader(EVENT_MAX), aiter(answer)
    while True:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                chunk = await anext(chunks)
        except (StopAsyncIteration, TimeoutError):
            return
        for event in reader.feed(chunk):
            place.last_id = event.id
            if event.data:
                yield read_envelope(event.data)
        if reader.retry is not None:
            place.pause = min(reader.retry, RETRY_MAX_MS) / 1000


class GetStreams:
    def __init__(self, http: McpHttp, sessions: Sessions, clock: Callable[[], float]) -> None:
        self._http = http
        self._sessions = sessions
        self._clock = clock
        self._reading: dict[Session, asyncio.Task[None]] = {}
        self._settled: dict[Session, asyncio.Event] = {}  # whether its stream was open once, or is known to be none
        self._telling: set[asyncio.Task[None]] = set()

    def open(self, session: Session, credentials: Mapping[str, str]) -> None:
        """Reads the session's stream from now on, unless it is read already or the server has none."""
        if session not in self._reading:
            self._settled[session] = asyncio.Event()
            task = self._reading[session] = asyncio.create_task(self._read(session, credentials))
            session.on_close = lambda: self.close(session)
            task.add_done_callback(lambda ended: log.error("mcp_stream_failed", error=repr(ended.exception())) if _failed(ended) else None)

    async def opened(self, session: Session) -> None:
        """Returns when the session's stream is open, or the server has none, or takes too long to say so."""
        settled = self._settled.get(session)
        if settled is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(settled.wait(), STREAM_SECONDS)

    def close(self, session: Session | None = None) -> None:
        """Ends the stream of that session, or of all."""
        for one in [session] if session else list(self._reading):
            self._settled.pop(one, None)
            task = self._reading.pop(one, None)
            if task is not None:
                task.cancel()

    async def _read(self, session: Session, credentials: Mapping[str, str]) -> None:
        """The root of the stream's task. It ends when the server has no stream, or its session can't be opened again."""
        try:
            await self._again_and_again(session, credentials, _Place())
        finally:
            self._settle(session)

    def _settle(self, session: Session) -> None:
        if (settled := self._settled.get(session)) is not None:
            settled.set()

    async def _again_and_again(self, session: Session, credentials: Mapping[str, str], place: _Place) -> None:
        while True:
            began = self._clock()
            try:
                await self._sessions.ready(session, credentials, began + OPEN_SECONDS)
                await self._follow(session, credentials, place)
            except (_NoStream, NotLegacy, EgressRefused):
                return
            except UpstreamFault as fault:
                log.info("mcp_stream_broken", server=session.key.server, detail=fault.detail)
            place.broken = True
            await asyncio.sleep(place.pause)
            long = self._clock() - began > RETRY_MAX_MS / 1000
            place.pause = PAUSE_SECONDS if long else min(2 * place.pause, RETRY_MAX_MS / 1000)

    async def _follow(self, session: Session, credentials: Mapping[str, str], place: _Place) -> None:
        headers = {**credentials, **session.headers, "accept": "text/event-stream"}
        headers.pop("content-type", None)
        if place.last_id:
            headers["last-event-id"] = place.last_id
        session_id = session.id
        async with asyncio.timeout(OPEN_SECONDS) as opening, self._http.lasting("GET", session.key.url, headers, b"") as answer:
            opening.reschedule(None)
            if answer.status == 404 and session_id:
                self._sessions.lost(session, session_id)
                place.last_id = ""
                raise Unreachable("The server forgot the session", "404")
            if answer.status >= 500 or answer.status == 429:
                raise Unreachable("The server failed", f"status {answer.status}")
            if answer.status != 200 or not answer.headers.get("content-type", "").lower().startswith("text/event-stream"):
                raise _NoStream
            self._settle(session)
            if place.broken and not place.last_id:
                await _tell_all(session)
            place.broken = False
            async for message in messages(answer, place):
                await self._hear(session, credentials, message)

    def tell(self, session: Session, credentials: Mapping[str, str], what: tuple[str, Any]) -> None:
        """One request (method and parameters) whose answer nobody waits for."""
        task = asyncio.create_task(self._tell(session, credentials, what))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, session: Session, credentials: Mapping[str, str], what: tuple[str, Any]) -> None:
        try:
            await ask(self._http, session, credentials, what, TELL_SECONDS)
        except (UpstreamFault, EgressRefused):
            return

    async def _hear(self, session: Session, credentials: Mapping[str, str], message: Envelope) -> None:
        """Brings it to the client whose session this is; in a session of several to the one call under way, if it is only one."""
        ears = [*session.talks, *session.listeners] if session.key.front else session.talks
        if ears and (session.key.front or len(ears) == 1):
            await ears[-1].heard(message)
        elif message.id is not None and isinstance(message.method, str):
            body = refusal_of(message.id, -32601, "nobody is there who could be asked")
            await self._http.tell(session.key.url, {**credentials, **session.headers}, body, TELL_SECONDS)
        elif session.listeners and isinstance(message.method, str):
            for listener in list(session.listeners):
                await listener.heard(message)
        elif isinstance(message.method, str):
            session.changed(message.method)


async def _tell_all(session: Session) -> None:
    """What was said while the stream was broken is lost: whoever listens had better look again."""
    for listener in list(session.listeners):
        for name in ("tools", "prompts", "resources"):
            await listener.changed(f"notifications/{name}/list_changed", Raw(b"{}"))
    for uri in list(session.uris):
        params = Raw(b'{"uri":%s}' % encode(uri))
        for listener in list(session.listeners):
            await listener.changed("notifications/resources/updated", params)


def _failed(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is not None
