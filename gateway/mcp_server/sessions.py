"""Sessions of the `initialize` era: each bound to who opened it and where, kept in the database, known to every process."""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, select, update

from adapters.mcp_wire import INVALID_PARAMS, LEGACY
from gateway.database import Batch, Database
from gateway.mcp_server.modern import BadEnvelope
from gateway.tables import mcp_events, mcp_sessions
from policies.bounded import BoundedCache
from policies.callers import Caller

IDLE_SECONDS = 3600.0
FRESH_SECONDS = 1.0  # for which a process believes what it read, where others may have changed it
TOUCHED_SECONDS = 60.0  # between two notes that a session is used
CACHED = 10_000
PER_HOLDER = 100  # sessions of one person; the one that was not used for longest makes room
CAPABILITIES_MAX = 8192  # bytes
URIS_MAX = 8192  # bytes
_objects = msgspec.json.Decoder(dict[str, Any]).decode
_texts = msgspec.json.Decoder(tuple[str, ...]).decode
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
        now = self._now()
        row: dict[str, Any] = {"id": session.id, "holder": session.holder, "resource": resource, "version": session.version}
        row |= {"capabilities": declared.decode(), "level": "", "uris": "[]", "created": now, "used": now}
        for gone in await self._database.write(lambda batch: _insert(batch, row)):
            self._known.drop(gone)
        self._keep(session, self._clock())
        return shown, session

    async def adopt(self, session: Session, params: Mapping[str, Any]) -> Session:
        """The parameters of `initialize` in a session that is there already. Raises BadEnvelope."""
        declared, version = _declared(params), negotiated(params.get("protocolVersion"))
        values = {"capabilities": declared.decode(), "version": version}
        await self._database.write(lambda batch: batch.connection.execute(_of(session.id).values(values)))
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
        await self._database.write(lambda batch: _delete(batch, [session.id]))

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

    async def change(self, session: Session, *, level: str | None = None, uris: tuple[str, ...] | None = None) -> Session:
        """Sets the level of log messages, or what it subscribed to. Raises BadEnvelope for too much of the latter."""
        changed = msgspec.structs.replace(
            session, level=session.level if level is None else level, uris=session.uris if uris is None else uris
        )
        subscribed = encode(changed.uris)
        if len(subscribed) > URIS_MAX:
            raise BadEnvelope(INVALID_PARAMS, "this session is subscribed to as many resources as one may be")
        values = {"level": changed.level, "uris": subscribed.decode()}
        await self._database.write(lambda batch: batch.connection.execute(_of(session.id).values(values)))
        self._keep(changed, self._clock())
        return changed

    async def current(self, session: Session) -> Session | None:
        """The session as it is now; None when it is closed."""
        known = self._known.get(session.id) or await self._read(session.id)
        return known.session if known else None

    async def sweep(self) -> None:
        """Forgets sessions that nobody uses any more; to be called now and then."""
        before = self._now() - int(IDLE_SECONDS * 1e6)
        await self._database.write(lambda batch: _delete_idle(batch, before))

    def _keep(self, session: Session, now: float) -> _Known:
        known = _Known(session, now, now)
        self._known.put(session.id, known, IDLE_SECONDS if self._database.sqlite else FRESH_SECONDS)
        return known

    async def _read(self, key: str) -> _Known | None:
        before = self._now() - int(IDLE_SECONDS * 1e6)

        def work(connection: Connection) -> tuple[Session, int] | None:
            row = connection.execute(select(mcp_sessions).where(mcp_sessions.c.id == key, mcp_sessions.c.used > before)).one_or_none()
            if row is None:
                return None
            return (
                Session(row.id, row.holder, row.resource, row.version, _objects(row.capabilities), row.level, _texts(row.uris)),
                row.used,
            )

        found = await self._database.read(work)
        if found is None:
            return None
        known = self._keep(found[0], self._clock())
        known.touched -= (self._now() - found[1]) / 1e6
        return known


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
