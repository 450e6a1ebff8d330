"""Effects of a rehearsed run: answers from the script, virtual time, and a note of everything that the run did."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from gateway.workflows.cloud_events.matching import EventMatcher
from gateway.workflows.dsl.constructs import Units
from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.interpreter.claims import claim_denied, claim_lost, task_of_claim
from gateway.workflows.interpreter.effects import LookUp, PreparedCall, Rank, Rights, Spent, StepKey, SubRun, Wanted, WantedClaim
from gateway.workflows.interpreter.errors import Fault, WorkflowError
from gateway.workflows.rehearsal.clock import VirtualClock
from gateway.workflows.rehearsal.script import RehearsalCase, ScriptedAnswer, ScriptedClaim

GRANTED: Final = ScriptedClaim()
DIGEST_LENGTH: Final = 64  # hexadecimal digits of a sha256


@dataclass(slots=True)
class Observed:
    """What a rehearsed run did, in order."""

    steps: list[str] = field(default_factory=list)  # pointers of the tasks that it entered
    calls: list[tuple[str, PreparedCall]] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    called: list[str] = field(default_factory=list)  # pointers of calls and of other workflows, once each time


class ScriptedEffects:
    """The port Effects over a script. A call without an answer in it is an error of the rehearsal, which the run can't catch."""

    def __init__(self, case: RehearsalCase, clock: VirtualClock, matcher: EventMatcher) -> None:
        self.observed = Observed()
        self._case = case
        self._clock = clock
        self._matcher = matcher
        self._asked: Counter[str] = Counter()
        self._records: dict[str, Any] = {}
        self._tokens = 0  # of the claims of the run
        self._arrived: list[Mapping[str, Any]] = []
        self._listening: set[asyncio.Event] = set()
        for arrival in case.events:
            clock.call_after(_milliseconds(arrival.after), partial(self._arrive, arrival.event))

    async def call(self, key: StepKey, call: PreparedCall) -> Any:
        self.observed.calls.append((key.pointer, call))
        return await self._answer(key, f"a call of {call.function}")

    async def run_workflow(self, key: StepKey, workflow: SubRun) -> Any:
        return await self._answer(key, f"the workflow {workflow.name}") if workflow.awaited else None

    async def _answer(self, key: StepKey, what: str) -> Any:
        self.observed.called.append(key.pointer)
        answer = self._next_answer(key)
        if answer is None:
            raise Unanswered(f"{key.pointer}: {what} has no answer in the rehearsal")
        if answer.after is not None:
            await self._clock.sleep(_milliseconds(answer.after))
        if answer.error is not None:
            said = answer.error.model_dump(exclude_none=True)
            raise WorkflowError(Fault(**{"instance": key.pointer, **said}))
        return answer.output

    def _next_answer(self, key: StepKey) -> ScriptedAnswer | None:
        pointer = _answered_as(key.pointer)
        given = self._case.answers.get(pointer, self._case.answers.get(pointer.rpartition("/")[2]))
        if not isinstance(given, list):
            return given
        count = self._asked[pointer]
        self._asked[pointer] += 1
        return given[min(count, len(given) - 1)] if given else None

    async def emit(self, key: StepKey, event: Mapping[str, Any], sensitivity: int | None = None) -> Mapping[str, Any]:
        whole = {"specversion": "1.0", "id": str(key), "source": "urn:interlock:rehearsal", "time": "2026-01-01T00:00:00Z", **event}
        self.observed.events.append(whole)
        self._arrive(whole)
        return whole

    def _arrive(self, event: Mapping[str, Any]) -> None:
        self._arrived.append(event)
        for each in self._listening:
            each.set()

    async def listen(self, key: StepKey, wanted: Wanted) -> list[Any]:
        """Events that came before the task listened do not count."""
        first = len(self._arrived)
        woken = asyncio.Event()
        self._listening.add(woken)
        try:
            while (found := await self._matcher.result(wanted, self._arrived[first:])) is None:
                woken.clear()
                await woken.wait()
            return found
        finally:
            self._listening.discard(woken)

    async def sleep(self, key: StepKey, milliseconds: int) -> None:
        await self._clock.sleep(milliseconds)

    def time_limit(self, key: StepKey, milliseconds: int) -> AbstractAsyncContextManager[None]:
        return self._clock.time_limit(milliseconds)

    @asynccontextmanager
    async def claim(self, key: StepKey, wanted: WantedClaim) -> AsyncIterator[Mapping[str, Any]]:
        """Grants the claim, unless the script says otherwise."""
        place = task_of_claim(key).pointer
        scripted = self._case.claims.get(place, self._case.claims.get(place.rpartition("/")[2], GRANTED))
        if scripted.denied:
            await self._clock.sleep(wanted.wait)
            raise claim_denied(f"another person has claimed {wanted.subject}", key.pointer)
        self._tokens += 1
        shown = {"subject": wanted.subject, "effect": wanted.effect, "claim": "rehearsal", "token": self._tokens}
        try:
            async with nullcontext() if scripted.lost_after is None else self._clock.time_limit(_milliseconds(scripted.lost_after)):
                yield shown
        except TimeoutError as error:
            raise claim_lost(wanted.subject, wanted.effect, self._tokens, key.pointer) from error

    async def settle(self, key: StepKey) -> None:
        """Nothing: claims of a rehearsal are in the way of none other."""

    async def record(self, key: StepKey, value: Any) -> Any:
        return self._records.setdefault(str(key), value)

    async def recorded(self, key: StepKey) -> Any:
        return self._records.get(str(key))

    async def look_up(self, key: StepKey, question: LookUp) -> Any:
        """In a rehearsal everything that the document names may be used, and nothing is known of it but its name."""
        if isinstance(question, Rights):
            return []
        if isinstance(question, Rank):
            return list(question.agents)
        if isinstance(question, Spent):
            return [None for _ in question.calls]
        return {kind: [{"name": name} for name in getattr(question, kind)] for kind in ("agents", "tools")}

    async def record_plan(self, key: StepKey, plan: Mapping[str, Any]) -> Mapping[str, Any]:
        return dict(self._records.setdefault(str(key), plan))

    def hold(self, key: StepKey, value: Any) -> None:
        """Nothing: a rehearsal is bounded by its time."""

    def abandon(self, key: StepKey) -> None:
        """Nothing: what waits ends with its branch."""

    def now(self) -> int:
        return self._clock.now

    def entered(self, key: StepKey, input: Any) -> None:
        self.observed.steps.append(key.pointer)

    def left(self, key: StepKey, output: Any, fault: Fault | None) -> None:
        """Nothing: the entering is enough to know what ran."""


def _answered_as(pointer: str) -> str:
    """The pointer that names the answers of a step.

    Planners answer as the step that plans, people who approve of a plan as `approve`, and each of several agents as their step.
    """
    step, _, _ = pointer.rpartition("/agents/")
    if step and not step.rpartition("/")[2].isdigit():
        return step
    step, _, rest = pointer.rpartition("/plans/")
    if step and rest.endswith("/planner"):
        return step
    place, _, digest = pointer.rpartition("/")
    return place if step and place.endswith("/approve") and len(digest) == DIGEST_LENGTH else pointer


class Unanswered(Exception):
    """The rehearsal lacks an answer that the run asks for."""


def _milliseconds(duration: Any) -> int:
    return duration.total if isinstance(duration, Units) else milliseconds_of(duration)
