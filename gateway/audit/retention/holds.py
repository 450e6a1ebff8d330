"""Legal holds: what an operator exempts from deletion. A hold names a tenant, a person or a task."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import structlog
from msgspec import Struct
from sqlalchemy import Connection, select

from gateway.audit.retention.task_rows import owner_of_deleted
from gateway.audit.retention.terms import UnknownHold
from gateway.storage.batch import Batch
from gateway.storage.database import Database
from gateway.storage.tables import legal_holds, tasks
from gateway.tasks.log import UnknownTask
from policies.delegation.chain import Principal

NAMES_AT_ONCE: Final = 500
HOLDS_LOCK: Final = 4_242_004  # a lock of the database: a hold is placed before a deletion looks for holds, or after its commit
_EXISTING: Final = "SELECT 1 FROM tasks WHERE tenant = ? AND id = ? AND owner <> ?"
HoldKind = Literal["tenant", "person", "task"]
log = structlog.get_logger()


class Hold(Struct, frozen=True):
    """A hold in force. `name` is a person as tenant|issuer|subject, or the id of a task; empty for the whole tenant."""

    tenant: str
    id: str
    kind: HoldKind
    name: str
    reason: str
    placed_by: str
    placed_at: int


class HeldNames(Struct, frozen=True):
    """What the holds of one tenant keep. Two that are equal keep the same."""

    whole_tenant: bool
    people: frozenset[str]
    tasks: frozenset[str]


class LegalHolds:
    """Places and releases holds, each in one commit with its audit record. `now` returns microseconds since 1970."""

    def __init__(
        self,
        database: Database,
        record_audit: Callable[[Batch, Mapping[str, Any]], None],
        new_id: Callable[[str], str],
        now: Callable[[], int],
    ) -> None:
        self._database = database
        self._record_audit = record_audit
        self._new_id = new_id
        self._now = now

    async def place(self, by: Principal, kind: HoldKind, name: str, reason: str) -> Hold:
        """Returns the hold; the one in force, if there is one on the same target already. Raises UnknownTask."""
        wanted = Hold(by.tenant, self._new_id("h"), kind, name, reason, by.owner_key, self._now())

        def work(batch: Batch) -> Hold:
            batch.lock(HOLDS_LOCK)
            known = _read_all(batch.connection, by.tenant)
            if same := next((hold for hold in known if (hold.kind, hold.name) == (kind, name)), None):
                return same
            if kind == "task" and batch.fetch(_EXISTING, (by.tenant, name, owner_of_deleted(by.tenant))) is None:
                raise UnknownTask
            batch.add(legal_holds, {field: getattr(wanted, field) for field in Hold.__struct_fields__})
            self._record_audit(batch, _audit_record(by, wanted, "placed", wanted.placed_at))
            return wanted

        hold = await self._database.write_or_refuse(work, UnknownTask)
        log.info("hold_placed", hold_id=hold.id, kind=hold.kind, name=hold.name, by=by.owner_key)
        return hold

    async def release(self, by: Principal, hold_id: str) -> Hold:
        """Ends a hold. What it kept is deleted in the next round, as far as it is due. Raises UnknownHold."""

        def work(batch: Batch) -> Hold:
            hold = next((one for one in _read_all(batch.connection, by.tenant) if one.id == hold_id), None)
            if hold is None:
                raise UnknownHold
            batch.run("DELETE FROM legal_holds WHERE tenant = ? AND id = ?", (by.tenant, hold_id))
            self._record_audit(batch, _audit_record(by, hold, "released", self._now()))
            return hold

        hold = await self._database.write_or_refuse(work, UnknownHold)
        log.info("hold_released", hold_id=hold.id, kind=hold.kind, name=hold.name, by=by.owner_key)
        return hold

    async def list_of_tenant(self, tenant: str) -> list[Hold]:
        """Returns the holds in force, the newest first."""
        return await self._database.read(lambda connection: _read_all(connection, tenant))


def read_held_names(connection: Connection, tenant: str) -> HeldNames:
    """Returns what the holds of a tenant keep."""
    holds = _read_all(connection, tenant)
    named = {kind: frozenset(hold.name for hold in holds if hold.kind == kind) for kind in ("tenant", "person", "task")}
    return HeldNames(bool(named["tenant"]), named["person"], named["task"])


def held_transactions(connection: Connection, tenant: str, held: HeldNames) -> set[str]:
    """Returns the transactions of the tasks that are held: all tasks of each are kept, so that its trace stays whole."""
    found: set[str] = set()
    names = sorted(held.tasks)
    for first in range(0, len(names), NAMES_AT_ONCE):
        query = select(tasks.c.txn).where(tasks.c.tenant == tenant, tasks.c.id.in_(names[first : first + NAMES_AT_ONCE]))
        found.update(connection.execute(query).scalars())
    return found


def _read_all(connection: Connection, tenant: str) -> list[Hold]:
    query = select(legal_holds).where(legal_holds.c.tenant == tenant).order_by(legal_holds.c.placed_at.desc(), legal_holds.c.id.desc())
    return [Hold(**row._mapping) for row in connection.execute(query)]


def _audit_record(by: Principal, hold: Hold, verb: str, at: int) -> dict[str, Any]:
    members = {"kind": "hold", "at": at, "tenant": by.tenant, "decision_id": "", "txn": "", "task_id": ""}
    target = {"kind": hold.kind, "name": hold.name}
    who = {"issuer": by.issuer, "subject": by.subject}
    return {**members, "verb": verb, "hold_id": hold.id, "target": target, "reason": hold.reason, "principal": who}
