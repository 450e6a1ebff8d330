"""The journal of a run: the result of each effect under the effect's key, so that a run that begins again does nothing twice."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import select

from gateway.storage.database import Batch
from gateway.storage.tables import workflow_steps
from gateway.workflows.interpreter.errors import Fault, standard_error
from gateway.workflows.runs.store import RunKey, RunStore, lock_run

CALL: Final = "call"
RECORD: Final = "record"
ENTRIES_MAX: Final = 10_000  # effects of one run
RESULT_MAX: Final = 1 << 20  # bytes of one result
RUN_MAX: Final = 32 << 20  # bytes of all results of a run
_INSERT_STEP: Final = (
    "INSERT INTO workflow_steps (tenant, run_id, key, kind, task_id, started, ended, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)


class Result(Struct, frozen=True, omit_defaults=True):
    """What an effect came to: a value, or the fault that it ended with."""

    value: Any = UNSET
    fault: Fault | UnsetType = UNSET


class StepRow(Struct, frozen=True):
    """One effect of a run. `task_id` is the task that it caused; times are microseconds since 1970."""

    key: str
    kind: str
    task_id: str
    started: int
    ended: int
    result: Result


_decode = msgspec.json.Decoder(Result).decode
_encode = msgspec.json.Encoder().encode


class Journal:
    """The effects of one run, in memory and in the database. The first result of a key counts; a later one is dropped."""

    def __init__(self, store: RunStore, run: RunKey, steps: dict[str, StepRow]) -> None:
        self._store = store
        self._run = run
        self._steps = steps
        self._size = sum(len(_encode(step.result)) for step in steps.values())

    @classmethod
    async def open(cls, store: RunStore, run: RunKey) -> "Journal":
        """The journal as the database has it."""
        return cls(store, run, {step.key: step for step in await read_steps(store, run)})

    def find(self, key: str) -> StepRow | None:
        return self._steps.get(key)

    async def add(self, step: StepRow) -> StepRow:
        """Stores a result and returns the one that counts. Raises RunTaken, and WorkflowError for more than a run may store."""
        encoded = _encode(step.result)
        if len(encoded) > RESULT_MAX or self._size + len(encoded) > RUN_MAX or len(self._steps) >= ENTRIES_MAX:
            raise standard_error("runtime", _limit_text(len(encoded)), step.key.partition(":")[0])

        def work(batch: Batch) -> bool:
            lock_run(batch, self._run, self._store.process)
            times = (step.started, step.ended)
            values = (self._run.tenant, self._run.id, step.key, step.kind, step.task_id, *times, encoded.decode())
            return bool(batch.run(_INSERT_STEP, values))

        if not await self._store.database.write(work):
            for stored in await read_steps(self._store, self._run):
                self._steps[stored.key] = stored
            return self._steps[step.key]
        self._size += len(encoded)
        self._steps[step.key] = step
        return step


def _limit_text(size: int) -> str:
    if size > RESULT_MAX:
        return f"the result has {size} bytes, more than {RESULT_MAX}"
    return f"the run has more than {ENTRIES_MAX} effects or {RUN_MAX} bytes of results"


async def read_steps(store: RunStore, run: RunKey) -> list[StepRow]:
    """The effects of a run in the order in which they ended."""
    mine = (workflow_steps.c.tenant == run.tenant) & (workflow_steps.c.run_id == run.id)
    query = select(workflow_steps).where(mine).order_by(workflow_steps.c.ended, workflow_steps.c.key)
    rows = await store.database.read(lambda connection: connection.execute(query).all())
    return [StepRow(row.key, row.kind, row.task_id, row.started, row.ended, _decode(row.result)) for row in rows]
