"""Replays a run on its journal alone: nothing is called, and what the journal lacks is where the replay stops."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any

from msgspec import UNSET, Struct

from gateway.workflows.coordination.kinds import TASK_FUNCTIONS
from gateway.workflows.dsl.document import Document
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.effects import LookUp, PreparedCall, RunSuspended, StepKey, SubRun, Wanted, WantedClaim
from gateway.workflows.interpreter.errors import Fault, WorkflowError
from gateway.workflows.interpreter.interpreter import Interpreter
from gateway.workflows.runs.journal import StepRow
from gateway.workflows.runs.store import RunRow, key_text


class Replayed(Struct, frozen=True):
    """How a replay went: the keys of the journal that it used, and whether it reached the task at which it was to stop."""

    used: frozenset[str]
    has_stopped: bool


class _JournalOnly:
    """The port Effects over the steps of a journal. A branch that needs more than the journal has stops."""

    def __init__(self, steps: Sequence[StepRow], started: int, stop_at: str) -> None:
        self.used: set[str] = set()
        self.has_stopped = False
        self._steps = {step.key: step for step in steps}
        self._stop_at = stop_at
        self._now = started

    def _find(self, text: str) -> StepRow:
        step = self._steps.get(text)
        if step is None:
            raise RunSuspended
        self.used.add(text)
        self._now = max(self._now, step.ended)
        return step

    def _result(self, key: StepKey) -> Any:
        result = self._find(key_text(key)).result
        if result.fault is not UNSET:
            raise WorkflowError(result.fault)
        return result.value

    async def call(self, key: StepKey, call: PreparedCall) -> Any:
        return self._result(key)

    async def run_workflow(self, key: StepKey, workflow: SubRun) -> Any:
        return self._result(key)

    async def emit(self, key: StepKey, event: Mapping[str, Any], sensitivity: int | None = None) -> Any:
        return self._result(key)

    async def listen(self, key: StepKey, wanted: Wanted) -> Any:
        return self._result(key)

    async def sleep(self, key: StepKey, milliseconds: int) -> None:
        self._now = max(self._now, self._find(f"{key_text(key)}#due").result.value)

    def time_limit(self, key: StepKey, milliseconds: int) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def claim(self, key: StepKey, wanted: WantedClaim) -> AsyncIterator[Mapping[str, Any]]:
        """A refusal is part of the path that the run took. A claim that was granted is taken anew by a run that goes on."""
        if key_text(key) in self._steps:
            yield self._result(key)
        else:
            yield {"subject": wanted.subject, "effect": wanted.effect, "claim": "", "token": 0}

    async def settle(self, key: StepKey) -> None:
        """Nothing: a replay holds no claim."""

    async def record(self, key: StepKey, value: Any) -> Any:
        return self._find(key_text(key)).result.value if key_text(key) in self._steps else value

    async def recorded(self, key: StepKey) -> Any:
        return self._find(key_text(key)).result.value if key_text(key) in self._steps else None

    async def look_up(self, key: StepKey, question: LookUp) -> Any:
        return self._find(key_text(key)).result.value

    async def record_plan(self, key: StepKey, plan: Mapping[str, Any]) -> Any:
        return self._find(key_text(key)).result.value

    def hold(self, key: StepKey, value: Any) -> None:
        """Nothing: what is replayed was counted before."""

    def abandon(self, key: StepKey) -> None:
        """Nothing: nothing waits in a replay."""

    def now(self) -> int:
        return self._now

    def entered(self, key: StepKey, input: Any) -> None:
        if key.pointer == self._stop_at:
            self.has_stopped = True
            raise RunSuspended

    def left(self, key: StepKey, output: Any, fault: Fault | None) -> None:
        """Nothing is kept of tasks."""


async def replay(document: Document, evaluator: Evaluator, row: RunRow, steps: Sequence[StepRow], stop_at: str = "") -> Replayed:
    """Interprets a run as far as its journal goes. `stop_at` is the pointer of a task that is not run."""
    effects = _JournalOnly(steps, row.started, stop_at)
    with suppress(RunSuspended, WorkflowError):  # where the journal ends, and where the run failed
        await Interpreter(document, evaluator, effects, TASK_FUNCTIONS, row.key.id, inputs=row.inputs).run(row.input)
    return Replayed(frozenset(effects.used), effects.has_stopped)
