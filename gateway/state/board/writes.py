"""Changes of the board in a transaction, which others can join: setting a value, deleting it, and its expiry.

Each change locks the tenant's counters first, raises the version of the key by one, adds to the history, and raises the version of the
key's subject. A refusal is raised before anything is written.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, func, select

from gateway.state.board.counters import BoardLimits, Counters, count_change, lock_counters
from gateway.state.board.keys import subject_of
from gateway.state.board.problems import BoardValueTooLarge, UnknownValue
from gateway.state.board.values import (
    DELETED,
    EXPIRED,
    EXPIRY,
    NO_PRECONDITION,
    SET,
    VALUE_BYTES_MAX,
    Precondition,
    StoredValue,
    ValueSource,
)
from gateway.state.subjects.queries import run_query
from gateway.state.subjects.versions import raise_subject_version
from gateway.state.tables import state_changes
from gateway.storage.batch import Batch

_SET: Final = (
    "INSERT INTO state_values (tenant, key, version, value, sensitivity, updated_by, agent, chain, task_id, decision_id, created, updated, "
    "expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, key) DO UPDATE SET version = excluded.version, "
    "value = excluded.value, sensitivity = excluded.sensitivity, updated_by = excluded.updated_by, agent = excluded.agent, "
    "chain = excluded.chain, task_id = excluded.task_id, decision_id = excluded.decision_id, updated = excluded.updated, "
    "expires = excluded.expires WHERE state_values.version = excluded.version - 1"
)
FIND_VALUE: Final = (
    "SELECT tenant, key, version, value, sensitivity, updated_by, chain, task_id, decision_id, created, updated, expires "
    "FROM state_values WHERE tenant = ? AND key = ?"
)
_decode_chain = msgspec.json.Decoder(tuple[str, ...]).decode
_DELETE: Final = "DELETE FROM state_values WHERE tenant = ? AND key = ? AND version = ?"
_ADD_CHANGE: Final = (
    "INSERT INTO state_changes (tenant, seq, key, version, kind, value, sensitivity, updated_by, agent, chain, task_id, decision_id, at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PRUNE: Final = "DELETE FROM state_changes WHERE tenant = ? AND key = ? AND version <= ?"


class KeyRef(Struct, frozen=True):
    """A key of one tenant's board. The key was checked (`check_key`)."""

    tenant: str
    key: str


class NewValue(Struct, frozen=True):
    """A value to be set: its JSON, its author, its conditions on the current value, and when it expires (microseconds since 1970)."""

    ref: KeyRef
    value: str
    source: ValueSource
    precondition: Precondition = NO_PRECONDITION
    expires: int | None = None


def set_value(batch: Batch, new: NewValue, now: int, limits: BoardLimits) -> StoredValue:
    """Sets a value in the caller's transaction. Raises StaleVersion, VersionRequired, BoardValueTooLarge and BoardFull."""
    counters, current = lock_current(batch, new.ref, now)
    return set_locked_value(batch, counters, current, new, now=now, limits=limits)


def set_locked_value(
    batch: Batch, counters: Counters, current: StoredValue | None, new: NewValue, *, now: int, limits: BoardLimits
) -> StoredValue:
    """Sets the value of a key whose counters and value `lock_current` has returned. Raises as `set_value` does."""
    size = check_size(new.value)
    new.precondition.check(new.ref.key, current.version if current else 0)
    new_keys, new_bytes = (0, size - _size_of(current.value)) if current else (1, size)
    counters.check_room(limits, new_keys, new_bytes)
    version = (current.version if current else _last_version(batch.connection, new.ref, counters)) + 1
    created = current.created if current else now
    batch.run(_SET, (new.ref.tenant, new.ref.key, version, new.value, *new.source.columns, created, now, new.expires))
    change = _NewChange(new.ref, version, SET, new.value, new.source, now)
    _record_change(batch, counters, change, new_keys, new_bytes)
    if version > limits.changes_per_key:
        batch.run(_PRUNE, (new.ref.tenant, new.ref.key, version - limits.changes_per_key))
    return StoredValue(new.ref.tenant, new.ref.key, version, new.value, new.source, created, now, new.expires)


def delete_value(batch: Batch, ref: KeyRef, source: ValueSource, precondition: Precondition, now: int) -> int:
    """Deletes a value in the caller's transaction and returns the version of the deletion.

    Raises UnknownValue, StaleVersion and VersionRequired.
    """
    counters, current = lock_current(batch, ref, now)
    if current is None:
        if precondition.versions or precondition.any_version:
            precondition.check(ref.key, 0)
        raise UnknownValue(ref.key)
    precondition.check(ref.key, current.version)
    return _remove(batch, counters, current, _NewChange(ref, current.version + 1, DELETED, None, source, now))


def lock_current(batch: Batch, ref: KeyRef, now: int) -> tuple[Counters, StoredValue | None]:
    """Locks the tenant's board until the commit, and returns its counters and the value of the key. A value that has expired goes first."""
    counters, current = lock_counters(batch, ref.tenant), find_value(batch.connection, ref)
    if current is None or not current.is_expired(now):
        return counters, current
    expire_value(batch, counters, current, now)
    return lock_counters(batch, ref.tenant), None


def expire_value(batch: Batch, counters: Counters, current: StoredValue, now: int) -> None:
    """Deletes a value whose time is over. `counters` come from `lock_counters`."""
    ref = KeyRef(current.tenant, current.key)
    _remove(batch, counters, current, _NewChange(ref, current.version + 1, EXPIRED, None, EXPIRY, now))


def find_value(connection: Connection, ref: KeyRef) -> StoredValue | None:
    """The stored value of a key, which may have expired."""
    rows = [tuple(row) for row in run_query(connection, FIND_VALUE, ref.tenant, ref.key)]
    return next(iter(values_from_rows(rows)), None)


def values_from_rows(rows: Iterable[tuple[Any, ...]]) -> list[StoredValue]:
    """The values in rows of FIND_VALUE."""
    return [
        StoredValue(tenant, key, version, value, ValueSource(owner, _decode_chain(chain), task_id, decision_id, sensitivity), *times)
        for tenant, key, version, value, sensitivity, owner, chain, task_id, decision_id, *times in rows
    ]


def value_from_row(row: "Row[Any]") -> StoredValue:
    return StoredValue(row.tenant, row.key, row.version, row.value, source_from_row(row), row.created, row.updated, row.expires)


def source_from_row(row: "Row[Any]") -> ValueSource:
    """The source in the columns that values, changes and held values have in common."""
    return ValueSource(row.updated_by, _decode_chain(row.chain), row.task_id, row.decision_id, row.sensitivity)


def check_size(value: str) -> int:
    """The bytes of a value's JSON. Raises BoardValueTooLarge."""
    size = _size_of(value)
    if size > VALUE_BYTES_MAX:
        raise BoardValueTooLarge(f"The value has {size} bytes of JSON; at most {VALUE_BYTES_MAX} are allowed. Split it over several keys.")
    return size


class _NewChange(Struct, frozen=True):
    """One change that is being written."""

    ref: KeyRef
    version: int
    kind: str
    value: str | None
    source: ValueSource
    at: int


def _remove(batch: Batch, counters: Counters, current: StoredValue, change: _NewChange) -> int:
    batch.run(_DELETE, (current.tenant, current.key, current.version))
    _record_change(batch, counters, change, -1, -_size_of(current.value))
    return change.version


def _record_change(batch: Batch, counters: Counters, change: _NewChange, new_keys: int, new_bytes: int) -> None:
    ref, seq = change.ref, counters.seq + 1
    count_change(batch, ref.tenant, seq, new_keys, new_bytes)
    row = (ref.tenant, seq, ref.key, change.version, change.kind, change.value, *change.source.columns, change.at)
    batch.run(_ADD_CHANGE, row)
    raise_subject_version(batch, ref.tenant, subject_of(ref.key))


def _last_version(connection: Connection, ref: KeyRef, counters: Counters) -> int:
    """The last version of a key that has no value now, so that an old version is never given to another value.

    Without a history it is the floor, which is at least as high as any version that the key ever had.
    """
    query = select(func.max(state_changes.c.version)).where(state_changes.c.tenant == ref.tenant, state_changes.c.key == ref.key)
    return connection.execute(query).scalar() or counters.floor


def _size_of(value: str) -> int:
    return len(value.encode())
