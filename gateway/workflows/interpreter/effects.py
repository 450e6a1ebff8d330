"""The port between the interpreter and the world: whatever a run does that is not a computation on its own data."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from msgspec import Struct

from gateway.workflows.interpreter.errors import Fault


class StepKey(Struct, frozen=True):
    """Names one execution of one task within a run, the same one each time the run is replayed.

    `pointer` is the task in the document, `visits` how often each scope around it and the task itself were entered before, loops counted,
    `attempts` the retries of the `try` tasks around it.
    """

    pointer: str
    visits: tuple[int, ...] = ()
    attempts: tuple[int, ...] = ()

    def is_within(self, other: "StepKey") -> bool:
        """Whether this execution is that of `other`, or part of it."""
        inside = self.pointer == other.pointer or self.pointer.startswith(f"{other.pointer}/")
        visits, attempts = self.visits[: len(other.visits)], self.attempts[: len(other.attempts)]
        return inside and (visits, attempts) == (other.visits, other.attempts)

    def __str__(self) -> str:
        return f"{self.pointer}:{'.'.join(map(str, self.visits))}:{'.'.join(map(str, self.attempts))}"


class PreparedCall(Struct, frozen=True):
    """A call whose arguments have their values. `function`: http, openapi, a2a, mcp, or a function of the gateway's.

    `is_deterministic`: the step computes, and may reach only what no model works behind.
    `subject`: what people who are asked are shown beside the question, such as a plan.
    """

    function: str
    arguments: Mapping[str, Any]
    input: Any
    metadata: Mapping[str, Any]
    is_deterministic: bool = False
    subject: Any = None


class RunSuspended(Exception):
    """The run waits for something that may take long; nothing of it needs a process until then."""


class Effects(Protocol):
    """Every method may be asked again for a key whose effect it had; it then returns what it returned then, and does nothing else.

    A method raises WorkflowError when the effect failed, and RunSuspended when the run has to wait without its process: the run is then
    interpreted from the beginning again when it goes on.
    """

    async def call(self, key: StepKey, call: PreparedCall) -> Any: ...

    async def emit(self, key: StepKey, event: Mapping[str, Any], sensitivity: int | None = None) -> Mapping[str, Any]:
        """Publishes a CloudEvent and returns it with the attributes that it lacked.

        `sensitivity` is what the document declares of it; with None it is as sensitive as what the run has read.
        """
        ...

    async def listen(self, key: StepKey, wanted: "Wanted") -> list[Any]:
        """The events that a listening task waited for, each as its envelope."""
        ...

    async def sleep(self, key: StepKey, milliseconds: int) -> None: ...

    async def run_workflow(self, key: StepKey, workflow: "SubRun") -> Any: ...

    def time_limit(self, key: StepKey, milliseconds: int) -> AbstractAsyncContextManager[None]:
        """Ends what runs within it by a TimeoutError once the time is over, counted from when it was first entered."""
        ...

    def claim(self, key: StepKey, wanted: "WantedClaim") -> AbstractAsyncContextManager[Mapping[str, Any]]:
        """Holds a claim while what runs within it goes on; gives its subject, effect and fencing token.

        Raises WorkflowError where the claim is refused, or was lost before the end. After another error within, the claim is held until
        `settle` or the end of the run.
        """
        ...

    async def settle(self, key: StepKey) -> None:
        """Releases the claims of tasks at this place or within it: the run goes on, whatever became of them."""
        ...

    async def record(self, key: StepKey, value: Any) -> Any:
        """The value that was recorded first under this key, which is `value` when none was."""
        ...

    async def recorded(self, key: StepKey) -> Any:
        """What was recorded under this key, or None."""
        ...

    async def look_up(self, key: StepKey, question: "LookUp") -> Any:
        """What the registry and the rights of the run's starter said to a question when it was first asked."""
        ...

    async def record_plan(self, key: StepKey, plan: Mapping[str, Any]) -> Mapping[str, Any]:
        """The plan that was recorded first under this key, which is `plan` when none was. Plans are shown with the run."""
        ...

    def hold(self, key: StepKey, value: Any) -> None:
        """Counts a value that the run has computed towards its size, in place of the former value of this key. Raises WorkflowError."""
        ...

    def abandon(self, key: StepKey) -> None:
        """What waits at this place or within it is not waited for any more: the run has gone on without it."""
        ...

    def now(self) -> int:
        """Microseconds since 1970: the moment of the run's last effect, so that a replay sees the same time."""
        ...

    def entered(self, key: StepKey, input: Any) -> None: ...

    def left(self, key: StepKey, output: Any, fault: Fault | None) -> None: ...


class Offer(Struct, frozen=True):
    """Asks which of these agents and tools the run's starter may use now, and what each is for: `{"agents": […], "tools": […]}`."""

    agents: tuple[str, ...]
    tools: tuple[str, ...]


class PlannedCall(Struct, frozen=True):
    """One call of a plan. `arguments` of a tool are None while they depend on outputs of other steps."""

    path: str
    target: str
    is_tool: bool
    skill: str = ""
    arguments: Mapping[str, Any] | None = None


class Rights(Struct, frozen=True):
    """Asks which of these calls would be refused now: a list of reasons, empty when none would."""

    calls: tuple[PlannedCall, ...]


class Rank(Struct, frozen=True):
    """Asks which of these agents have a skill (empty: all of them), the one to ask first being the first."""

    agents: tuple[str, ...]
    skill: str


class Spent(Struct, frozen=True):
    """Asks what these calls have cost: a decimal text for each, or None where the cost is unknown."""

    calls: tuple[StepKey, ...]


RightsLookUp = Offer | Rights | Rank
LookUp = RightsLookUp | Spent


class WantedEvent(Struct, frozen=True):
    """One event filter: the attributes that an event must have, and for each correlation the expression and the value it must have.

    An attribute that is an expression is a condition on the event. `expected` lacks the correlations that take the first event's value.
    """

    attributes: Mapping[str, Any]
    correlations: Mapping[str, str] = {}
    expected: Mapping[str, Any] = {}


class Wanted(Struct, frozen=True):
    """The events that end a listening task: one of one filter, one of each (all), or any number (any) until something holds.

    `until`: an expression on the events so far, or other events that end it without being part of the result.
    """

    mode: str
    filters: tuple[WantedEvent, ...]
    until: "str | Wanted | None" = None


class WantedClaim(Struct, frozen=True):
    """A claim on a subject and effect (`*`: all effects). Durations are milliseconds.

    `lease`: how long it outlives the gateway; `wait`: for how long a refused one is tried again.
    """

    subject: str
    effect: str
    purpose: str
    priority: int
    lease: int
    cool_down: int
    wait: int


class SubRun(Struct, frozen=True):
    namespace: str
    name: str
    version: str
    input: Any
    awaited: bool
