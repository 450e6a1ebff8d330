"""Deletes what the retention terms no longer keep: ended tasks with their rows, and records whose task is gone. In small transactions."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from msgspec import Struct
from sqlalchemy import Connection

from gateway.audit.retention.archive import ArchivedPart, TaskArchive
from gateway.audit.retention.holds import HOLDS_LOCK, HeldNames, read_held_names
from gateway.audit.retention.leftovers import LEFTOVERS, Leftover
from gateway.audit.retention.selection import START, Place, count_due, find_cutoff, find_due, list_tenants
from gateway.audit.retention.slices import Slice, SliceWriter, next_slice
from gateway.audit.retention.sole_process import SoleProcess
from gateway.audit.retention.task_rows import (
    count_rows,
    delete_some_rows,
    delete_tasks,
    find_hidden_tasks,
    hide_task,
    lock_ended_tasks,
)
from gateway.audit.retention.terms import RetentionTerms, TermsByTenant
from gateway.storage.batch import Batch
from gateway.storage.database import Database, raise_epoch
from gateway.storage.tables import tasks

EPOCH: Final = "retention"  # processes that remember ended tasks forget them when it is raised
PAUSE_SHARE: Final = 2  # of the time that a slice took, for which the next one waits: callers have the writer for most of the time
log = structlog.get_logger()


class _HoldsChanged(Exception):
    """An operator placed a hold between the selection of tasks and their deletion. Nothing was deleted."""


class Pruned(Struct):
    """What was deleted of one tenant: how many tasks, and how many other records by table. `is_complete`: nothing more is due now."""

    tasks: int = 0
    records: dict[str, int] = {}
    is_complete: bool = True

    @property
    def total(self) -> int:
        return self.tasks + sum(self.records.values())


class Due(Struct, frozen=True):
    """What is due at one tenant. `tasks` counts those too that something still needs, and that stay for now."""

    cutoff: int | None
    tasks: int
    records: dict[str, int]


class _Round(NamedTuple):
    """The deletion at one tenant: tasks that were last changed before `cutoff`, except what is held."""

    tenant: str
    cutoff: int
    held: HeldNames
    is_over: Callable[[], bool]


class Retention:
    """Any process may prune; one at a time does. An interruption loses nothing: the next round goes on."""

    def __init__(
        self,
        database: Database,
        terms: TermsByTenant,
        record_audit: Callable[[Batch, Mapping[str, Any]], None],
        *,
        now: Callable[[], int],
        clock: Callable[[], float],
        archive: TaskArchive | None = None,
    ) -> None:
        """`now` returns microseconds since 1970, `clock` counts seconds. Without `archive`, rows are deleted without a copy."""
        self._database = database
        self._terms = terms
        self._record_audit = record_audit
        self._now = now
        self._clock = clock
        self._archive = archive
        self._slices = SliceWriter(database, clock)
        self._sole_process = SoleProcess(database.engine)

    async def run_once(self) -> None:
        """Prunes every tenant until nothing is due. Raises ReadFailed and WriteFailed; the next round tries again."""
        for tenant in await self._database.read(lambda connection: list_tenants(connection, tasks.c.tenant)):
            hidden = await self._database.read(partial(find_hidden_tasks, tenant=tenant))
            if hidden or not self._terms.of(tenant).keeps_all:
                await self.prune(tenant)

    def terms_for_request(self, tenant: str, days: int | None, tasks: int | None) -> RetentionTerms:
        """Returns what a request may have deleted: the terms of the settings if it names none. Raises TermsTooShort."""
        return self._terms.for_request(tenant, days, tasks)

    async def find_due(self, tenant: str, terms: RetentionTerms | None = None) -> Due:
        """Returns what `prune` would delete with these terms, or else those of the settings."""

        def work(connection: Connection) -> Due:
            cutoff = find_cutoff(connection, tenant, terms or self._terms.of(tenant), self._now())
            held = read_held_names(connection, tenant)
            if cutoff is None or held.whole_tenant:
                return Due(cutoff, 0, {})
            return Due(
                cutoff,
                count_due(connection, tenant, cutoff),
                {each.table: each.count_due(connection, tenant, cutoff) for each in LEFTOVERS},
            )

        return await self._database.read(work)

    async def prune(self, tenant: str, terms: RetentionTerms | None = None, *, seconds: float | None = None) -> Pruned:
        """Deletes what is due at a tenant, for about `seconds` at most. Deletes nothing while another process prunes.

        Raises ReadFailed, WriteFailed, and ArchiveUnwritable.
        """
        pruned, ends = Pruned(records={}), None if seconds is None else self._clock() + seconds
        async with self._sole_process.alone() as is_alone:
            for task_id in await self._database.read(partial(find_hidden_tasks, tenant=tenant)) if is_alone else ():
                await self._delete_hidden(tenant, task_id)
            cutoff, held = await self._database.read(partial(self._begin, tenant=tenant, terms=terms or self._terms.of(tenant)))
            if not is_alone or cutoff is None or held.whole_tenant:
                pruned.is_complete = is_alone
                return pruned
            current = _Round(tenant, cutoff, held, lambda: ends is not None and self._clock() >= ends)
            try:
                await self._prune_tasks(current, pruned)
                for leftover in LEFTOVERS:
                    await self._prune_leftover(current, leftover, pruned)
            except _HoldsChanged:
                pruned.is_complete = False
            pruned.is_complete = pruned.is_complete and not current.is_over()
        if pruned.total:
            log.info("rows_pruned", tenant=tenant, tasks=pruned.tasks, **pruned.records)
        return pruned

    def _begin(self, connection: Connection, tenant: str, terms: RetentionTerms) -> tuple[int | None, HeldNames]:
        return find_cutoff(connection, tenant, terms, self._now()), read_held_names(connection, tenant)

    async def _prune_tasks(self, current: _Round, pruned: Pruned) -> None:
        place: Place | None = START
        while place is not None and not current.is_over():
            page = await self._database.read(
                partial(find_due, tenant=current.tenant, cutoff=current.cutoff, held=current.held, place=place)
            )
            place, waiting = page.place, page.task_ids
            counts = await self._database.read(partial(count_rows, tenant=current.tenant, task_ids=waiting)) if waiting else {}
            while waiting and not current.is_over():
                chosen = next_slice(waiting, counts, self._slices.size.rows)
                pruned.tasks += await self._prune_slice(current, chosen)
                waiting = waiting[len(chosen.task_ids) :]

    async def _prune_slice(self, current: _Round, chosen: Slice) -> int:
        """Archives and deletes some tasks, and returns how many.

        A large task needs several commits. The first hides it and records its deletion, so that a hold finds it whole or not at all.
        """
        part = await self._archive_tasks(current.tenant, chosen.task_ids)

        def work(batch: Batch, rows_max: int) -> int:
            going = lock_ended_tasks(batch.connection, current.tenant, chosen.task_ids)
            if not going:
                return 0
            self._record_audit(batch, _audit_record(current, going, part))
            raise_epoch(batch, EPOCH)
            if chosen.is_large:
                hide_task(batch, current.tenant, going[0])
                return 1
            return delete_tasks(batch, current.tenant, going)

        count = await self._write(current, work, rows=1 if chosen.is_large else chosen.rows)
        if count and chosen.is_large:
            await self._delete_hidden(current.tenant, chosen.task_ids[0])
        return count

    async def _delete_hidden(self, tenant: str, task_id: str) -> None:
        """Deletes a hidden task, its own row last. No hold keeps it: it was gone before the hold."""
        while await self._write_slice(partial(delete_some_rows, tenant=tenant, task_id=task_id, rows_max=self._slices.size.rows)):
            pass
        await self._write_slice(lambda batch: delete_tasks(batch, tenant, [task_id]), rows=1)

    async def _prune_leftover(self, current: _Round, leftover: Leftover, pruned: Pruned) -> None:
        while not current.is_over():
            count = await self._write(current, partial(leftover.delete, tenant=current.tenant, cutoff=current.cutoff, held=current.held))
            if count:
                pruned.records[leftover.table] = pruned.records.get(leftover.table, 0) + count
            else:
                return

    async def _write(self, current: _Round, work: Callable[..., int], rows: int | None = None) -> int:
        """Runs one slice, unless a hold was placed meanwhile, and then leaves the writer to others. Returns what `work` counted.

        `rows` is how many rows it deletes, if that is not what it counts. Raises _HoldsChanged.
        """
        rows_max = self._slices.size.rows

        def checked(batch: Batch) -> int:
            batch.lock(HOLDS_LOCK)
            if read_held_names(batch.connection, current.tenant) != current.held:
                raise _HoldsChanged
            return work(batch, rows_max=rows_max)

        return await self._write_slice(checked, rows)

    async def _write_slice(self, work: Callable[[Batch], int], rows: int | None = None) -> int:
        counted, seconds = await self._slices.write(work, lambda count: count if rows is None else rows, _HoldsChanged)
        await asyncio.sleep(seconds * PAUSE_SHARE)
        return counted

    async def _archive_tasks(self, tenant: str, task_ids: Sequence[str]) -> ArchivedPart | None:
        archive, now = self._archive, self._now()
        if archive is None:
            return None
        return await self._database.read(lambda connection: archive.append(connection, tenant, task_ids, now))


def _audit_record(current: _Round, task_ids: Sequence[str], part: ArchivedPart | None) -> dict[str, Any]:
    """The record of one slice. The ids are in the archive, whose lines the digest proves; without one, in the record."""
    members = {"kind": "retention", "tenant": current.tenant, "decision_id": "", "txn": "", "task_id": ""}
    proof = {"task_ids": [*task_ids]} if part is None else {"archive": part.file, "digest": part.digest, "lines": part.lines}
    return {**members, "count": len(task_ids), "before": current.cutoff, **proof}
