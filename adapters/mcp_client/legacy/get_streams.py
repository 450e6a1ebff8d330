"""Messages of servers of the legacy era outside of requests: one GET stream per session, resumed when it breaks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from msgspec import Raw

from adapters.contract import Unreachable, UpstreamFault
from adapters.mcp_client.exchange.http import RETRY_MAX_MS, McpHttp
from adapters.mcp_client.legacy.sessions import NotLegacy, ServerSession, ServerSessions, request_in_session
from adapters.mcp_client.wire.messages import Envelope, encode, error_of, read_envelope
from adapters.upstream.egress import StreamedResponse
from adapters.upstream.sse import SseReader
from adapters.upstream.targets import EgressRefused

log = structlog.get_logger()

OPEN_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 900.0  # without a byte for this long, a stream may be dead without an error
STREAM_OPEN_SECONDS: Final = 2.0  # wait for the stream before subscribing: some send nothing until an event
PAUSE_SECONDS: Final = 1.0
EVENT_MAX: Final = 1 << 20  # bytes
SEND_SECONDS: Final = 5.0


class _NoStream(Exception):
    """The server offers no GET stream."""


class _StreamPosition:
    """The position in a stream and the pause before it is resumed."""

    def __init__(self) -> None:
        self.last_id = ""
        self.pause_seconds = PAUSE_SECONDS
        self.may_have_missed = False  # notifications may have been lost


async def read_messages(answer: StreamedResponse, position: _StreamPosition | None = None) -> AsyncIterator[Envelope]:
    """Yields the messages of an endless stream until it breaks or is silent for too long. Raises UpstreamFault."""
    position, reader, chunks = position or _StreamPosition(), SseReader(EVENT_MAX), aiter(answer)
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                chunk = await anext(chunks)
        except (StopAsyncIteration, TimeoutError):
            return
        for event in reader.feed(chunk):
            position.last_id = event.id
            if event.data:
                yield read_envelope(event.data)
        if reader.retry is not None:
            position.pause_seconds = min(reader.retry, RETRY_MAX_MS) / 1000


class GetStreams:
    def __init__(self, http: McpHttp, sessions: ServerSessions, clock: Callable[[], float]) -> None:
        self._http = http
        self._sessions = sessions
        self._clock = clock
        self._reader_tasks: dict[ServerSession, asyncio.Task[None]] = {}
        self._ready_events: dict[ServerSession, asyncio.Event] = {}  # set once its stream was opened, or is known not to exist
        self._background_sends: set[asyncio.Task[None]] = set()

    def open(self, session: ServerSession, credentials: Mapping[str, str]) -> None:
        """Starts reading the session's stream, unless that has begun or the server has none."""
        if session not in self._reader_tasks:
            self._ready_events[session] = asyncio.Event()
            task = self._reader_tasks[session] = asyncio.create_task(self._read_until_closed(session, credentials))
            session.close_steps.append(lambda: self.close(session))
            task.add_done_callback(
                lambda ended: log.error("mcp_stream_failed", error=repr(ended.exception())) if _has_failed(ended) else None
            )

    async def wait_until_open(self, session: ServerSession) -> None:
        """Waits until the stream is open or known not to exist, for at most STREAM_OPEN_SECONDS."""
        ready_event = self._ready_events.get(session)
        if ready_event is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(ready_event.wait(), STREAM_OPEN_SECONDS)

    def close(self, session: ServerSession | None = None) -> None:
        """Closes the stream of one session, or of all."""
        for one in [session] if session else list(self._reader_tasks):
            self._ready_events.pop(one, None)
            task = self._reader_tasks.pop(one, None)
            if task is not None:
                task.cancel()

    async def _read_until_closed(self, session: ServerSession, credentials: Mapping[str, str]) -> None:
        """The root of the stream's task. Ends when the server has no stream, or the session can't be opened again."""
        try:
            await self._read_with_reconnects(session, credentials, _StreamPosition())
        finally:
            self._mark_ready(session)

    def _mark_ready(self, session: ServerSession) -> None:
        if (ready_event := self._ready_events.get(session)) is not None:
            ready_event.set()

    async def _read_with_reconnects(self, session: ServerSession, credentials: Mapping[str, str], position: _StreamPosition) -> None:
        while True:
            began = self._clock()
            try:
                await self._sessions.ensure_open(session, credentials, began + OPEN_SECONDS)
                await self._read_stream(session, credentials, position)
            except (_NoStream, NotLegacy, EgressRefused):
                return
            except UpstreamFault as fault:
                log.info("mcp_stream_broken", server=session.key.server, detail=fault.detail)
            position.may_have_missed = True
            await asyncio.sleep(position.pause_seconds)
            long = self._clock() - began > RETRY_MAX_MS / 1000
            position.pause_seconds = PAUSE_SECONDS if long else min(2 * position.pause_seconds, RETRY_MAX_MS / 1000)

    async def _read_stream(self, session: ServerSession, credentials: Mapping[str, str], position: _StreamPosition) -> None:
        headers = {**credentials, **session.headers, "accept": "text/event-stream"}
        headers.pop("content-type", None)
        if position.last_id:
            headers["last-event-id"] = position.last_id
        session_id = session.id
        async with asyncio.timeout(OPEN_SECONDS) as opening, self._http.open_stream("GET", session.key.url, headers, b"") as answer:
            opening.reschedule(None)
            if answer.status == 404 and session_id:
                self._sessions.mark_lost(session, session_id)
                position.last_id = ""
                raise Unreachable("The server forgot the session", "404")
            if answer.status >= 500 or answer.status == 429:
                raise Unreachable("The server failed", f"status {answer.status}")
            if answer.status != 200 or not answer.headers.get("content-type", "").lower().startswith("text/event-stream"):
                raise _NoStream
            self._mark_ready(session)
            if position.may_have_missed and not position.last_id:
                await _notify_possible_changes(session)
            position.may_have_missed = False
            async for message in read_messages(answer, position):
                await self._deliver(session, credentials, message)

    def send_in_background(self, session: ServerSession, credentials: Mapping[str, str], method: str, params: Any) -> None:
        """Sends one request without waiting for its response."""
        task = asyncio.create_task(self._send_if_possible(session, credentials, method, params))
        self._background_sends.add(task)
        task.add_done_callback(self._background_sends.discard)

    async def _send_if_possible(self, session: ServerSession, credentials: Mapping[str, str], method: str, params: Any) -> None:
        try:
            await request_in_session(self._http, session, credentials, method, params, seconds=SEND_SECONDS)
        except (UpstreamFault, EgressRefused):
            return

    async def _deliver(self, session: ServerSession, credentials: Mapping[str, str], message: Envelope) -> None:
        """Passes a message to the session's client; in a shared session only to the single call in progress."""
        receivers = [*session.receivers, *session.listeners] if session.key.client_session else session.receivers
        if receivers and (session.key.client_session or len(receivers) == 1):
            await receivers[-1].receive(message)
        elif message.id is not None and isinstance(message.method, str):
            body = error_of(message.id, -32601, "there is no client to ask")
            await self._http.notify(session.key.url, {**credentials, **session.headers}, body, SEND_SECONDS)
        elif session.listeners and isinstance(message.method, str):
            for listener in list(session.listeners):
                await listener.receive(message)
        elif isinstance(message.method, str):
            session.report_change(message.method)


async def _notify_possible_changes(session: ServerSession) -> None:
    """Notifies listeners of all possible changes, since notifications are lost while the stream is broken."""
    for listener in list(session.listeners):
        for name in ("tools", "prompts", "resources"):
            await listener.forward_change(f"notifications/{name}/list_changed", Raw(b"{}"))
    for uri in list(session.uris):
        params = Raw(b'{"uri":%s}' % encode(uri))
        for listener in list(session.listeners):
            await listener.forward_change("notifications/resources/updated", params)


def _has_failed(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is not None
