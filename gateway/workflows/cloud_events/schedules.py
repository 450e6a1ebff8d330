"""Schedules: rows with the moment of each workflow's next run, and the starts that time and events have brought.

A moment is passed on by a guarded update in one commit with the start, so that of several processes one starts the run. What becomes of
moments that were missed, the document says: one run for all of them, none, or a run for each.
"""

from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import Connection, func, select

from gateway.storage.database import Batch
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.tasks.log import TaskRow, to_rfc3339, to_task_row
from gateway.workflows.cloud_events.cron import moments_after, next_moment
from gateway.workflows.cloud_events.listens import announce_types
from gateway.workflows.runs.store import RunKey, RunRow, RunStore, insert_run
from gateway.workflows.runs.tables import IS_TASK_OF_RUN, workflow_runs, workflow_schedules, workflow_starts
from gateway.workflows.runs.values import storable

CLAIM_US: Final = 30_000_000  # how long one process alone starts the runs of a workflow
STARTS_MAX: Final = 100  # that are read at once
MISSED_MAX: Final = 100  # missed moments whose runs are brought by one commit
WAITING_MAX: Final = 1000  # runs of one workflow that wait for their start; until fewer do, no more missed moments bring any
UPCOMING: Final = 5  # moments that a schedule shows
LATE_US: Final = 60_000_000  # how late a run starts at most whose moment is not missed, such as after a restart
_INSERT: Final = (
    "INSERT INTO workflow_schedules (tenant, workflow, terms, next_at, last_run, claimed, problem) "
    "VALUES (?, ?, ?, ?, '', 0, '') ON CONFLICT DO NOTHING"
)
_UPDATE: Final = "UPDATE workflow_schedules SET terms = ?, next_at = ? WHERE tenant = ? AND workflow = ? AND terms = ?"
_DELETE: Final = "DELETE FROM workflow_schedules WHERE tenant = ? AND workflow = ?"
_DELETE_TYPES: Final = "DELETE FROM workflow_trigger_types WHERE tenant = ? AND workflow = ?"
_INSERT_TYPE: Final = "INSERT INTO workflow_trigger_types (tenant, type, workflow) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_FIRE: Final = "UPDATE workflow_schedules SET next_at = ? WHERE tenant = ? AND workflow = ? AND next_at = ?"
_ARM: Final = "UPDATE workflow_schedules SET next_at = ? WHERE tenant = ? AND workflow = ? AND next_at IS NULL AND last_run = ?"
_START: Final = (
    "INSERT INTO workflow_starts (tenant, workflow, id, created, event, requesters, wanted) VALUES (?, ?, ?, ?, '', '[]', 1) "
    "ON CONFLICT DO NOTHING"
)
_PAUSE: Final = "UPDATE workflow_schedules SET paused_at = ?, paused_by = ? WHERE tenant = ? AND workflow = ?"
_CLAIM: Final = "UPDATE workflow_schedules SET claimed = ? WHERE tenant = ? AND workflow = ? AND claimed <= ?"
_RELEASE: Final = "UPDATE workflow_schedules SET claimed = 0 WHERE tenant = ? AND workflow = ?"
_DONE: Final = "DELETE FROM workflow_starts WHERE tenant = ? AND workflow = ? AND id = ?"
_WANT: Final = "UPDATE workflow_starts SET wanted = 1 WHERE tenant = ? AND workflow = ? AND id = ?"
_CHECK_AGAIN: Final = "UPDATE workflow_starts SET wanted = 0 WHERE tenant = ? AND workflow = ? AND event <> ''"
_PROBLEM: Final = "UPDATE workflow_schedules SET problem = ? WHERE tenant = ? AND workflow = ?"
_LAST: Final = "UPDATE workflow_schedules SET last_run = ?, problem = '' WHERE tenant = ? AND workflow = ?"


class ScheduleTerms(Struct, frozen=True, omit_defaults=True):
    """When a workflow starts by itself, and as whom. `every` and `after` are milliseconds, `lifetime` seconds of a run's authority.

    `types`: of the events that start it, the empty text for all. `filters`: their attributes that are no expressions.
    """

    version: str
    run_as: str
    lifetime: int
    every: int = 0
    cron: str = ""
    after: int = 0
    types: tuple[str, ...] = ()
    filters: tuple[dict[str, Any], ...] = ()
    runs: int = 1000
    overlap: str = "queue"
    timezone: str = ""  # of `cron`; empty: UTC
    missed: str = "once"  # once | skip | all

    @property
    def timing(self) -> tuple[int, str, int, str]:
        return self.every, self.cron, self.after, self.timezone

    def first_at(self, now: int) -> int | None:
        """The first moment, in microseconds since 1970; None where events start the runs."""
        if self.cron:
            return next_moment(self.cron, now, self.timezone)
        return now + (self.every or self.after) * 1000 if self.every or self.after else None

    def following(self, due: int, now: int) -> int | None:
        """The moment after `due` that is not over yet. None for `after`, which counts from the end of the run."""
        if self.cron:
            return next_moment(self.cron, now, self.timezone)
        if not self.every:
            return None
        step = self.every * 1000
        return due + step * max(1, -(-(now + 1 - due) // step))

    def passed(self, due: int, now: int) -> tuple[list[int], int | None]:
        """The moments from `due` to `now` that have a run, at most MISSED_MAX of them, and the moment that is looked at next."""
        if self.after or self.missed == "once":
            return [due], self.following(due, now)
        if self.missed == "all":
            moments = self._first_moments(due, now)
            return moments, self.following(moments[-1], moments[-1])
        latest = self._latest_moment(due, now)
        return [] if latest is None else [latest], self.following(due, now)

    def _first_moments(self, due: int, now: int) -> list[int]:
        """The first of the moments from `due` to `now`."""
        if self.cron:
            return [due, *islice(takewhile(now.__ge__, moments_after(self.cron, due, self.timezone)), MISSED_MAX - 1)]
        step = self.every * 1000
        return [due + step * number for number in range(min(MISSED_MAX, (now - due) // step + 1))]

    def _latest_moment(self, due: int, now: int) -> int | None:
        """The last moment from `due` to `now`, unless it is missed: for so long that another process would have started its run."""
        if not self.cron:
            step = self.every * 1000
            latest = due + step * ((now - due) // step)
            return latest if now - latest < min(LATE_US, step) else None
        since = max(due, now - LATE_US) - 1
        found = list(takewhile(now.__ge__, moments_after(self.cron, since, self.timezone)))
        return found[-1] if found else None


class ScheduleRow(Struct, frozen=True):
    """A schedule as it stands."""

    tenant: str
    workflow: str
    terms: ScheduleTerms
    next_at: int | None
    last_run: str
    problem: str = ""  # why the last start was refused
    paused_at: int | None = None
    paused_by: str = ""

    def upcoming(self, now: int) -> list[int]:
        """The next moments, in microseconds since 1970; none of what events start, and one where the end of a run decides."""
        moments = [self.next_at] if self.next_at is not None else []
        while moments and len(moments) < UPCOMING and (following := self.terms.following(moments[-1], max(moments[-1], now))):
            moments.append(following)
        return moments


class Start(Struct, frozen=True):
    """A run that is to be started. `event` is JSON, empty where time starts the run; `requesters` are those whose rights sent it.

    `at`: when it came, or the moment that it is the run of, in microseconds since 1970.
    """

    id: str
    at: int
    event: str
    requesters: tuple[str, ...] = ()


log = structlog.get_logger()
decode_terms = msgspec.json.Decoder(ScheduleTerms).decode


class Schedules:
    """Writes and reads schedules and starts."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    def now(self) -> int:
        """Microseconds since 1970."""
        return self._store.now()

    async def put(self, tenant: str, workflow: str, terms: ScheduleTerms) -> None:
        """Makes or changes a schedule. One whose timing stays keeps its next moment."""
        known, now = await self.find(tenant, workflow), self._store.now()
        if known is not None and known.terms == terms:
            return
        encoded = msgspec.json.encode(terms).decode()

        def work(batch: Batch) -> None:
            if known is None:
                changed = batch.run(_INSERT, (tenant, workflow, encoded, terms.first_at(now)))
            else:
                next_at = known.next_at if known.terms.timing == terms.timing else terms.first_at(now)
                before = msgspec.json.encode(known.terms).decode()
                changed = batch.run(_UPDATE, (encoded, next_at, tenant, workflow, before))
            if changed:
                batch.run(_DELETE_TYPES, (tenant, workflow))
                batch.run(_CHECK_AGAIN, (tenant, workflow))
                for kind in terms.types:
                    batch.run(_INSERT_TYPE, (tenant, kind, workflow))
                announce_types(batch, terms.types)

        await self._store.database.write(work)

    async def remove(self, tenant: str, workflow: str) -> None:
        """Ends a schedule with the starts that it still had."""
        await self._store.database.write(lambda batch: batch.run(_DELETE, (tenant, workflow)))

    async def all(self) -> list[ScheduleRow]:
        """Every schedule of every tenant."""
        query = select(workflow_schedules).order_by(workflow_schedules.c.tenant, workflow_schedules.c.workflow)
        return _read_rows(await self._store.database.read(lambda connection: connection.execute(query).all()))

    async def timed(self) -> list[ScheduleRow]:
        """Schedules whose moment has come, and those whose next moment is not known yet."""
        columns = workflow_schedules.c
        query = select(workflow_schedules).where((columns.next_at <= self._store.now()) | columns.next_at.is_(None))
        query = query.where(columns.paused_at.is_(None))
        return _read_rows(await self._store.database.read(lambda connection: connection.execute(query).all()))

    async def fire(self, row: ScheduleRow) -> int:
        """Has the runs started whose moment has come; returns how many, 0 where another process passed the moment on before.

        Sets the next moment after a run that `after` waits for.
        """
        now = self._store.now()
        if row.next_at is None:
            if row.terms.after:
                await self._arm(row, now)
            return 0
        if row.terms.missed == "all" and (await self.waiting_counts(row.tenant)).get(row.workflow, 0) >= WAITING_MAX:
            return 0  # the moments stay due until fewer runs wait
        due = row.next_at
        moments, following = row.terms.passed(due, now)

        def work(batch: Batch) -> int:
            if not batch.run(_FIRE, (following, row.tenant, row.workflow, due)):
                return 0
            for moment in moments:
                batch.run(_START, (row.tenant, row.workflow, f"time:{moment}", moment))
            if not moments:
                batch.run(_PROBLEM, (f"missed: no process was there for the moment {to_rfc3339(due)}", row.tenant, row.workflow))
            return len(moments)

        return await self._store.database.write(work)

    async def _arm(self, row: ScheduleRow, now: int) -> None:
        """Counts `after` from the end of the last run, or from now where that run was never started."""
        ended = await self._store.database.read(lambda connection: _end_of_last_run(connection, row, now))
        if ended is not None:
            moment = (ended + row.terms.after * 1000, row.tenant, row.workflow, row.last_run)
            await self._store.database.write(lambda batch: batch.run(_ARM, moment))

    async def waiting(self) -> list[ScheduleRow]:
        """Schedules that have runs to start."""
        starts = workflow_starts.c
        has_starts = (
            select(starts.id).where(starts.tenant == workflow_schedules.c.tenant, starts.workflow == workflow_schedules.c.workflow).exists()
        )
        query = (
            select(workflow_schedules)
            .where(has_starts, workflow_schedules.c.paused_at.is_(None))
            .order_by(workflow_schedules.c.tenant, workflow_schedules.c.workflow)
        )
        return _read_rows(await self._store.database.read(lambda connection: connection.execute(query).all()))

    async def waiting_counts(self, tenant: str) -> dict[str, int]:
        """How many runs of each workflow of a tenant wait for their start."""
        starts = workflow_starts.c
        query = select(starts.workflow, func.count()).where(starts.tenant == tenant, starts.wanted == 1).group_by(starts.workflow)
        return {row[0]: row[1] for row in await self._store.database.read(lambda connection: connection.execute(query).all())}

    async def claim(self, row: ScheduleRow) -> bool:
        """Whether this process alone may start runs of the workflow, for CLAIM_US at most."""
        now = self._store.now()
        return bool(await self._store.database.write(lambda batch: batch.run(_CLAIM, (now + CLAIM_US, row.tenant, row.workflow, now))))

    async def set_pause(self, tenant: str, workflow: str, paused_by: str) -> bool:
        """Pauses a schedule in the name of a person, or resumes it where `paused_by` is empty. False: there is none.

        While it is paused it starts nothing: moments are missed, events wait.
        """
        values = (self._store.now() if paused_by else None, paused_by, tenant, workflow)
        return bool(await self._store.database.write(lambda batch: batch.run(_PAUSE, values)))

    async def release(self, row: ScheduleRow) -> None:
        await self._store.database.write(lambda batch: batch.run(_RELEASE, (row.tenant, row.workflow)))

    async def starts_of(self, row: ScheduleRow, *, wanted: bool) -> Sequence[Start]:
        """The runs to start, in the order in which they came; without `wanted`, events that may start one and were not looked at."""
        table = workflow_starts.c
        mine = (table.tenant == row.tenant) & (table.workflow == row.workflow) & (table.wanted == int(wanted))
        query = select(table.id, table.created, table.event, table.requesters).where(mine)
        query = query.order_by(table.created, table.id).limit(STARTS_MAX)
        rows = await self._store.database.read(lambda connection: connection.execute(query).all())
        return [Start(row.id, row.created, row.event, tuple(msgspec.json.decode(row.requesters))) for row in rows]

    async def opening_write(self, row: ScheduleRow, start: Start, version: str, given: Any) -> Callable[[Batch, TaskRow], None]:
        """What is written with the task of a started run: the run with the people who brought it about."""
        author = await self._store.author_of(row.tenant, row.workflow, version)
        requesters = tuple(dict.fromkeys(filter(None, (author, *start.requesters))))
        now = self._store.now()

        def write(batch: Batch, task: TaskRow) -> None:
            batch.flush()  # the row of the task, which that of the run refers to
            insert_run(batch, RunRow(RunKey(task.tenant, task.id), row.workflow, version, given, now, requesters=requesters))

        return write

    async def sort(self, row: ScheduleRow, wanted: Sequence[Start], others: Sequence[Start]) -> None:
        """Keeps the starts whose events match, and drops the others."""

        def work(batch: Batch) -> None:
            for statement, starts in ((_WANT, wanted), (_DONE, others)):
                for start in starts:
                    batch.run(statement, (row.tenant, row.workflow, start.id))

        await self._store.database.write(work)

    async def settle(self, row: ScheduleRow, start: Start, task_id: str = "", *, problem: str = "") -> None:
        """The start is done with: its run is `task_id`, or none was started because of `problem`."""

        def work(batch: Batch) -> None:
            batch.run(_DONE, (row.tenant, row.workflow, start.id))
            if problem:
                batch.run(_PROBLEM, (storable(problem[:500]), row.tenant, row.workflow))
            if task_id:
                batch.run(_LAST, (task_id, row.tenant, row.workflow))

        await self._store.database.write(work)

    async def live_runs(self, row: ScheduleRow, owner: str) -> list[TaskRow]:
        """The runs of a workflow that have not ended, the oldest first: all of `owner`, and of others those at work or in its queue."""
        mine = (tasks.c.tenant == row.tenant) & (tasks.c.agent == row.workflow)
        counts = (tasks.c.owner == owner) | (tasks.c.runner != "") | workflow_runs.c.queued_at.is_not(None)
        query = select(tasks).outerjoin(workflow_runs, IS_TASK_OF_RUN).where(mine, tasks.c.state.not_in(ENDED_STATES), counts)
        query = query.order_by(tasks.c.created, tasks.c.id)
        return [to_task_row(found) for found in await self._store.database.read(lambda connection: connection.execute(query).all())]

    async def find(self, tenant: str, workflow: str) -> ScheduleRow | None:
        """The schedule of a workflow, or None."""
        mine = (workflow_schedules.c.tenant == tenant) & (workflow_schedules.c.workflow == workflow)
        row = await self._store.database.read(lambda connection: connection.execute(select(workflow_schedules).where(mine)).first())
        return None if row is None else _from_row(row)


def _end_of_last_run(connection: Connection, row: ScheduleRow, now: int) -> int | None:
    """When the last run of a schedule ended; now where there is none; None while one runs, or is to be started."""
    starts = workflow_starts.c
    waiting = select(func.count()).where(starts.tenant == row.tenant, starts.workflow == row.workflow)
    if connection.execute(waiting).scalar():
        return None
    run = select(tasks.c.state, tasks.c.updated).where(tasks.c.tenant == row.tenant, tasks.c.id == row.last_run)
    last = connection.execute(run).first()
    if last is None:
        return now
    return last.updated if last.state in ENDED_STATES else None


def _read_rows(rows: Sequence[Any]) -> list[ScheduleRow]:
    """The schedules of rows. One that this release of the gateway can't read is logged, and the others go on."""
    found = []
    for row in rows:
        try:
            found.append(_from_row(row))
        except msgspec.MsgspecError as error:
            log.warning("schedule_not_read", workflow=row.workflow, problem=str(error))
    return found


def _from_row(row: Any) -> ScheduleRow:
    terms = decode_terms(row.terms)
    return ScheduleRow(row.tenant, row.workflow, terms, row.next_at, row.last_run, row.problem, row.paused_at, row.paused_by)
