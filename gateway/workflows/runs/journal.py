"""The journal of a run: the result of each effect under the effect's key, so that a run that begins again does nothing twice."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace
from sqlalchemy import Row, select

from gateway.storage.database import Batch
from gateway.workflows.interpreter.compensations import ORDER, is_undoing
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.interpreter.errors import Fault, WorkflowError, standard_error
from gateway.workflows.runs.store import RunKey, RunRow, RunStore, is_paused, lock_run
from gateway.workflows.runs.tables import workflow_steps
from gateway.workflows.runs.values import INLINE_MAX, Reference, encode_canonical, insert_value, read_values

CALL: Final = "call"
CLAIM: Final = "claim"  # on a subject, which a task takes
RECORD: Final = "record"
DUE: Final = "due"  # the moment at which a wait ends
LIMIT: Final = "limit"  # the moment at which a time limit ends
PLAN: Final = "plan"  # of an agent, checked, before any of its steps
ENTRIES_MAX: Final = 10_000  # effects of one run
UNDO_ENTRIES: Final = 4  # times as many for its undoing, which needs three for a step at least
RESULT_MAX: Final = 1 << 20  # bytes of one result
RUN_MAX: Final = 32 << 20  # bytes of all results of a run and of the values that it has computed, and as many again for its undoing
PLAN_MAX: Final = 2 * RUN_MAX  # bytes of the plan of what is undone
_INSERT_STEP: Final = (
    "INSERT INTO workflow_steps (tenant, run_id, seq, key, kind, step, visits, attempts, task_id, started, ended, result, "
    "target, decision_id, input, input_digest, output_digest, usage) VALUES (?, ?, "
    "(SELECT COALESCE(MAX(seq), 0) + 1 FROM workflow_steps WHERE tenant = ? AND run_id = ?), "
    "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
NO_STEP: Final = StepKey("")


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
    """One effect of a run. `task_id` is the task that it caused; times are microseconds since 1970.

    `step_key` says of which execution of which task of the document it is, and `key` is the text of that, shortened where it is long.
    """

    key: str
    kind: str
    task_id: str
    started: int
    ended: int
    result: Result
    step_key: StepKey = NO_STEP
    trail: Trail = NO_TRAIL
    seq: int = 0  # in the order of the commits, from 1; 0 before the commit

    @property
    def size(self) -> int:
        """Bytes that the run stores for it."""
        return self.result.size + self.trail.input.size


_decode = msgspec.json.Decoder(Result).decode


class _Room:
    """How many effects and bytes a run has used of what it may."""

    def __init__(self, steps: Iterable[StepRow], entries_max: int) -> None:
        self._entries_max = entries_max
        self.entries = 0
        self.size = 0
        for step in steps:
            self.take(step)

    def take(self, step: StepRow) -> None:
        self.entries += 1
        self.size += 0 if step.step_key == ORDER else step.size

    def check(self, step: StepRow) -> None:
        """Raises WorkflowError where a step is more than the run may store. The fault of one is always stored."""
        self.check_entries(step.step_key)
        if step.result.fault is not UNSET:
            return
        size, size_max = step.result.size, PLAN_MAX if step.step_key == ORDER else RESULT_MAX
        if size > size_max:
            raise standard_error("runtime", f"the result has {size} bytes, more than {size_max}", step.step_key.pointer)
        if step.step_key != ORDER:
            self.check_size(step.size, step.step_key)

    def check_entries(self, key: StepKey) -> None:
        """Raises WorkflowError where the run may have no further effect."""
        if self.entries >= self._entries_max:
            raise self._full_error(key)

    def check_size(self, added: int, key: StepKey) -> None:
        """Raises WorkflowError where the run may not store `added` bytes more."""
        if self.size + added > RUN_MAX:
            raise self._full_error(key)

    def _full_error(self, key: StepKey) -> WorkflowError:
        what = "the undoing of the run" if is_undoing(key) else "the run"
        bounds = f"{self._entries_max} effects, or more than {RUN_MAX} bytes of results and of values that it has set or exported"
        return standard_error("runtime", f"{what} has more than {bounds}", key.pointer)


class Journal:
    """The effects of one run, in memory and in the database. The first result of a key counts; a later one is dropped.

    The undoing of a run has room of its own, so that a run that has used up its room can be undone.
    """

    def __init__(self, store: RunStore, run: RunKey, steps: dict[str, StepRow], *, is_paused: bool = False) -> None:
        self._store = store
        self._run = run
        self._steps = steps
        self.is_paused = is_paused  # the run is to start no further step
        self._room = _Room((step for step in steps.values() if not is_undoing(step.step_key)), ENTRIES_MAX)
        self._room_to_undo = _Room((step for step in steps.values() if is_undoing(step.step_key)), UNDO_ENTRIES * ENTRIES_MAX)
        self._held: dict[StepKey, int] = {}

    @classmethod
    async def open(cls, store: RunStore, row: RunRow) -> "Journal":
        """The journal as the database has it."""
        return cls(store, row.key, {step.key: step for step in await read_steps(store, row.key)}, is_paused=row.paused_at is not None)

    def find(self, key: str) -> StepRow | None:
        return self._steps.get(key)

    def hold(self, key: StepKey, value: Any) -> None:
        """Counts a value that the run holds in memory, in place of the former one of this key. Raises WorkflowError for too much."""
        room, size = self._room_for(key), len(encode_canonical(value))
        room.size += size - self._held.get(key, 0)
        self._held[key] = size
        room.check_size(0, key)

    def check_room(self, key: StepKey) -> None:
        """Raises WorkflowError where the journal is full, before an effect that it could not take."""
        self._room_for(key).check_entries(key)

    async def add(self, step: StepRow, also: Callable[[Batch], object] | None = None) -> StepRow:
        """Stores a result, with `also` in the same commit where it is the first, and returns the one that counts.

        Raises RunTaken, and WorkflowError for more than a run may store.
        """
        room = self._room_for(step.step_key)
        room.check(step)

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
        room.take(step)
        self._steps[step.key] = step
        return step

    def _room_for(self, key: StepKey) -> _Room:
        return self._room_to_undo if is_undoing(key) else self._room


def insert_step(batch: Batch, run: RunKey, step: StepRow) -> bool:
    """Stores a step unless there is one of its key, and says whether it did."""
    key, trail = step.step_key, step.trail
    where = (key.pointer, ".".join(map(str, key.visits)), ".".join(map(str, key.attempts)))
    work = (step.task_id, step.started, step.ended, _store_result(batch, run, step.result), trail.target, trail.decision_id)
    usage = "" if trail.usage is UNSET else encode_canonical(trail.usage).decode()
    digests = (_store_result(batch, run, trail.input), trail.input_digest, trail.output_digest, usage)
    return bool(batch.run(_INSERT_STEP, (run.tenant, run.id, run.tenant, run.id, step.key, step.kind, *where, *work, *digests)))


def _store_result(batch: Batch, run: RunKey, result: Result) -> str:
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
    key = StepKey(row.step, _numbers(row.visits), _numbers(row.attempts))
    digests = (row.input_digest, row.output_digest)
    usage = msgspec.json.decode(row.usage) if row.usage else UNSET
    trail = Trail(row.target, row.decision_id, _decode(row.input), *digests, usage)
    return StepRow(row.key, row.kind, row.task_id, row.started, row.ended, _decode(row.result), key, trail, row.seq)


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
