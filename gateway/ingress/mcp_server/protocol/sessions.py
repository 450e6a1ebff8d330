"""Sessions of the legacy era: bound to a caller and a path, stored in the database, valid at every process."""

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
from gateway.storage.database import Batch, Database, raise_epoch
from gateway.storage.tables import mcp_events, mcp_sessions, processes
from policies.cache import BoundedCache
from policies.callers import Caller

IDLE_SECONDS = 3600.0
CACHE_SECONDS = 0.25  # how long a process caches a session that other processes may change
TOUCH_SECONDS = 60.0  # between two writes of a session's last use
CACHE_MAX = 10_000
SESSIONS_PER_HOLDER = 100  # sessions of one holder; the least recently used one is closed for a new one
CAPABILITIES_BYTES_MAX = 8192
URIS_BYTES_MAX = 8192
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_flags = msgspec.json.Decoder(dict[str, bool]).decode
T = TypeVar("T")
encode = msgspec.json.Encoder().encode


class UnknownSession(Exception):
    """The caller has no such session; the client has to initialize again (HTTP 404)."""


class McpSession(Struct, frozen=True):
    """A session. `id` is the digest of the id that the client sends. `level` of log messages is empty until it is set."""

    id: str
    holder: str
    resource: str
    version: str
    capabilities: Mapping[str, Any]
    level: str = ""
    uris: tuple[str, ...] = ()


class _CachedSession(Struct):
    session: McpSession
    touched_at: float


class McpSessions:
    """Opens and finds sessions; a session of another caller is unknown.

    `now` returns microseconds since 1970, `clock` monotonic seconds.
    """

    def __init__(self, database: Database, now: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._now = now
        self._clock = clock
        self._cached: BoundedCache[str, _CachedSession] = BoundedCache(CACHE_MAX, clock)

    async def open(self, caller: Caller, resource: str, params: Mapping[str, Any]) -> tuple[str, McpSession]:
        """Opens a session with the parameters of `initialize`. Returns the id for the client, and the session.

        Raises BadEnvelope, WriteFailed.
        """
        declared = _encode_capabilities(params)
        shown = secrets.token_urlsafe(32)
        session = McpSession(
            session_id_of(shown), holder_of(caller), resource, negotiate_version(params.get("protocolVersion")), _decode_object(declared)
        )
        now, began = self._now(), self._clock()
        row: dict[str, Any] = {"id": session.id, "holder": session.holder, "resource": resource, "version": session.version}
        row |= {"capabilities": declared.decode(), "level": "", "uris": "[]", "created": now, "used": now}
        for gone in await self._database.write(lambda batch: _insert_session(batch, row)):
            self._cached.drop(gone)
        self._cache(session, began)
        return shown, session

    async def initialize(self, session: McpSession, params: Mapping[str, Any]) -> McpSession:
        """Sets the parameters of `initialize` in an open session. Raises BadEnvelope."""
        declared, version = _encode_capabilities(params), negotiate_version(params.get("protocolVersion"))
        values = {"capabilities": declared.decode(), "version": version}
        await self._write_and_wait(lambda batch: batch.connection.execute(_update_of(session.id).values(values)))
        changed = msgspec.structs.replace(session, version=version, capabilities=_decode_object(declared))
        self._cache(changed, self._clock())
        return changed

    async def find(self, presented_id: str, caller: Caller, resource: str) -> McpSession:
        """Returns the caller's session, whose use keeps it open. Raises UnknownSession, ReadFailed."""
        known = self._cached.get(session_id_of(presented_id)) or await self._read_session(session_id_of(presented_id))
        if known is None or known.session.holder != holder_of(caller) or known.session.resource != resource:
            raise UnknownSession
        now = self._clock()
        if now - known.touched_at > TOUCH_SECONDS:
            known.touched_at = now
            used = {"used": self._now()}
            self._database.post(lambda batch: batch.connection.execute(_update_of(known.session.id).values(used)))
            if self._database.is_sqlite:
                self._cache(known.session, now)
        return known.session

    async def close(self, session: McpSession) -> None:
        """Deletes a session and the stored events of its streams."""
        self._cached.drop(session.id)
        await self._write_and_wait(lambda batch: _delete_sessions(batch, [session.id]))

    async def close_killed(self, is_killed: Callable[[str, str], bool]) -> list[tuple[str, str]]:
        """Closes sessions whose owner or acting agent `is_killed`. Returns the owner and the id of each."""
        holders = select(mcp_sessions.c.id, mcp_sessions.c.holder)
        rows = await self._database.read(lambda connection: connection.execute(holders).all())
        gone = [(row.holder.rpartition("\n")[0], row.id) for row in rows if is_killed(*row.holder.rsplit("\n", 1))]
        for _, key in gone:
            self._cached.drop(key)
        if gone:
            await self._database.write(lambda batch: _delete_sessions(batch, [key for _, key in gone]))
        return gone

    async def set_level(self, session: McpSession, level: str) -> None:
        """Sets the level of log messages."""
        await self._write_and_wait(lambda batch: batch.connection.execute(_update_of(session.id).values({"level": level})))
        self._cache(msgspec.structs.replace(session, level=level), self._clock())

    async def subscribe(self, session: McpSession, uri: str) -> str:
        """Adds a subscription. Returns the process that has the session's stream, or "". Raises BadEnvelope for too many."""
        return await self._change_subscriptions(session, lambda uris: uris if uri in uris else (*uris, uri))

    async def unsubscribe(self, session: McpSession, uri: str) -> str:
        """Removes a subscription. Returns the process that has the session's stream, or ""."""
        return await self._change_subscriptions(session, lambda uris: tuple(each for each in uris if each != uri))

    async def _change_subscriptions(self, session: McpSession, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> str:
        """Changes the subscriptions in one transaction, since other processes may change them too, and notifies all processes."""

        def work(batch: Batch) -> tuple[tuple[str, ...], str]:
            query = select(mcp_sessions.c.uris, mcp_sessions.c.streamer).where(mcp_sessions.c.id == session.id)
            row = batch.connection.execute(query.with_for_update()).one_or_none()
            if row is None:
                raise UnknownSession
            uris = change(_decode_texts(row.uris))
            text = encode(uris)
            if len(text) > URIS_BYTES_MAX:
                raise BadEnvelope(INVALID_PARAMS, "this session has the maximum number of subscriptions; unsubscribe from some")
            batch.connection.execute(_update_of(session.id).values({"uris": text.decode()}))
            raise_epoch(batch, "sessions")
            return uris, row.streamer or ""

        uris, streamer = await self._write_and_wait(work)
        self._cache(msgspec.structs.replace(session, uris=uris), self._clock())
        return streamer

    async def record_stream_opened(self, session: McpSession, process: str) -> McpSession:
        """Records which process has the session's stream. Returns the current session. Raises UnknownSession."""

        def work(batch: Batch) -> Any:
            batch.connection.execute(_update_of(session.id).values({"streamer": process, "holds": None}))
            return batch.connection.execute(select(mcp_sessions).where(mcp_sessions.c.id == session.id)).one_or_none()

        row = await self._database.write(work)
        if row is None:
            raise UnknownSession
        return self._cache(_session_from_row(row), self._clock()).session

    def record_stream_ended(self, session: McpSession, process: str) -> None:
        """Clears the process of the session's stream, unless another process has taken it over."""
        statement = _update_of(session.id).where(mcp_sessions.c.streamer == process).values({"streamer": None, "holds": None})
        self._database.post(lambda batch: batch.connection.execute(statement))

    def publish_confirmed(self, session: McpSession, process: str, confirmed: Mapping[str, bool]) -> None:
        """Writes which subscriptions of the stream are confirmed, for other processes."""
        statement = _update_of(session.id).where(mcp_sessions.c.streamer == process).values({"holds": encode(confirmed).decode()})
        self._database.post(lambda batch: batch.connection.execute(statement))

    async def read_confirmed(self, session: McpSession, process: str) -> Mapping[str, bool] | None:
        """Returns what `process` published of its stream, or None when it no longer has the stream. Raises ReadFailed."""
        query = select(mcp_sessions.c.holds).where(mcp_sessions.c.id == session.id, mcp_sessions.c.streamer == process)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else _decode_flags(row.holds or "{}")

    async def list_with_stream_at(self, process: str) -> list[McpSession]:
        """Returns the current sessions whose streams a process has. Raises ReadFailed."""
        query = select(mcp_sessions).where(mcp_sessions.c.streamer == process)
        found = await self._database.read(lambda connection: [_session_from_row(row) for row in connection.execute(query)])
        now = self._clock()
        return [self._cache(session, now).session for session in found]

    async def read_current(self, session: McpSession) -> McpSession | None:
        """Returns the current session, or None when it is closed."""
        known = self._cached.get(session.id) or await self._read_session(session.id)
        return known.session if known else None

    async def _write_and_wait(self, write: Callable[[Batch], T]) -> T:
        """Writes a change, and waits until no process has the old session cached. Only then may it be acknowledged."""

        def write_and_count(batch: Batch) -> tuple[T, int]:
            done = write(batch)
            return done, batch.connection.execute(select(func.count()).select_from(processes)).scalar_one()

        done, count = await self._database.write_or_refuse(write_and_count, UnknownSession, BadEnvelope)
        if not self._database.is_sqlite and count > 1:
            await asyncio.sleep(CACHE_SECONDS)
        return done

    async def sweep(self) -> None:
        """Deletes sessions that were idle for IDLE_SECONDS. A periodic task calls it."""
        cutoff = self._now() - int(IDLE_SECONDS * 1e6)
        await self._database.write(lambda batch: _delete_idle(batch, cutoff))

    def _cache(self, session: McpSession, known_since: float) -> _CachedSession:
        """Caches a session. `known_since` is when it was read or written; others may have changed it since then."""
        known = _CachedSession(session, self._clock())
        seconds = IDLE_SECONDS if self._database.is_sqlite else known_since + CACHE_SECONDS - self._clock()
        if seconds > 0:
            self._cached.put(session.id, known, seconds)
        return known

    async def _read_session(self, key: str) -> _CachedSession | None:
        cutoff, began = self._now() - int(IDLE_SECONDS * 1e6), self._clock()
        query = select(mcp_sessions).where(mcp_sessions.c.id == key, mcp_sessions.c.used > cutoff)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            return None
        known = self._cache(_session_from_row(row), began)
        known.touched_at -= (self._now() - row.used) / 1e6
        return known


def _session_from_row(row: Any) -> McpSession:
    return McpSession(row.id, row.holder, row.resource, row.version, _decode_object(row.capabilities), row.level, _decode_texts(row.uris))


def session_id_of(presented_id: str) -> str:
    return hashlib.sha256(presented_id.encode()).hexdigest()


def holder_of(caller: Caller) -> str:
    """Returns the holder of a session: a person, or an agent that acts for one. An agent's sessions are not the person's."""
    return f"{caller.principal.owner_key}\n{caller.delegation.actor}"


def owner_of(session: McpSession) -> str:
    """Returns tenant|issuer|subject of the session's person."""
    return session.holder.rpartition("\n")[0]


def _encode_capabilities(params: Mapping[str, Any]) -> bytes:
    """Returns a client's capabilities as JSON. Raises BadEnvelope."""
    capabilities = params.get("capabilities")
    declared = encode(capabilities if isinstance(capabilities, dict) else {})
    if len(declared) > CAPABILITIES_BYTES_MAX:
        raise BadEnvelope(INVALID_PARAMS, f"params.capabilities are larger than {CAPABILITIES_BYTES_MAX} bytes")
    return declared


def negotiate_version(requested: Any) -> str:
    """Returns the requested version where it is served, else the gateway's newest of this era."""
    return requested if requested in LEGACY else LEGACY[0]


def _update_of(key: str) -> Any:
    return update(mcp_sessions).where(mcp_sessions.c.id == key)


def _insert_session(batch: Batch, row: Mapping[str, Any]) -> list[str]:
    """Inserts a session. Returns the ids of sessions that were closed for it."""
    of_holder = select(mcp_sessions.c.id).where(mcp_sessions.c.holder == row["holder"]).order_by(mcp_sessions.c.used.desc())
    gone = list(batch.connection.execute(of_holder.limit(CACHE_MAX).offset(SESSIONS_PER_HOLDER - 1)).scalars())
    _delete_sessions(batch, gone)
    batch.connection.execute(mcp_sessions.insert().values(**row))
    return gone


def _delete_sessions(batch: Batch, keys: list[str]) -> None:
    if keys:
        batch.connection.execute(delete(mcp_events).where(mcp_events.c.session.in_(keys)))
        batch.connection.execute(delete(mcp_sessions).where(mcp_sessions.c.id.in_(keys)))


def _delete_idle(batch: Batch, used_before_us: int) -> None:
    _delete_sessions(
        batch, list(batch.connection.execute(select(mcp_sessions.c.id).where(mcp_sessions.c.used <= used_before_us)).scalars())
    )
