"""Relaxations: an operator, shown how often people answered a checkpoint how, has only some of its questions asked, for one version."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, select

from gateway.storage.database import Batch
from gateway.workflows.problems import UnknownCheckpointStep
from gateway.workflows.runs.store import RunStore
from gateway.workflows.runs.tables import IS_RUN_OF_CHECKPOINT, workflow_checkpoints, workflow_relaxations, workflow_runs
from policies.audit.log import AuditLog

SIGNAL_KIND: Final = "signal"  # no question to people
SAMPLE_MAX: Final = 10_000  # checkpoints of one version that a record counts, the newest
NAMED_MAX: Final = 200  # characters of a step that an error repeats
STEPS_NAMED: Final = 10  # steps that an error lists
ANSWERS_MAX: Final = 50  # different answers that a record shows
_SET: Final = (
    "INSERT INTO workflow_relaxations (tenant, workflow, version, step, every, above, count, author, reason, created) "
    "VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?) ON CONFLICT (tenant, workflow, version, step) DO UPDATE SET "
    "every = excluded.every, above = excluded.above, count = 0, author = excluded.author, reason = excluded.reason, "
    "created = excluded.created"
)
_COUNT: Final = "UPDATE workflow_relaxations SET count = count + 1 WHERE tenant = ? AND workflow = ? AND version = ? AND step = ?"
_REMOVE: Final = "DELETE FROM workflow_relaxations WHERE tenant = ? AND workflow = ? AND version = ? AND step = ?"


class CheckpointPlace(Struct, frozen=True):
    """A checkpoint of a document: the step of one version of a workflow."""

    tenant: str
    workflow: str
    version: str
    step: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.tenant, self.workflow, self.version, self.step


class Relaxation(Struct, frozen=True):
    """Which questions are still asked: every `every`-th (0: none), and all for whose input the expression `above` holds."""

    every: int = 0
    above: str = ""
    author: str = ""
    reason: str = ""
    created: int = 0


class CheckpointRecord(Struct, frozen=True):
    """How people answered a checkpoint of one version. `answers`: each answer with its count, the most frequent first."""

    step: str
    kind: str
    prompt: str
    opened: int
    states: dict[str, int]
    answers: list[tuple[Any, int]]
    median_seconds: float | None
    relaxation: Relaxation | None


def find_step(steps: Sequence[str], given: str) -> str:
    """The step of a checkpoint that is given by its pointer or by its name, where only one has it. Raises UnknownCheckpointStep."""
    names = {step: step.rpartition("/")[2].replace("~1", "/").replace("~0", "~") for step in steps}
    found = [step for step, name in names.items() if given in (step, name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownCheckpointStep(f"Several checkpoints have the name {given[:NAMED_MAX]}: {', '.join(found[:STEPS_NAMED])}")
    if not steps:
        raise UnknownCheckpointStep("The workflow asks nobody, so it has no checkpoint.")
    raise UnknownCheckpointStep(f"The workflow has no checkpoint {given[:NAMED_MAX]}; it has {', '.join(steps[:STEPS_NAMED])}")


class Relaxations:
    """Reads and writes relaxations."""

    def __init__(self, store: RunStore, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    async def set(self, place: CheckpointPlace, relaxation: Relaxation, decision_id: str) -> None:
        """Relaxes a checkpoint from now on, and starts to count again."""
        now, by = self._store.now(), relaxation.author
        values = (*place.key, relaxation.every, relaxation.above, by, relaxation.reason, now)
        more = {"every": relaxation.every, "above": relaxation.above, "reason": relaxation.reason}

        def work(batch: Batch) -> None:
            batch.run(_SET, values)
            self._audit.record(batch, _record("checkpoint-relaxation-set", place, decision_id, by) | more)

        await self._store.database.write(work)

    async def remove(self, place: CheckpointPlace, by: str, decision_id: str) -> bool:
        """Has every question asked again. Returns False where that was so before."""

        def work(batch: Batch) -> bool:
            if not batch.run(_REMOVE, place.key):
                return False
            self._audit.record(batch, _record("checkpoint-relaxation-removed", place, decision_id, by))
            return True

        return await self._store.database.write(work)

    async def find(self, place: CheckpointPlace) -> Relaxation | None:
        return (await self._of_version(place)).get(place.step)

    async def records(self, tenant: str, workflow: str, version: str) -> list[CheckpointRecord]:
        """The record of every checkpoint of a version that was reached, by its step."""
        table = workflow_checkpoints
        mine = (table.c.tenant == tenant) & (table.c.workflow == workflow) & (workflow_runs.c.version == version)
        mine &= table.c.kind != SIGNAL_KIND
        query = select(table).join(workflow_runs, IS_RUN_OF_CHECKPOINT).where(mine).order_by(table.c.created.desc()).limit(SAMPLE_MAX)
        rows = await self._store.database.read(lambda connection: connection.execute(query).all())
        relaxed = await self._of_version(CheckpointPlace(tenant, workflow, version, ""))
        by_step: dict[str, list[Row[Any]]] = {}
        for row in rows:
            by_step.setdefault(row.step, []).append(row)
        return [_record_of(step, found, relaxed.get(step)) for step, found in sorted(by_step.items())]

    async def _of_version(self, place: CheckpointPlace) -> dict[str, Relaxation]:
        table = workflow_relaxations
        mine = (table.c.tenant == place.tenant) & (table.c.workflow == place.workflow) & (table.c.version == place.version)
        rows = await self._store.database.read(lambda connection: connection.execute(select(table).where(mine)).all())
        return {row.step: Relaxation(row.every, row.above, row.author, row.reason, row.created) for row in rows}


def count_question(batch: Batch, place: CheckpointPlace) -> int:
    """Counts one question of a relaxed checkpoint, and returns the how many-th it is; 0 where it is relaxed no more."""
    batch.run(_COUNT, place.key)
    return _read_count(batch.connection, place) or 0


def _read_count(connection: Connection, place: CheckpointPlace) -> int | None:
    table = workflow_relaxations
    version = (table.c.tenant == place.tenant) & (table.c.workflow == place.workflow) & (table.c.version == place.version)
    return connection.execute(select(table.c.count).where(version & (table.c.step == place.step))).scalar()


def _record_of(step: str, rows: "list[Row[Any]]", relaxation: Relaxation | None) -> CheckpointRecord:
    answers = Counter(_shown_answer(row) for row in rows if row.state == "answered")
    times = sorted((row.answered - row.created) / 1_000_000 for row in rows if row.state == "answered" and row.answered)
    shown = [(msgspec.json.decode(text), count) for text, count in answers.most_common(ANSWERS_MAX)]
    states = dict(Counter(row.state for row in rows))
    median = times[len(times) // 2] if times else None
    return CheckpointRecord(step, rows[0].kind, rows[0].prompt, len(rows), states, shown, median, relaxation)


def _shown_answer(row: "Row[Any]") -> str:
    """What counts as one answer: whether it was approved, the option that was chosen; forms all alike."""
    if row.kind == "form":
        return '"filled in"'
    if row.kind == "approve":
        return '"approved"' if msgspec.json.decode(row.answer)["approved"] else '"denied"'
    return str(row.answer)


def _record(kind: str, place: CheckpointPlace, decision_id: str, by: str) -> dict[str, object]:
    members: dict[str, object] = {"kind": kind, "tenant": place.tenant, "decision_id": decision_id, "txn": "", "task_id": "", "by": by}
    return members | {"workflow": place.workflow, "version": place.version, "step": place.step}
