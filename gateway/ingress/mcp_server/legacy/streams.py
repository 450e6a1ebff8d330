"""Resumable streams of the legacy era. Every event has an id and is stored, so that a client can resume at any process."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from gateway.ingress.mcp_server.legacy.stream_quota import StreamQuota
from gateway.ingress.mcp_server.protocol.response import frame_event
from gateway.ingress.mcp_server.protocol.sessions import McpSession
from gateway.storage.database import Database, ReadFailed
from gateway.storage.mailbox import MailboxFull
from gateway.storage.tables import mcp_events

KEPT_SECONDS = 600.0
STREAM_BYTES_MAX = 4 << 20  # of one stream, without its last event
QUEUED_ROWS_MAX, QUEUED_BYTES_MAX = 256, 8 << 20  # events that wait for the process that has the stream
RETRY_MS = 1000  # a client waits that long before it resumes a broken stream
POLL_SECONDS, POLL_MAX = 0.1, 1.0  # between two polls for new events; grows while there are none
POLLS = 5
REPLAY_BATCH_SIZE = 200  # events in one read
_DELETE_EVENT = "DELETE FROM mcp_events WHERE session = ? AND stream = ? AND seq = ?"


class _Event(NamedTuple):
    seq: int
    is_last: bool
    body: str


class Stream:
    """Frames and stores the events of one stream of a session."""

    def __init__(self, streams: "Streams", session: McpSession, name: str = "") -> None:
        self._streams = streams
        self._session = session
        self._name = name
        self._seq = 0
        self._size = 0

    @property
    def name(self) -> str:
        """Returns the name, which is made up when it is first needed: most requests become no stream."""
        if not self._name:
            self._name = secrets.token_urlsafe(9)
        return self._name

    def priming_event(self) -> bytes:
        """Returns an event without a message, after which a client can resume before the first message (2025-11-25)."""
        return b"id: %s.0\nretry: %d\ndata:\n\n" % (self.name.encode(), RETRY_MS) if is_primed(self._session) else b""

    def record_event(self, body: bytes) -> bytes:
        """Returns the framed message. Stores it while the stream is below its size limit."""
        self._size += len(body)
        return frame_event(body, self._record(body, is_last=False)) if self._size <= STREAM_BYTES_MAX else frame_event(body)

    def record_last_event(self, body: bytes) -> str:
        """Stores the message that ends the stream, of any size, and returns its event id. An empty body ends it without a message."""
        return self._record(body, is_last=True)

    def _record(self, body: bytes, *, is_last: bool) -> str:
        self._seq += 1
        is_written = self._streams.write(self._session, self.name, _Event(self._seq, is_last, body.decode()))
        return f"{self.name}.{self._seq}" if is_written else ""


def is_primed(session: McpSession) -> bool:
    """Returns whether streams of the session begin with an event without a message."""
    return session.version == "2025-11-25"


class Streams:
    """Stores and replays events of streams. `now` returns microseconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now
        self._last_queued = 0
        self._quota = StreamQuota(KEPT_SECONDS, lambda: now() / 1e6)

    def open(self, session: McpSession) -> Stream:
        return Stream(self, session)

    def write(self, session: McpSession, stream: str, event: _Event) -> bool:
        """Stores an event. Returns False when the quota of the session or its holder is used up."""
        if not self._quota.try_reserve(session, len(event.body)):
            return False
        row = {"session": session.id, "stream": stream, "seq": event.seq, "at": self._now(), "last": int(event.is_last), "body": event.body}
        self._database.post(lambda batch: batch.add(mcp_events, row))
        return True

    async def check_queue_limit(self, session: McpSession, stream: str) -> None:
        """Raises MailboxFull when too many queued events were not fetched, and WriteFailed."""
        of_stream = (mcp_events.c.session == session.id) & (mcp_events.c.stream == stream)
        query = select(func.count(), func.sum(func.length(mcp_events.c.body))).where(of_stream)
        count, size = await self._database.write(lambda batch: batch.connection.execute(query).one())  # the writer sees queued events
        if count >= QUEUED_ROWS_MAX or (size or 0) >= QUEUED_BYTES_MAX:
            raise MailboxFull

    def enqueue(self, session: McpSession, stream: str, event_bytes: bytes) -> bool:
        """Queues an event for the process that has the stream, in order. Returns False when there is no room."""
        self._last_queued = max(
            self._last_queued + 1, self._now() * 1000 + secrets.randbelow(1000)
        )  # two processes rarely choose the same number
        return self.write(session, stream, _Event(self._last_queued, False, event_bytes.decode()))

    async def take_queued(self, session: McpSession, stream: str) -> list[bytes]:
        """Returns and deletes the queued events. Raises ReadFailed, WriteFailed."""
        found = await self._read_after(session, stream, 0)
        if found:
            gone = [(session.id, stream, each.seq) for each in found]
            await self._database.write(lambda batch: [batch.run(_DELETE_EVENT, row) for row in gone])
        return [each.body.encode() for each in found]

    async def replay(self, session: McpSession, last_event_id: str) -> AsyncGenerator[bytes, None]:
        """Yields the events after `last_event_id` until the stream ends; nothing for a stream of another session.

        Yields an empty value after each poll without events.
        """
        stream, _, number = last_event_id.rpartition(".")
        after = int(number) if number.isdecimal() and len(number) < 10 else -1
        until = self._now() + int(KEPT_SECONDS * 1e6)
        if after < 0 or not await self._is_known_event(session, stream, after):
            return
        pause = POLL_SECONDS
        while self._now() < until:
            try:
                found = await self._read_after(session, stream, after)
            except ReadFailed:
                found = []
            for event in found:
                after = event.seq
                if event.body:
                    yield frame_event(event.body.encode(), f"{stream}.{event.seq}")
                if event.is_last:
                    return
            pause = POLL_SECONDS if found else min(POLL_MAX, pause * 1.2)
            if not found:
                yield b""
                await asyncio.sleep(pause)

    async def sweep(self) -> None:
        """Deletes events older than KEPT_SECONDS. A periodic task calls it."""
        cutoff = self._now() - int(KEPT_SECONDS * 1e6)
        await self._database.write(lambda batch: batch.run("DELETE FROM mcp_events WHERE at < ?", (cutoff,)))

    async def _is_known_event(self, session: McpSession, stream: str, seq: int) -> bool:
        """Returns whether the id is that of a stored event, or of a priming event."""
        if seq == 0:
            return bool(stream) and len(stream) <= 64
        of_event = (mcp_events.c.session == session.id, mcp_events.c.stream == stream, mcp_events.c.seq == seq)
        query = select(mcp_events.c.seq).where(*of_event)
        for _ in range(POLLS):  # the event may have been sent before it was committed
            if await self._database.read(lambda connection: connection.execute(query).first()) is not None:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _read_after(self, session: McpSession, stream: str, seq: int) -> list[_Event]:
        later_events = (mcp_events.c.session == session.id, mcp_events.c.stream == stream, mcp_events.c.seq > seq)
        query = (
            select(mcp_events.c.seq, mcp_events.c.last, mcp_events.c.body)
            .where(*later_events)
            .order_by(mcp_events.c.seq)
            .limit(REPLAY_BATCH_SIZE)
        )

        def work(connection: Connection) -> list[_Event]:
            return [_Event(row.seq, bool(row.last), row.body) for row in connection.execute(query)]

        return await self._database.read(work)
