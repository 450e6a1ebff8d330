"""Streams of the `initialize` era: every event has an id and is kept, so that a client that lost one goes on with it, at any process."""

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
STREAM_BYTES_MAX = 4 << 20  # of one stream, its end not counted
QUEUED_ROWS_MAX, QUEUED_BYTES_MAX = 256, 8 << 20  # that wait to be fetched by the process that has a stream
RETRY_MS = 1000  # that a client waits before it takes up a stream that broke
POLL_SECONDS, POLL_MAX = 0.1, 1.0  # between two looks for what comes next: longer while nothing does
POLLS = 5
REPLAY_BATCH_SIZE = 200  # events that are read at once
_DELETE_EVENT = "DELETE FROM mcp_events WHERE session = ? AND stream = ? AND seq = ?"


class _Event(NamedTuple):
    seq: int
    is_last: bool
    body: str


class Stream:
    """One stream of a session; makes its events and keeps them."""

    def __init__(self, streams: "Streams", session: McpSession, name: str = "") -> None:
        self._streams = streams
        self._session = session
        self.name = name or secrets.token_urlsafe(9)
        self._seq = 0
        self._size = 0

    def priming_event(self) -> bytes:
        """An event without a message, by which a client can go on though nothing was said yet (2025-11-25)."""
        return b"id: %s.0\nretry: %d\ndata:\n\n" % (self.name.encode(), RETRY_MS) if self._session.version == "2025-11-25" else b""

    def record_event(self, body: bytes) -> bytes:
        """A message, framed; kept where there is room."""
        self._size += len(body)
        return frame_event(body, self._record(body, is_last=False)) if self._size <= STREAM_BYTES_MAX else frame_event(body)

    def record_last_event(self, body: bytes) -> str:
        """The id of the message that ends the stream, however long that was. An empty one ends it without a message."""
        return self._record(body, is_last=True)

    def _record(self, body: bytes, *, is_last: bool) -> str:
        self._seq += 1
        kept = self._streams.write(self._session, self.name, _Event(self._seq, is_last, body.decode()))
        return f"{self.name}.{self._seq}" if kept else ""


class Streams:
    """Keeps events and gives them again. `now` counts microseconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now
        self._last_queued = 0
        self._quota = StreamQuota(KEPT_SECONDS, lambda: now() / 1e6)

    def open(self, session: McpSession) -> Stream:
        return Stream(self, session)

    def write(self, session: McpSession, stream: str, event: _Event) -> bool:
        """False where so much is kept for the session already that this is not."""
        if not self._quota.try_reserve(session, len(event.body)):
            return False
        row = {"session": session.id, "stream": stream, "seq": event.seq, "at": self._now(), "last": int(event.is_last), "body": event.body}
        self._database.post(lambda batch: batch.add(mcp_events, row))
        return True

    async def check_queue_limit(self, session: McpSession, stream: str) -> None:
        """Raises TooMuchKept where nobody fetches what is left, or not fast enough, and NotKept."""
        mine = (mcp_events.c.session == session.id) & (mcp_events.c.stream == stream)
        query = select(func.count(), func.sum(func.length(mcp_events.c.body))).where(mine)
        count, size = await self._database.write(lambda batch: batch.connection.execute(query).one())  # with what was left a moment ago
        if count >= QUEUED_ROWS_MAX or (size or 0) >= QUEUED_BYTES_MAX:
            raise MailboxFull

    def enqueue(self, session: McpSession, stream: str, event_bytes: bytes) -> bool:
        """Leaves an event for the process that has the stream, after those that were left before; False where there is no room."""
        self._last_queued = max(
            self._last_queued + 1, self._now() * 1000 + secrets.randbelow(1000)
        )  # two processes hardly ever choose the same
        return self.write(session, stream, _Event(self._last_queued, False, event_bytes.decode()))

    async def take_queued(self, session: McpSession, stream: str) -> list[bytes]:
        """What others left, once. Raises NotRead."""
        found = await self._read_after(session, stream, 0)
        if found:
            gone = [(session.id, stream, each.seq) for each in found]
            await self._database.write(lambda batch: [batch.run(_DELETE_EVENT, row) for row in gone])
        return [each.body.encode() for each in found]

    async def replay(self, session: McpSession, last_event_id: str) -> AsyncGenerator[bytes, None]:
        """What followed an event on its stream, and what follows, to the stream's end. Nothing of streams that are not the session's.

        An empty text now and then says that nothing has come.
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
            for said in found:
                after = said.seq
                if said.body:
                    yield frame_event(said.body.encode(), f"{stream}.{said.seq}")
                if said.is_last:
                    return
            pause = POLL_SECONDS if found else min(POLL_MAX, pause * 1.2)
            if not found:
                yield b""
                await asyncio.sleep(pause)

    async def sweep(self) -> None:
        """Throws away what nobody goes on with any more; to be called now and then."""
        before = self._now() - int(KEPT_SECONDS * 1e6)
        await self._database.write(lambda batch: batch.run("DELETE FROM mcp_events WHERE at < ?", (before,)))

    async def _is_known_event(self, session: McpSession, stream: str, seq: int) -> bool:
        """An id of ours: of an event that is kept, or of the one that began a stream."""
        if seq == 0:
            return bool(stream) and len(stream) <= 64
        mine = (mcp_events.c.session == session.id, mcp_events.c.stream == stream, mcp_events.c.seq == seq)
        query = select(mcp_events.c.seq).where(*mine)
        for _ in range(POLLS):  # it may have been said before it was kept
            if await self._database.read(lambda connection: connection.execute(query).first()) is not None:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _read_after(self, session: McpSession, stream: str, seq: int) -> list[_Event]:
        mine = (mcp_events.c.session == session.id, mcp_events.c.stream == stream, mcp_events.c.seq > seq)
        query = (
            select(mcp_events.c.seq, mcp_events.c.last, mcp_events.c.body).where(*mine).order_by(mcp_events.c.seq).limit(REPLAY_BATCH_SIZE)
        )

        def work(connection: Connection) -> list[_Event]:
            return [_Event(row.seq, bool(row.last), row.body) for row in connection.execute(query)]

        return await self._database.read(work)
