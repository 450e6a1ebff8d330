"""The journal of a run: the result of each effect under the effect's key, so that a run that begins again does nothing twice."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace
from sqlalchemy import Row, select

from gateway.storage.database import Batch
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.interpreter.errors import Fault, standard_error
from gateway.workflows.runs.store import RunKey, RunRow, RunStore, is_paused, lock_run
from gateway.workflows.runs.tables import workflow_steps
from gateway.workflows.runs.values import INLINE_MAX, Reference, encode_canonical, insert_value, read_values

CALL: Final = "call"
RECORD: Final = "record"
DUE: Final = "due"  # the moment at which a wait ends
LIMIT: Final = "limit"  # the moment at which a time limit ends
PLAN: Final = "plan"  # of an agent, checked, before any of its steps
ENTRIES_MAX: Final = 10_000  # effects of one run
RESULT_MAX: Final = 1 << 20  # bytes of one result
RUN_MAX: Final = 32 << 20  # bytes of all results of a run
_INSERT_STEP: Final = (
    "INSERT INTO workflow_steps (tenant, run_id, seq, key, kind, step, visits, attempts, task_id, started, ended, result, "
    "target, decision_id, input, input_digest, output_digest, usage) VALUES (?, ?, "
    "(SELECT COALESCE(MAX(seq), 0) + 1 FROM workflow_steps WHERE tenant = ? AND run_id = ?), "
    "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
NOWHERE: Final = StepKey("")


class Result(Struct, frozen=True, omit_defaults=True):
    """What an effect came to: a value, or the fault that it ended with. A large value has a row of its own, and a reference here."""

    value: Any = UNSET
    fault: Fault | UnsetType = UNSET
    reference: Reference | UnsetType = UNSET

    @property
    def size(self) -> int:
        """Bytes that the run stores for it."""
        return len(encode_canonical(self)) if self.reference is UNSET else self.reference.size


NOTHING: Final = Result()


class Trail(Struct, frozen=True):
    """What a step did besides its result: whom it called, with which input, by which ruling, with which usage.

    `input` has no secrets in it; digests are sha256 in hex of canonical JSON; `usage` is what the agent reported, or UNSET.
    """

    target: str = ""
    decision_id: str = ""
    input: Result = NOTHING
    input_digest: str = ""
    output_digest: str = ""
    usage: Any = UNSET


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
    seq: int = 0  # in the order of the commits, from 1; 0 before the commit

    @property
    def size(self) -> int:
        """Bytes that the run stores for it."""
        return self.result.size + self.trail.input.size


_decode = msgspec.json.Decoder(Result).decode


class Journal:
    """The effects of one run, in memory and in the database. The first result of a key counts; a later one is dropped."""

    def __init__(self, store: RunStore, run: RunKey, steps: dict[str, StepRow], *, is_paused: bool = False) -> None:
        self._store = store
        self._run = run
        self._steps = steps
        self.is_paused = is_paused  # the run is to start no further step
        self._size = sum(step.size for step in steps.values())

    @classmethod
    async def open(cls, store: RunStore, row: RunRow) -> "Journal":
        """The journal as the database has it."""
        return cls(store, row.key, {step.key: step for step in await read_steps(store, row.key)}, is_paused=row.paused_at is not None)

    def find(self, key: str) -> StepRow | None:
        return self._steps.get(key)

    async def add(self, step: StepRow, also: Callable[[Batch], object] | None = None) -> StepRow:
        """Stores a result, with `also` in the same commit where it is the first, and returns the one that counts.

        Raises RunTaken, and WorkflowError for more than a run may store.
        """
        size = step.result.size
        if size > RESULT_MAX or self._size + step.size > RUN_MAX or len(self._steps) >= ENTRIES_MAX:
            raise standard_error("runtime", _limit_text(size), step.place.pointer)

        def work(batch: Batch) -> tuple[bool, bool]:
            lock_run(batch, self._run, self._store.process)
            is_new = insert_step(batch, self._run, step)
            if is_new and also is not None:
                also(batch)
            return is_new, is_paused(batch.connection, self._run)

        is_new, self.is_paused = await self._store.database.write(work)
        if not is_new:
            for stored in await read_steps(self._store, self._run):
                self._steps[stored.key] = stored
            return self._steps[step.key]
        self._size += step.size
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
    work = (step.task_id, step.started, step.ended, _stored(batch, run, step.result), trail.target, trail.decision_id)
    usage = "" if trail.usage is UNSET else encode_canonical(trail.usage).decode()
    digests = (_stored(batch, run, trail.input), trail.input_digest, trail.output_digest, usage)
    return bool(batch.run(_INSERT_STEP, (run.tenant, run.id, run.tenant, run.id, step.key, step.kind, *where, *work, *digests)))


def _stored(batch: Batch, run: RunKey, result: Result) -> str:
    """A result as the row of the journal has it. A large value is stored beside it; one too large for that is known by its digest only."""
    if result.value is UNSET:
        return encode_canonical(result).decode()
    encoded = encode_canonical(result.value)
    if len(encoded) <= INLINE_MAX:
        return encode_canonical(Result(value=result.value)).decode()
    return encode_canonical(Result(reference=insert_value(batch, run, encoded))).decode()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(".") if each)


def _from_row(row: "Row[Any]") -> StepRow:
    place = StepKey(row.step, _numbers(row.visits), _numbers(row.attempts))
    digests = (row.input_digest, row.output_digest)
    usage = msgspec.json.decode(row.usage) if row.usage else UNSET
    trail = Trail(row.target, row.decision_id, _decode(row.input), *digests, usage)
    return StepRow(row.key, row.kind, row.task_id, row.started, row.ended, _decode(row.result), place, trail, row.seq)


async def read_steps(store: RunStore, run: RunKey) -> list[StepRow]:
    """The effects of a run in the order in which they ended, with all their values."""
    steps = await read_stored_steps(store, run)
    if all(step.result.reference is UNSET and step.trail.input.reference is UNSET for step in steps):
        return steps
    values = await read_values(store, run)
    return [replace(each, result=_with_value(each.result, values), trail=_with_input(each.trail, values)) for each in steps]


def _with_value(result: Result, values: Mapping[str, str]) -> Result:
    if result.reference is UNSET or result.reference.digest not in values:
        return result
    return replace(result, value=msgspec.json.decode(values[result.reference.digest]))


def _with_input(trail: Trail, values: Mapping[str, str]) -> Trail:
    return replace(trail, input=_with_value(trail.input, values))


async def read_stored_steps(store: RunStore, run: RunKey, after: int = 0) -> list[StepRow]:
    """The effects of a run after the number `after`, in the order in which they ended. Large values stay references."""
    mine = (workflow_steps.c.tenant == run.tenant) & (workflow_steps.c.run_id == run.id) & (workflow_steps.c.seq > after)
    query = select(workflow_steps).where(mine).order_by(workflow_steps.c.seq)
    rows = await store.database.read(lambda connection: connection.execute(query).all())
    return [_from_row(row) for row in rows]
