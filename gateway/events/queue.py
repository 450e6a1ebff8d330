"""Rows that are tried in order per subject until they succeed: leased by one process at a time, retried later, dead in the end."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from msgspec import Struct
from sqlalchemy import ColumnElement, Integer, Select, Table, bindparam, exists, select

from gateway.storage.database import Batch, Database
from gateway.storage.paging import first_page
from policies.delegation.rulings import Act

RETRY_SECONDS: Final = (1, 4, 15, 60, 300, 1800)  # between attempts, plus or minus a fifth
LEASE_US: Final = 60_000_000  # after which another process tries a row whose process has ended
DEAD_KEPT_US: Final = 30 * 86_400 * 1_000_000
PENDING_STATE: Final = "pending"
RETRY_DEAD_LETTERS: Final = Act("registerAgent", "Key", "deadletters", "registry:write", "deadletters")


class QueuedRow(Struct, frozen=True):
    """A row that this process alone tries now. `attempts` counts this attempt too."""

    seq: int
    tenant: str
    id: str
    subject: str
    attempts: int
    columns: Any  # the row as it was read


class UnknownLetter(Exception):
    """No such dead letter exists in this tenant."""


class DeadLetters(Protocol):
    """A store of what could not be delivered or started."""

    async def list_dead_letters(self, tenant: str, cursor: str, limit: int) -> tuple[list[dict[str, Any]], str | None]: ...

    async def retry(self, tenant: str, delivery_id: str) -> None: ...

    async def drop_letter(self, tenant: str, letter_id: str) -> None: ...


class EventQueue:
    """One table of such rows. `scope` is the column within which the order per subject holds, beside the tenant."""

    def __init__(
        self, database: Database, table: Table, scope: str, now: Callable[[], int], jitter: Callable[[], float] = random.random
    ) -> None:
        """`now` returns microseconds since 1970, `jitter` numbers from 0 to 1."""
        self._database = database
        self._table = table
        self._scope = scope
        self._now = now
        self._jitter = jitter
        self._due = self._due_rows()  # built once: building a query takes longer than running it
        self._leasable = self._due.with_for_update(of=table, skip_locked=True)

    async def acquire(self, count: int, only: str = "") -> list[QueuedRow]:
        """Leases at most `count` due rows, each the first of its subject. `only`: of this scope."""
        values = {"now": self._now(), "only": only, "count": count}
        if await self._database.read(lambda connection: connection.execute(self._due, values).first()) is None:
            return []
        return await self._database.write(lambda batch: self._lease(batch, values))

    def _due_rows(self) -> "Select[Any]":
        """The query for due rows without an earlier one of their subject that is still to be done."""
        row, earlier = self._table.c, self._table.alias("earlier").c
        same = (earlier.tenant == row.tenant) & (earlier[self._scope] == row[self._scope]) & (earlier.subject == row.subject)
        has_earlier = exists().where(same, row.subject != "", earlier.state == PENDING_STATE, earlier.seq < row.seq)
        is_meant = (bindparam("only") == "") | (row[self._scope] == bindparam("only"))
        query = select(self._table).where(row.state == PENDING_STATE, row.next_at <= bindparam("now"), is_meant, ~has_earlier)
        return query.order_by(row.seq).limit(bindparam("count", type_=Integer))

    def _lease(self, batch: Batch, values: Mapping[str, Any]) -> list[QueuedRow]:
        rows = batch.connection.execute(self._leasable, values).all()
        until, now = self._now() + LEASE_US, self._now()
        statement = f"UPDATE {self._table.name} SET attempts = attempts + 1, next_at = ?, updated = ? WHERE seq = ?"  # noqa: S608 (our table)
        for row in rows:
            batch.run(statement, (until, now, row.seq))
        return [QueuedRow(row.seq, row.tenant, row.id, row.subject, row.attempts + 1, row) for row in rows]

    def finishing_write(self, row: QueuedRow) -> Callable[[Batch], int]:
        """Deletes a row that is done with, even if its lease has ended and another process tries it by now."""
        statement = f"DELETE FROM {self._table.name} WHERE seq = ?"  # noqa: S608 (our table)
        return lambda batch: batch.run(statement, (row.seq,))

    async def finish(self, row: QueuedRow) -> None:
        """Deletes a row that is done with."""
        await self._database.write(self.finishing_write(row))

    async def record_failure(self, row: QueuedRow, reason: str, *, is_lasting: bool = False) -> bool:
        """Has a row tried again later, or makes it a dead letter after the last attempt; returns whether it is dead."""
        is_dead, now = is_lasting or row.attempts > len(RETRY_SECONDS), self._now()
        wait = 0 if is_dead else int(RETRY_SECONDS[row.attempts - 1] * (0.8 + 0.4 * self._jitter()) * 1_000_000)
        values = ("dead" if is_dead else PENDING_STATE, reason[:500], now + wait, now, row.seq, row.attempts)
        statement = f"UPDATE {self._table.name} SET state = ?, reason = ?, next_at = ?, updated = ? WHERE seq = ? AND attempts = ?"  # noqa: S608 (our table)
        await self._database.write(lambda batch: batch.run(statement, values))
        return is_dead

    async def list_dead_letters(self, tenant: str, cursor: str, limit: int) -> tuple[list[Any], str | None]:
        """The dead rows of a tenant, the newest first, and the cursor of the next page."""
        row = self._table.c
        query = select(self._table).where(row.tenant == tenant, row.state == "dead", *_before(row.id, cursor))
        rows = await self._database.read(lambda c: c.execute(query.order_by(row.id.desc()).limit(limit + 1)).all())
        return first_page(rows, limit)

    async def retry(self, tenant: str, letter_id: str) -> None:
        """Has a dead row tried again, starting with the first attempt. Raises UnknownLetter."""
        now = self._now()
        statement = (
            f"UPDATE {self._table.name} SET state = 'pending', attempts = 0, next_at = ?, updated = ? "  # noqa: S608 (our table)
            "WHERE tenant = ? AND id = ? AND state = 'dead'"
        )
        if not await self._database.write(lambda batch: batch.run(statement, (now, now, tenant, letter_id))):
            raise UnknownLetter

    async def drop_letter(self, tenant: str, letter_id: str) -> None:
        """Deletes a dead row. Raises UnknownLetter."""
        statement = f"DELETE FROM {self._table.name} WHERE tenant = ? AND id = ? AND state = 'dead'"  # noqa: S608 (our table)
        if not await self._database.write(lambda batch: batch.run(statement, (tenant, letter_id))):
            raise UnknownLetter

    async def end_foreign(self, known: Sequence[str], reason: str) -> int:
        """Makes dead letters of rows whose scope the settings name no more, and deletes dead ones of a month ago."""
        row, now = self._table.c, self._now()
        lost = select(row.seq).where(row.state == PENDING_STATE, row[self._scope].not_in(known)).limit(1000)
        end = f"UPDATE {self._table.name} SET state = 'dead', reason = ?, updated = ? WHERE seq = ?"  # noqa: S608 (our table)
        prune = f"DELETE FROM {self._table.name} WHERE state = 'dead' AND updated < ?"  # noqa: S608 (our table)

        def work(batch: Batch) -> int:
            found = batch.connection.execute(lost).scalars().all()
            for seq in found:
                batch.run(end, (reason, now, seq))
            batch.run(prune, (now - DEAD_KEPT_US,))
            return len(found)

        return await self._database.write(work)


def _before(column: ColumnElement[str], cursor: str) -> list[ColumnElement[bool]]:
    return [column < cursor] if cursor else []
