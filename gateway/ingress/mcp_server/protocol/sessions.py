"""Sessions of the `initialize` era: each bound to who opened it and where, kept in the database, known to every process."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import delete, func, select, update

from adapters.mcp_client.wire.messages import INVALID_PARAMS, LEGACY
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.storage.database import Batch, Database, bump
from gateway.storage.tables import mcp_events, mcp_sessions, processes
from policies.cache import BoundedCache
from policies.callers import Caller

IDLE_SECONDS = 3600.0
FRESH_SECONDS = 0.25  # for which a process believes what it read, where others may have changed it
TOUCHED_SECONDS = 60.0  # between two notes that a session is used
CACHED = 10_000
PER_HOLDER = 100  # sessions of one person; the one that was not used for longest makes room
CAPABILITIES_MAX = 8192  # bytes
URIS_MAX = 8192  # bytes
_objects = msgspec.json.Decoder(dict[str, Any]).decode
_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_flags = msgspec.json.Decoder(dict[str, bool]).decode
T = TypeVar("T")
encode = msgspec.json.Encoder().encode


class UnknownSession(Exception):
    """No such session for this caller; the client has to initialize again (HTTP 404)."""


class Session(Struct, frozen=True):
    """`id` is not what the client shows, but its digest. `level` of log messages is empty where none was set."""

    id: str
    holder: str
    resource: str
    version: str
    capabilities: Mapping[str, Any]
    level: str = ""
    uris: tuple[str, ...] = ()


class _Known(Struct):
    session: Session
    read: float
    touched: float


class Sessions:
    """Open sessions. Unknown and foreign ones are the same. `now` counts microseconds since 1970, `clock` seconds of this process."""

    def __init__(self, database: Database, now: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._now = now
        self._clock = clock
        self._known: BoundedCache[str, _Known] = BoundedCache(CACHED, clock)

    async def open(self, caller: Caller, resource: str, params: Mapping[str, Any]) -> tuple[str, Session]:
        """A new session by the parameters of `initialize`; first, what the client is to show from now on. Raises BadEnvelope, NotKept."""
        declared = _declared(params)
        shown = secrets.token_urlsafe(32)
        session = Session(digest(shown), holder(caller), resource, negotiated(params.get("protocolVersion")), _objects(declared))
        now, began = self._now(), self._clock()
        row: dict[str, Any] = {"id": session.id, "holder": session.holder, "resource": resource, "version": session.version}
        row |= {"capabilities": declared.decode(), "level": "", "uris": "[]", "created": now, "used": now}
        for gone in await self._database.write(lambda batch: _insert(batch, row)):
            self._known.drop(gone)
        self._keep(session, began)
        return shown, session

    async def adopt(self, session: Session, params: Mapping[str, Any]) -> Session:
        """The parameters of `initialize` in a session that is there already. Raises BadEnvelope."""
        declared, version = _declared(params), negotiated(params.get("protocolVersion"))
        values = {"capabilities": declared.decode(), "version": version}
        await self._changed(lambda batch: batch.connection.execute(_of(session.id).values(values)))
        changed = msgspec.structs.replace(session, version=version, capabilities=_objects(declared))
        self._keep(changed, self._clock())
        return changed

    async def find(self, shown: str, caller: Caller, resource: str) -> Session:
        """Raises UnknownSession, NotRead. Use keeps a session open."""
        known = self._known.get(digest(shown)) or await self._read(digest(shown))
        if known is None or known.session.holder != holder(caller) or known.session.resource != resource:
            raise UnknownSession
        now = self._clock()
        if now - known.touched > TOUCHED_SECONDS:
            known.touched = now
            used = {"used": self._now()}
            self._database.post(lambda batch: batch.connection.execute(_of(known.session.id).values(used)))
            if self._database.sqlite:
                self._keep(known.session, now)
        return known.session

    async def close(self, session: Session) -> None:
        """Forgets it, and what was said on its streams."""
        self._known.drop(session.id)
        await self._changed(lambda batch: _delete(batch, [session.id]))

    async def expel(self, stopped: Callable[[str, str], bool]) -> list[tuple[str, str]]:
        """Closes the sessions of whoever is `stopped`, by owner and acting agent; gives the owner and the id of each."""
        holders = select(mcp_sessions.c.id, mcp_sessions.c.holder)
        rows = await self._database.read(lambda connection: connection.execute(holders).all())
        gone = [(row.holder.rpartition("\n")[0], row.id) for row in rows if stopped(*row.holder.rsplit("\n", 1))]
        for _, key in gone:
            self._known.drop(key)
        if gone:
            await self._database.write(lambda batch: _delete(batch, [key for _, key in gone]))
        return gone

    async def set_level(self, session: Session, level: str) -> None:
        """Sets the level of log messages."""
        await self._changed(lambda batch: batch.connection.execute(_of(session.id).values({"level": level})))
        self._keep(msgspec.structs.replace(session, level=level), self._clock())

    async def subscribe(self, session: Session, uri: str) -> str:
        """Adds a resource to what it subscribed to; gives the process that has its stream, or nothing. Raises BadEnvelope for too many."""
        return await self._resubscribe(session, lambda uris: uris if uri in uris else (*uris, uri))

    async def unsubscribe(self, session: Session, uri: str) -> str:
        """The opposite."""
        return await self._resubscribe(session, lambda uris: tuple(each for each in uris if each != uri))

    async def _resubscribe(self, session: Session, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> str:
        """Within one transaction, since other requests of the session may do the same at other processes. All processes hear of it."""

        def work(batch: Batch) -> tuple[tuple[str, ...], str]:
            mine = select(mcp_sessions.c.uris, mcp_sessions.c.streamer).where(mcp_sessions.c.id == session.id)
            row = batch.connection.execute(mine.with_for_update()).one_or_none()
            if row is None:
                raise UnknownSession
            uris = change(_texts(row.uris))
            text = encode(uris)
            if len(text) > URIS_MAX:
                raise BadEnvelope(INVALID_PARAMS, "this session is subscribed to as many resources as one may be")
            batch.connection.execute(_of(session.id).values({"uris": text.decode()}))
            bump(batch, "sessions")
            return uris, row.streamer or ""

        uris, streamer = await self._changed(work)
        self._keep(msgspec.structs.replace(session, uris=uris), self._clock())
        return streamer

    async def stream_opened(self, session: Session, process: str) -> Session:
        """Writes down which process has the session's stream; gives the session as it is then. Raises UnknownSession."""

        def work(batch: Batch) -> Any:
            batch.connection.execute(_of(session.id).values({"streamer": process, "holds": None}))
            return batch.connection.execute(select(mcp_sessions).where(mcp_sessions.c.id == session.id)).one_or_none()

        row = await self._database.write(work)
        if row is None:
            raise UnknownSession
        return self._keep(_session(row), self._clock()).session

    def stream_ended(self, session: Session, process: str) -> None:
        """Unless another process has it meanwhile."""
        mine = _of(session.id).where(mcp_sessions.c.streamer == process).values({"streamer": None, "holds": None})
        self._database.post(lambda batch: batch.connection.execute(mine))

    def publish(self, session: Session, process: str, holds: Mapping[str, bool]) -> None:
        """Tells other processes which subscriptions hold on the stream that this one has."""
        mine = _of(session.id).where(mcp_sessions.c.streamer == process).values({"holds": encode(holds).decode()})
        self._database.post(lambda batch: batch.connection.execute(mine))

    async def held(self, session: Session, process: str) -> Mapping[str, bool] | None:
        """What `process` published of its stream; None where it has the stream no more. Raises NotRead."""
        query = select(mcp_sessions.c.holds).where(mcp_sessions.c.id == session.id, mcp_sessions.c.streamer == process)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else _flags(row.holds or "{}")

    async def streamed(self, process: str) -> list[Session]:
        """Sessions whose streams a process has, as they are now. Raises NotRead."""
        query = select(mcp_sessions).where(mcp_sessions.c.streamer == process)
        found = await self._database.read(lambda connection: [_session(row) for row in connection.execute(query)])
        now = self._clock()
        return [self._keep(session, now).session for session in found]

    async def current(self, session: Session) -> Session | None:
        """The session as it is now; None when it is closed."""
        known = self._known.get(session.id) or await self._read(session.id)
        return known.session if known else None

    async def _changed(self, work: Callable[[Batch], T]) -> T:
        """Makes a change, and waits until no process believes what was before: then the change may be acknowledged."""

        def counted(batch: Batch) -> tuple[T, int]:
            done = work(batch)
            return done, batch.connection.execute(select(func.count()).select_from(processes)).scalar_one()

        done, count = await self._database.write(counted)
        if not self._database.sqlite and count > 1:
            await asyncio.sleep(FRESH_SECONDS)
        return done

    async def sweep(self) -> None:
        """Forgets sessions that nobody uses any more; to be called now and then."""
        before = self._now() - int(IDLE_SECONDS * 1e6)
        await self._database.write(lambda batch: _delete_idle(batch, before))

    def _keep(self, session: Session, began: float) -> _Known:
        """`began`: when it was read or written, since when others may have changed it."""
        known = _Known(session, began, self._clock())
        seconds = IDLE_SECONDS if self._database.sqlite else began + FRESH_SECONDS - self._clock()
        if seconds > 0:
            self._known.put(session.id, known, seconds)
        return known

    async def _read(self, key: str) -> _Known | None:
        before, began = self._now() - int(IDLE_SECONDS * 1e6), self._clock()
        query = select(mcp_sessions).where(mcp_sessions.c.id == key, mcp_sessions.c.used > before)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            return None
        known = self._keep(_session(row), began)
        known.touched -= (self._now() - row.used) / 1e6
        return known


def _session(row: Any) -> Session:
    return Session(row.id, row.holder, row.resource, row.version, _objects(row.capabilities), row.level, _texts(row.uris))


def digest(shown: str) -> str:
    return hashlib.sha256(shown.encode()).hexdigest()


def holder(caller: Caller) -> str:
    """A person, or an agent that acts for one: what it opened is not its user's."""
    return f"{caller.principal.owner}\n{caller.delegation.actor}"


def owner_of(session: Session) -> str:
    """tenant|issuer|subject of whose it is."""
    return session.holder.rpartition("\n")[0]


def _declared(params: Mapping[str, Any]) -> bytes:
    """The capabilities of a client, as JSON. Raises BadEnvelope."""
    capabilities = params.get("capabilities")
    declared = encode(capabilities if isinstance(capabilities, dict) else {})
    if len(declared) > CAPABILITIES_MAX:
        raise BadEnvelope(INVALID_PARAMS, f"params.capabilities are larger than {CAPABILITIES_MAX} bytes")
    return declared


def negotiated(asked: Any) -> str:
    """The version to go on with: the one asked for where it is served, else our newest of this era."""
    return asked if asked in LEGACY else LEGACY[0]


def _of(key: str) -> Any:
    return update(mcp_sessions).where(mcp_sessions.c.id == key)


def _insert(batch: Batch, row: Mapping[str, Any]) -> list[str]:
    """Gives the sessions that made room."""
    mine = select(mcp_sessions.c.id).where(mcp_sessions.c.holder == row["holder"]).order_by(mcp_sessions.c.used.desc())
    gone = list(batch.connection.execute(mine.limit(CACHED).offset(PER_HOLDER - 1)).scalars())
    _delete(batch, gone)
    batch.connection.execute(mcp_sessions.insert().values(**row))
    return gone


def _delete(batch: Batch, keys: list[str]) -> None:
    if keys:
        batch.connection.execute(delete(mcp_events).where(mcp_events.c.session.in_(keys)))
        batch.connection.execute(delete(mcp_sessions).where(mcp_sessions.c.id.in_(keys)))


def _delete_idle(batch: Batch, before: int) -> None:
    _delete(batch, list(batch.connection.execute(select(mcp_sessions.c.id).where(mcp_sessions.c.used <= before)).scalars()))
