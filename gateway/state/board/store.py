"""The stored board: reads values and their history, and changes values in commits of its own."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Row, Select, select

from gateway.events.own_types import STATE_CHANGED
from gateway.events.recorder import NO_EVENTS, EventRecorder
from gateway.state.board.counters import BoardLimits
from gateway.state.board.values import Change, StoredValue
from gateway.state.board.writes import FIND_VALUE, KeyRef, source_from_row, value_from_row, values_from_rows
from gateway.state.tables import state_changes, state_values
from gateway.storage.database import Batch, Database
from policies.callers import Caller


class KeyRange(Struct, frozen=True):
    """Values in the order of their keys. `place`: the last key that was looked at; `is_last`: there is none after it."""

    values: tuple[StoredValue, ...]
    place: str
    is_last: bool


class BoardStore:
    """Values and changes of all tenants. `now` returns microseconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], int], limits: BoardLimits, recorder: EventRecorder = NO_EVENTS) -> None:
        self.database = database
        self.now = now
        self.limits = limits
        self._recorder = recorder

    def record_event(self, batch: Batch, caller: Caller, key: str, result: StoredValue | int) -> None:
        """Records the event that a caller has set a value, or deleted it (`result` is then the version), in the commit of the change.

        The event has no value, which readers get by key. Callers that may read the key see it.
        """
        is_set = isinstance(result, StoredValue)
        data = {"key": key, "version": result.version if isinstance(result, StoredValue) else result, "is_set": is_set}
        tenant, txn = caller.principal.tenant, caller.delegation.txn
        self._recorder.record_event(batch, tenant, STATE_CHANGED, key, data, permission=f"state:read:{key}", txn=txn)

    async def find(self, ref: KeyRef) -> StoredValue | None:
        """The value of a key; None where it has none, or where it has expired."""
        found = await self.database.query(FIND_VALUE, (ref.tenant, ref.key), values_from_rows)
        return None if not found or found[0].is_expired(self.now()) else found[0]

    async def list_below(self, tenant: str, prefix: str, after: str, limit: int) -> KeyRange:
        """The values of the prefix and of the keys below it, in the order of their keys, after the key `after`."""
        query = keys_within(select(state_values), state_values.c, tenant, prefix)
        query = query.where(state_values.c.key > after).order_by(state_values.c.key).limit(limit)
        found = await self.database.read(lambda connection: [value_from_row(row) for row in connection.execute(query)])
        now = self.now()
        live = tuple(value for value in found if not value.is_expired(now))
        return KeyRange(live, found[-1].key if found else after, is_last=len(found) < limit)

    async def history(self, ref: KeyRef, before: int | None, limit: int) -> list[Change]:
        """Changes of a key, the newest first, before version `before`."""
        columns = state_changes.c
        query = select(state_changes).where(columns.tenant == ref.tenant, columns.key == ref.key)
        query = query if before is None else query.where(columns.version < before)
        ordered = query.order_by(columns.version.desc()).limit(limit)
        return await self.database.read(lambda connection: read_changes(connection, ordered))


def keys_within(query: "Select[Any]", columns: Any, tenant: str, prefix: str) -> "Select[Any]":
    """Keeps the tenant's rows whose key is the prefix or below it. `0` is the character after the slash."""
    query = query.where(columns.tenant == tenant)
    if not prefix:
        return query
    return query.where((columns.key == prefix) | ((columns.key > f"{prefix}/") & (columns.key < f"{prefix}0")))


def read_changes(connection: Connection, query: "Select[Any]") -> list[Change]:
    return [_change_from_row(row) for row in connection.execute(query).all()]


def _change_from_row(row: "Row[Any]") -> Change:
    return Change(row.tenant, row.seq, row.key, row.version, row.kind, row.value, source_from_row(row), row.at)
