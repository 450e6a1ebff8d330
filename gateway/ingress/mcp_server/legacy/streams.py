"""Streams of the `initialize` era: every event has an id and is kept, so that a client that lost one goes on with it, at any process."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from gateway.ingress.mcp_server.legacy.stream_quota import Allowance
from gateway.ingress.mcp_server.protocol.response import event
from gateway.ingress.mcp_server.protocol.sessions import Session
from gateway.storage.database import Database, NotRead
from gateway.storage.mailbox import TooMuchKept
from gateway.storage.tables import mcp_events

KEPT_SECONDS = 600.0
KEPT_BYTES = 4 << 20  # of one stream, its end not counted
LEFT_ROWS, LEFT_BYTES = 256, 8 << 20  # that wait to be fetched by the process that has a stream
RETRY_MS = 1000  # that a client waits before it takes up a stream that broke
LOOK_SECONDS, LOOK_MAX = 0.1, 1.0  # between two looks for what comes next: longer while nothing does
LOOKS = 5
RESUMED_MAX = 200  # events that are read at once
_FETCHED = "DELETE FROM mcp_events WHERE session = ? AND stream = ? AND seq = ?"


class _Event(NamedTuple):
    seq: int
    last: bool
    body: str


class Stream:
    """One stream of a session; makes its events and keeps them."""

    def __init__(self, streams: "Streams", session: Session, name: str = "") -> None:
        self._streams = streams
        self._session = session
        self.name = name or secrets.token_urlsafe(9)
        self._seq = 0
        self._size = 0

    def first(self) -> bytes:
        """An event without a message, by which a client can go on though nothing was said yet (2025-11-25)."""
        return b"id: %s.0\nretry: %d\ndata:\n\n" % (self.name.encode(), RETRY_MS) if self._session.version == "2025-11-25" else b""

    def event(self, body: bytes) -> bytes:
        """A message, framed; kept where there is room."""
        self._size += len(body)
        return event(body, self._keep(body, last=False)) if self._size <= KEPT_BYTES else event(body)

    def last(self, body: bytes) -> str:
        """The id of the message that ends the stream, however long that was. An empty one ends it without a message."""
        return self._keep(body, last=True)

    def _keep(self, body: bytes, *, last: bool) -> str:
        self._seq += 1
        kept = self._streams.keep(self._session, self.name, _Event(self._seq, last, body.decode()))
        return f"{self.name}.{self._seq}" if kept else ""


class Streams:
    """Keeps events and gives them again. `now` counts microseconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now
        self._left = 0
        self._allowance = Allowance(KEPT_SECONDS, lambda: now() / 1e6)

    def open(self, session: Session) -> Stream:
        return Stream(self, session)

    def keep(self, session: Session, stream: str, said: _Event) -> bool:
        """False where so much is kept for the session already that this is not."""
        if not self._allowance.take(session, len(said.body)):
            return False
        row = {"session": session.id, "stream": stream, "seq": said.seq, "at": self._now(), "last": int(said.last), "body": said.body}
        self._database.post(lambda batch: batch.add(mcp_events, row))
        return True

    async def check_room(self, session: Session, stream: str) -> None:
        """Raises TooMuchKept where nobody fetches what is left, or not fast enough, and NotKept."""
        mine = (mcp_events.c.session == session.id) & (mcp_events.c.stream == stream)
        query = select(func.count(), func.sum(func.length(mcp_events.c.body))).where(mine)
        count, size = await self._database.write(lambda batch: batch.connection.execute(query).one())  # with what was left a moment ago
        if count >= LEFT_ROWS or (size or 0) >= LEFT_BYTES:
            raise TooMuchKept

    def leave(self, session: Session, stream: str, framed: bytes) -> bool:
        """Leaves an event for the process that has the stream, after those that were left before; False where there is no room."""
        self._left = max(self._left + 1, self._now() * 1000 + secrets.randbelow(1000))  # two processes hardly ever choose the same
        return self.keep(session, stream, _Event(self._left, False, framed.decode()))

    async def fetched(self, session: Session, stream: str) -> list[bytes]:
        """What others left, once. Raises NotRead."""
        found = await self._after(session, stream, 0)
        if found:
            gone = [(session.id, stream, each.seq) for each in found]
            await self._database.write(lambda batch: [batch.run(_FETCHED, row) for row in gone])
        return [each.body.encode() for each in found]

    async def resumed(self, session: Session, last_event_id: str) -> AsyncGenerator[bytes, None]:
        """What followed an event on its stream, and what follows, to the stream's end. Nothing of streams that are not the session's.

        An empty text now and then says that nothing has come.
        """
        stream, _, number = last_event_id.rpartition(".")
        after = int(number) if number.isdecimal() and len(number) < 10 else -1
        until = self._now() + int(KEPT_SECONDS * 1e6)
        if after < 0 or not await self._known(session, stream, after):
            return
        pause = LOOK_SECONDS
        while self._now() < until:
            try:
                found = await self._after(session, stream, after)
            except NotRead:
                found = []
            for said in found:
                after = said.seq
                if said.body:
                    yield event(said.body.encode(), f"{stream}.{said.seq}")
                if said.last:
                    return
            pause = LOOK_SECONDS if found else min(LOOK_MAX, pause * 1.2)
            if not found:
                yield b""
                await asyncio.sleep(pause)

    async def sweep(self) -> None:
        """Throws away what nobody goes on with any more; to be called now and then."""
        before = self._now() - int(KEPT_SECONDS * 1e6)
        await self._database.write(lambda batch: batch.run("DELETE FROM mcp_events WHERE at < ?", (before,)))

    async def _known(self, session: Session, stream: str, seq: int) -> bool:
        """An id of ours: of an event that is kept, or of the one that began a stream."""
        if seq == 0:
            return bool(stream) and len(stream) <= 64
        mine = (mcp_events.c.session == session.id, mcp_events.c.stream == stream, mcp_events.c.seq == seq)
        query = select(mcp_events.c.seq).where(*mine)
        for _ in range(LOOKS):  # it may have been said before it was kept
            if await self._database.read(lambda connection: connection.execute(query).first()) is not None:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False

    async def _after(self, session: Session, stream: str, seq: int) -> list[_Event]:
        mine = (mcp_events.c.session == session.id, mcp_events.c.stream == stream, mcp_events.c.seq > seq)
        query = select(mcp_events.c.seq, mcp_events.c.last, mcp_events.c.body).where(*mine).order_by(mcp_events.c.seq).limit(RESUMED_MAX)

        def work(connection: Connection) -> list[_Event]:
            return [_Event(row.seq, bool(row.last), row.body) for row in connection.execute(query)]

        return await self._database.read(work)
