"""Values that miss the schema of their key, kept aside until a person accepts or drops them."""

import re
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, func, select

from gateway.state.board.counters import BoardLimits, lock_counters
from gateway.state.board.problems import BoardFull, HeldValueDecided, OwnHeldValue, UnknownHeldValue
from gateway.state.board.values import Precondition, StoredValue, ValueSource
from gateway.state.board.writes import KeyRef, NewValue, set_value, source_from_row
from gateway.state.tables import state_held
from gateway.storage.batch import Batch
from policies.ids import new_id

PENDING: Final = "pending"
ACCEPTED: Final = "accepted"
DROPPED: Final = "dropped"
EXPIRED: Final = "expired"
HELD_ID: Final = re.compile(r"hv_[0-9a-f]{1,60}")
HELD_MAX: Final = 1000  # pending, of one tenant
_INSERT: Final = (
    "INSERT INTO state_held (tenant, id, key, base, value, problem, sensitivity, updated_by, agent, chain, task_id, decision_id, at, "
    "state, decided_by, approval_id, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', '', ?, ?)"
)
_CLOSE_APPROVAL: Final = (
    "UPDATE approvals SET state = ?, used_by = ?, closed = ? WHERE tenant = ? AND id = ? AND state IN ('pending', 'approved')"
)
_DECIDE: Final = "UPDATE state_held SET state = ?, decided_by = ?, decided = ? WHERE tenant = ? AND id = ? AND state = 'pending'"


class HeldValue(Struct, frozen=True):
    """A value that is held back. `base`: the version that it was to replace, 0 for none. `problem`: how it misses the schema."""

    tenant: str
    id: str
    key: str
    base: int
    value: str
    problem: str
    source: ValueSource
    at: int
    state: str = PENDING
    decided_by: str = ""
    approval_id: str = ""  # of the question to people, or empty
    expires: int | None = None  # when it is dropped by itself

    def decode(self) -> Any:
        return msgspec.json.decode(self.value)


class HeldDecision(Struct, frozen=True):
    """What a person decides about a held value. `person` is tenant|issuer|subject."""

    tenant: str
    id: str
    accepts: bool
    person: str
    decision_id: str


def build_held_value(connection: Connection, new: NewValue, base: int, problem: str, now: int) -> HeldValue:
    """Returns a value to be kept aside, which is not stored yet. Raises BoardFull where the tenant has HELD_MAX of them."""
    pending = (state_held.c.tenant == new.ref.tenant) & (state_held.c.state == PENDING)
    if connection.execute(select(func.count()).select_from(state_held).where(pending)).scalar_one() >= HELD_MAX:
        raise BoardFull(f"{HELD_MAX} values are held back already. Have people accept or drop some of them.")
    return HeldValue(new.ref.tenant, new_id("hv"), new.ref.key, base, new.value, problem, new.source, now)


def hold_value(batch: Batch, held: HeldValue) -> HeldValue:
    """Stores a value of `build_held_value` in the caller's transaction, and returns it."""
    what = (held.tenant, held.id, held.key, held.base, held.value, held.problem)
    batch.run(_INSERT, (*what, *held.source.columns, held.at, held.approval_id, held.expires))
    return held


def decide_held(batch: Batch, decision: HeldDecision, now: int, limits: BoardLimits, expires: int | None) -> StoredValue | None:
    """Accepts or drops a held value, and returns what became its value. An accepted one replaces only the version that its writer meant.

    Raises UnknownHeldValue, HeldValueDecided, OwnHeldValue, StaleVersion and BoardFull.
    """
    lock_counters(batch, decision.tenant)
    held = find_held(batch.connection, decision.tenant, decision.id, for_update=True)  # so that no pruning comes between
    if held.state != PENDING:
        raise HeldValueDecided(held.state)
    if held.expires is not None and held.expires <= now:
        raise HeldValueDecided(EXPIRED)
    if decision.accepts and held.source.owner == decision.person:
        raise OwnHeldValue
    stored = None
    if decision.accepts:
        condition = Precondition((held.base,)) if held.base else Precondition(no_value=True)
        stored = set_value(batch, NewValue(KeyRef(held.tenant, held.key), held.value, held.source, condition, expires), now, limits)
    state = ACCEPTED if decision.accepts else DROPPED
    if not batch.run(_DECIDE, (state, decision.person, now, held.tenant, held.id)):
        raise HeldValueDecided("decided")
    if held.approval_id:
        closed = ("used", decision.decision_id) if decision.accepts else ("denied", "")
        batch.run(_CLOSE_APPROVAL, (*closed, now, held.tenant, held.approval_id))
    return stored


def find_held(connection: Connection, tenant: str, held_id: str, *, for_update: bool = False) -> HeldValue:
    """The value; with `for_update` no other process changes or deletes it until the commit. Raises UnknownHeldValue."""
    if not HELD_ID.fullmatch(held_id):
        raise UnknownHeldValue
    query = select(state_held).where(state_held.c.tenant == tenant, state_held.c.id == held_id)
    row = connection.execute(query.with_for_update() if for_update else query).first()
    if row is None:
        raise UnknownHeldValue
    return held_from_row(row)


def find_held_of_approval(connection: Connection, tenant: str, approval_id: str) -> HeldValue:
    """The value that people are asked about. Raises UnknownHeldValue."""
    row = connection.execute(select(state_held).where(state_held.c.tenant == tenant, state_held.c.approval_id == approval_id)).first()
    if row is None:
        raise UnknownHeldValue
    return held_from_row(row)


def list_held(connection: Connection, tenant: str, now: int, place: tuple[int, str] | None, limit: int) -> list[HeldValue]:
    """The pending values of a tenant, the oldest first, after the place (moment, id) of the last one of a page."""
    columns = state_held.c
    query = select(state_held).where(columns.tenant == tenant, columns.state == PENDING)
    query = query.where(columns.expires.is_(None) | (columns.expires > now))
    if place is not None:
        query = query.where((columns.at > place[0]) | ((columns.at == place[0]) & (columns.id > place[1])))
    return [held_from_row(row) for row in connection.execute(query.order_by(columns.at, columns.id).limit(limit)).all()]


def held_from_row(row: "Row[Any]") -> HeldValue:
    source = source_from_row(row)
    decided = (row.state, row.decided_by, row.approval_id, row.expires)
    return HeldValue(row.tenant, row.id, row.key, row.base, row.value, row.problem, source, row.at, *decided)
