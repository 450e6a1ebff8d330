"""The journal of a run: the result of each effect under the effect's key, so that a run that begins again does nothing twice."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Row, select

from gateway.storage.database import Batch
from gateway.storage.tables import workflow_steps
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.interpreter.errors import Fault, standard_error
from gateway.workflows.runs.store import RunKey, RunRow, RunStore, is_paused, lock_run

CALL: Final = "call"
RECORD: Final = "record"
DUE: Final = "due"  # the moment at which a wait ends
LIMIT: Final = "limit"  # the moment at which a time limit ends
ENTRIES_MAX: Final = 10_000  # effects of one run
RESULT_MAX: Final = 1 << 20  # bytes of one result
RUN_MAX: Final = 32 << 20  # bytes of all results of a run
_INSERT_STEP: Final = (
    "INSERT INTO workflow_steps (tenant, run_id, key, kind, step, visits, attempts, task_id, started, ended, result, "
    "target, decision_id, input, input_digest, output_digest, cost) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)


NOWHERE: Final = StepKey("")


class Result(Struct, frozen=True, omit_defaults=True):
    """What an effect came to: a value, or the fault that it ended with."""

    value: Any = UNSET
    fault: Fault | UnsetType = UNSET


class Trail(Struct, frozen=True):
    """What a step did besides its result: whom it called, with which input, by which ruling, at what cost.

    `input` is UNSET where the step sent nothing; digests are sha256 in hex of canonical JSON; `cost` is what the agent reported, or UNSET.
    """

    target: str = ""
    decision_id: str = ""
    input: Any = UNSET
    input_digest: str = ""
    output_digest: str = ""
    cost: Any = UNSET


NO_TRAIL: Final = Trail()


class StepRow(Struct, frozen=True):
    """One effect of a run. `task_id` is the task that it caused; times are microseconds since 1970. `place` is the step's key."""

    key: str
    kind: str
    task_id: str
    started: int
    ended: int
    result: Result
    place: StepKey = NOWHERE
    trail: Trail = NO_TRAIL


_decode = msgspec.json.Decoder(Result).decode
_encode = msgspec.json.Encoder().encode


class Journal:
    """The effects of one run, in memory and in the database. The first result of a key counts; a later one is dropped."""

    def __init__(self, store: RunStore, run: RunKey, steps: dict[str, StepRow], *, is_paused: bool = False) -> None:
        self._store = store
        self._run = run
        self._steps = steps
        self.is_paused = is_paused  # the run is to start no further step
        self._size = sum(len(_encode(step.result)) for step in steps.values())

    @classmethod
    async def open(cls, store: RunStore, row: RunRow) -> "Journal":
        """The journal as the database has it."""
        return cls(store, row.key, {step.key: step for step in await read_steps(store, row.key)}, is_paused=row.paused_at is not None)

    def find(self, key: str) -> StepRow | None:
        return self._steps.get(key)

    async def add(self, step: StepRow) -> StepRow:
        """Stores a result and returns the one that counts. Raises RunTaken, and WorkflowError for more than a run may store."""
        encoded = _encode(step.result)
        if len(encoded) > RESULT_MAX or self._size + len(encoded) > RUN_MAX or len(self._steps) >= ENTRIES_MAX:
            raise standard_error("runtime", _limit_text(len(encoded)), step.place.pointer)

        def work(batch: Batch) -> tuple[bool, bool]:
            lock_run(batch, self._run, self._store.process)
            return insert_step(batch, self._run, step), is_paused(batch.connection, self._run)

        is_new, self.is_paused = await self._store.database.write(work)
        if not is_new:
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


def insert_step(batch: Batch, run: RunKey, step: StepRow) -> bool:
    """Stores a step unless there is one of its key, and says whether it did."""
    place, trail = step.place, step.trail
    where = (place.pointer, ".".join(map(str, place.visits)), ".".join(map(str, place.attempts)))
    work = (step.task_id, step.started, step.ended, _encode(step.result).decode(), trail.target, trail.decision_id)
    digests = (_optional_json(trail.input), trail.input_digest, trail.output_digest, _optional_json(trail.cost))
    return bool(batch.run(_INSERT_STEP, (run.tenant, run.id, step.key, step.kind, *where, *work, *digests)))


def _optional_json(value: Any) -> str:
    return "" if value is UNSET else _encode(value).decode()


def _from_optional_json(text: str) -> Any:
    return msgspec.json.decode(text) if text else UNSET


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(".") if each)


def _from_row(row: "Row[Any]") -> StepRow:
    place = StepKey(row.step, _numbers(row.visits), _numbers(row.attempts))
    digests = (row.input_digest, row.output_digest)
    trail = Trail(row.target, row.decision_id, _from_optional_json(row.input), *digests, _from_optional_json(row.cost))
    return StepRow(row.key, row.kind, row.task_id, row.started, row.ended, _decode(row.result), place, trail)


async def read_steps(store: RunStore, run: RunKey) -> list[StepRow]:
    """The effects of a run in the order in which they ended."""
    mine = (workflow_steps.c.tenant == run.tenant) & (workflow_steps.c.run_id == run.id)
    query = select(workflow_steps).where(mine).order_by(workflow_steps.c.ended, workflow_steps.c.key)
    rows = await store.database.read(lambda connection: connection.execute(query).all())
    return [_from_row(row) for row in rows]
