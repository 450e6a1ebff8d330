"""What the adapters of vendors share: a vendor says what to send and what the answer means, and everything else is done here."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, Protocol, cast, runtime_checkable
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, ValidationError

from adapters.contract import (
    ENDINGS,
    Adapter,
    Call,
    Canceled,
    CannotCancel,
    CannotReattach,
    Done,
    Event,
    Failed,
    InvalidAnswer,
    Reattachable,
    RefLearned,
    Turn,
    UpstreamFault,
    VendorRef,
)
from adapters.task import Message, Part, Role, Task
from adapters.upstream.egress import Egress
from adapters.upstream.validation_texts import describe_problem
from adapters.vendors.sdk.answers import READING_ERRORS, enforce_contract, ensure_final_message, unreadable_answer
from adapters.vendors.sdk.connection import VendorConnection, VendorEndpoint
from adapters.vendors.sdk.frames import End, Frame
from adapters.vendors.sdk.lost_sessions import detect_lost_session
from policies.delegation.principal import Principal

CUT_OFF_TEXT: Final = "The agent's answer broke off"
NO_OUTCOME_TEXT: Final = "The agent's answer ended without an outcome"
CANCEL_UNKNOWN_TEXT: Final = "Whether the agent stopped is not known"
BAD_OPTIONS_TEXT: Final = "The agent's registration has options that its adapter does not take"
COMMON_OPTIONS: Final = frozenset(
    {"headers", "timeout", "idle_timeout", "tls", "push", "auth"}
)  # of an entry's `upstream`, for agents of every kind
SESSIONS_MAX: Final = 10_000
CANCELLATIONS_MAX: Final = 1_000  # cancellations that are remembered, until their runs end


class OpenQuestions(StrEnum):
    """How many questions an agent's session may have open while the gateway says something else in that session."""

    NONE = "none"  # the agent never asks
    ONE = "one"  # whatever is said next answers the open question, drops it or confuses it
    EACH = "each"  # an answer reaches its own question alone, and every other question stays open


class Features(Struct, frozen=True):
    """What agents of one kind can do at all."""

    streams: bool = False
    cancels: bool = False
    resumes: bool = False  # asks, and goes on with the answer
    polls: bool = False  # can be asked how a turn stands, by `Polling.poll`
    files: bool = False
    parallel: bool = False  # has no sessions, so that turns of one conversation need not wait for each other
    questions: OpenQuestions = OpenQuestions.ONE  # of a session; the gateway keeps a new task out of a session whose one question is open
    keeps_sessions: bool = False  # an unknown session (404, 410) means that the agent has lost it, as long as the agent itself is there
    shares_questions: bool = False  # one session may tell another's: the gateway takes none whose id a task of another caller holds


class VendorOptions(BaseModel):
    """What an operator may say of an agent in its `upstream`, beside what every agent has. A vendor adds its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    user: Literal["pseudonym", "subject"] = "pseudonym"  # as whom the vendor gets to know a person

    def narrow_features(self, features: Features) -> Features:
        """The features of an agent with these options, where they differ from those of its kind."""
        return features


class BadOptions(Exception):
    """An `upstream` that this kind of agent does not take. `field` is a path in it; both texts are safe to show."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class SkillFacts(Struct, frozen=True):
    id: str
    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None  # of its input


class AgentFacts(Struct, frozen=True):
    """What the gateway puts on the card of an agent that has none."""

    name: str
    description: str
    version: str = "1"
    skills: tuple[SkillFacts, ...] = ()
    input_modes: tuple[str, ...] = ("text/plain", "application/json")
    output_modes: tuple[str, ...] = ("text/plain", "application/json")


class CancelOutcome(StrEnum):
    CANCELED = "canceled"  # the agent confirmed it
    TOO_LATE = "too_late"  # there was nothing left to stop
    UNSUPPORTED = "unsupported"  # the agent was told nothing
    UNKNOWN = "unknown"


class FrameReader(Protocol):
    """What the frames of one answer mean. Pure: no I/O, no clock. It never sees an `End` that is not clean."""

    def read(self, frame: Frame) -> Iterable[Event]: ...


class Vendor(Protocol):
    """One vendor's language, in one file. Holds no state; everything that it may use comes with the `Line`."""

    kind: ClassVar[str]
    features: ClassVar[Features]
    options: ClassVar[type[VendorOptions]]

    async def describe(self, connection: VendorConnection[Any]) -> AgentFacts:
        """Asked when an agent is registered, and every minute from then on. Raises UpstreamFault."""
        ...

    def run(self, turn: Turn, connection: VendorConnection[Any]) -> AsyncIterator[Event]:
        """Start and resume: with `turn.answers` the turn is one more run on the session. Raises UpstreamFault."""
        ...

    async def cancel(self, ref: VendorRef, connection: VendorConnection[Any]) -> CancelOutcome: ...


@runtime_checkable
class PollingVendor(Protocol):
    """A Vendor whose agents go on by themselves with a task that waits."""

    def poll(self, ref: VendorRef, connection: VendorConnection[Any]) -> AsyncIterator[Event]:
        """As Watcher.watch: nothing as long as the task waits, then what becomes of it."""
        ...


@runtime_checkable
class ReattachableVendor(Protocol):
    """A Vendor whose agents tell what became of a run that another process of the gateway began."""

    def reattach(self, ref: VendorRef, connection: VendorConnection[Any]) -> AsyncIterator[Event]:
        """What the run comes to, up to an ending. Raises CannotReattach for a run that can't be asked about, and UpstreamFault."""
        ...


def parse_events(reader: FrameReader, frames: Iterable[Frame]) -> Iterator[Event]:
    """The events of one answer, with exactly one ending, which is the last: an answer that is cut is a failure, whatever came before."""
    for frame in frames:
        if isinstance(frame, End) and not frame.is_clean:
            yield Failed(CUT_OFF_TEXT, detail="the body was cut", kind=InvalidAnswer.kind)
            return
        for event in reader.read(frame):
            yield event
            if isinstance(event, ENDINGS):
                return
    yield Failed(NO_OUTCOME_TEXT, kind=InvalidAnswer.kind)


async def read_events(reader: FrameReader, frames: AsyncGenerator[Frame, None]) -> AsyncGenerator[Event, None]:
    """As `parse`, while the frames arrive."""
    async with aclosing(frames) as arriving:
        async for frame in arriving:
            for event in parse_events(reader, (frame,)) if isinstance(frame, End) else reader.read(frame):
                yield event
                if isinstance(event, ENDINGS):
                    return


def parse_options(vendor: Vendor, upstream: Mapping[str, Any], read_text: Callable[[str], str] = str) -> VendorOptions:
    """`read_text` makes the values of such as stand for one, `env:NAME`. Raises BadOptions."""
    given = {name: read_text(value) if isinstance(value, str) else value for name, value in upstream.items() if name not in COMMON_OPTIONS}
    try:
        return vendor.options.model_validate_json(msgspec.json.encode(given))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step)[:100] for step in first["loc"] if str(step).isprintable())
        problem = "is not an option of this kind of agent" if first["type"] == "extra_forbidden" else describe_problem(first)
        raise BadOptions(f"upstream.{field}".rstrip("."), problem) from None


def user_id(principal: Principal, options: VendorOptions) -> str:
    """Who a person is to the vendor: the same at each call, told by nobody but the verified token. Without `subject`, no vendor
    learns the name, and two gateways or tenants never mean the same person by it.
    """
    if options.user == "subject":
        return principal.subject
    return "u-" + hashlib.sha256(f"interlock user|{principal.owner_key}".encode()).hexdigest()[:32]


def agent_message(text: str, message_id: str = "m-agent") -> Message:
    """An agent's words, where its protocol has no message of its own."""
    return Message(message_id, Role.AGENT, (Part(text=text),))


class _SessionTurnLock:
    """Where the turns of one session wait, as long as any does. `last`: what the one before told of the agent's session."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.previous_ref: VendorRef | None = None


class VendorAgent:
    """An Adapter around a Vendor: one turn at a time in each session, outputs fetched, and answers of another shape refused."""

    def __init__(self, vendor: Vendor, egress: Egress, read_text: Callable[[str], str] = str) -> None:
        """`read_text`: what an option `env:NAME` stands for."""
        self.vendor = vendor
        self._egress = egress
        self._read_text = read_text
        self._session_locks: WeakValueDictionary[tuple[str, str, str], _SessionTurnLock] = WeakValueDictionary()
        self._cancellations: OrderedDict[tuple[str, str, str], asyncio.Future[CancelOutcome]] = OrderedDict()  # by the agents' ids of runs
        self._vendor_sessions: OrderedDict[tuple[str, str, str], str] = OrderedDict()  # the vendor's ids, of turns that followed closely

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Raises UpstreamFault."""
        line = self._connection(call, turn.session)
        key, run = (call.target.tenant, call.target.name, turn.session), ""
        async with (
            self._lock_session(key) as gate,
            aclosing(self._vendor_events(self._with_known_session(key, turn, gate.previous_ref), line)) as events,
        ):
            async for event in events:
                if isinstance(event, RefLearned):
                    if turn.ref is not None and turn.ref.session:
                        event = RefLearned(replace(event.ref, session=turn.ref.session))
                    gate.previous_ref = event.ref
                    self._remember_session(key, event.ref)
                    if not run and (before := self._cancellations.get((*key[:2], event.ref.task_id))) and before.done():
                        del self._cancellations[
                            (*key[:2], event.ref.task_id)
                        ]  # of a turn before this one, where runs have no ids of their own
                    run = event.ref.task_id or run
                elif isinstance(event, Failed | Done) and await self._was_canceled((*key[:2], run)):
                    event = Canceled()
                yield event

    def _vendor_events(self, turn: Turn, connection: VendorConnection[Any]) -> AsyncGenerator[Event, None]:
        """What a turn tells, under the contract of adapters."""
        events = ensure_final_message(enforce_contract(self.vendor.run(turn, connection), connection))
        if not self.vendor.features.keeps_sessions or turn.ref is None or not turn.ref.context_id:
            return events
        return detect_lost_session(events, turn.ref, lambda: self.vendor.describe(connection))

    async def stop(self, ref: VendorRef, call: Call) -> None:
        """As Stoppable has it. Raises UpstreamFault."""
        if self.vendor.features.cancels and ref.task_id:
            await _await_outcome(self.vendor.cancel(ref, self._connection(call)))

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """As Reattachable has it: the run tells all of its answer again. Raises CannotReattach and UpstreamFault."""
        ref, vendor = turn.ref or VendorRef(), self.vendor
        if not isinstance(vendor, ReattachableVendor) or not ref.task_id:
            raise CannotReattach
        line, key = self._connection(call, turn.session), (call.target.tenant, call.target.name, turn.session)
        async with self._lock_session(key), aclosing(ensure_final_message(enforce_contract(vendor.reattach(ref, line), line))) as events:
            async for event in events:
                if isinstance(event, Failed | Done) and await self._was_canceled((*key[:2], ref.task_id)):
                    event = Canceled()
                yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """As Adapter. Raises CannotCancel and UpstreamFault."""
        run = (call.target.tenant, call.target.name, ref.task_id)
        stopping = self._cancellations[run] = asyncio.ensure_future(_await_outcome(self.vendor.cancel(ref, self._connection(call))))
        if len(self._cancellations) > CANCELLATIONS_MAX:
            self._cancellations.popitem(last=False)
        try:
            outcome = await stopping
        finally:
            stopping.cancel()
        if outcome is CancelOutcome.CANCELED:
            return True
        if outcome is CancelOutcome.UNSUPPORTED or ref.prompts:  # a task that waits has no run to be stopped, whatever became of its last
            raise CannotCancel
        if outcome is CancelOutcome.TOO_LATE:
            return False
        raise UpstreamFault(CANCEL_UNKNOWN_TEXT)

    async def describe(self, endpoint: VendorEndpoint) -> AgentFacts:
        """Raises UpstreamFault, EgressRefused and BadOptions."""
        options = parse_options(self.vendor, endpoint.upstream, self._read_text)
        try:
            return await self.vendor.describe(VendorConnection(self._egress, endpoint, options))
        except READING_ERRORS as error:
            raise unreadable_answer(error) from error

    async def _was_canceled(self, run: tuple[str, str, str]) -> bool:
        """Whether a run ended because somebody has just had it canceled. There are agents whose streams end then as if all was said."""
        stopping = self._cancellations.get(run)
        if stopping is None:
            return False
        await asyncio.wait((stopping,))
        return not stopping.cancelled() and stopping.exception() is None and stopping.result() is CancelOutcome.CANCELED

    def _connection(self, call: Call, session: str = "") -> VendorConnection[Any]:
        target = call.target
        try:
            options = parse_options(self.vendor, target.upstream, self._read_text)
        except BadOptions as error:  # registered before the adapter was another
            raise UpstreamFault(BAD_OPTIONS_TEXT, str(error)) from error
        user = user_id(call.grant.delegation.principal, options)
        url = str(target.facts.get("interface") or target.url)
        return VendorConnection(
            self._egress, VendorEndpoint(url, target.upstream, call.headers, call.deadline, user, session, call.heard), options
        )

    @asynccontextmanager
    async def _lock_session(self, key: tuple[str, str, str]) -> AsyncIterator[_SessionTurnLock]:
        """Turns of one session wait for each other; the deadline of the call ends the wait."""
        gate = self._session_locks.get(key)
        if gate is None:
            gate = self._session_locks[key] = _SessionTurnLock()
        async with gate.lock:
            yield gate

    def _with_known_session(self, key: tuple[str, str, str], turn: Turn, previous_ref: VendorRef | None) -> Turn:
        """With the vendor's session, where a turn just before this one opened it, and what the turn that this one waited for kept."""
        ref = turn.ref or VendorRef()
        if previous_ref is not None and previous_ref.context_id and not previous_ref.over:
            return replace(turn, ref=replace(ref, context_id=previous_ref.context_id, kept=previous_ref.kept))
        if ref.context_id or key not in self._vendor_sessions:
            return turn
        return replace(turn, ref=replace(ref, context_id=self._vendor_sessions[key]))

    def _remember_session(self, key: tuple[str, str, str], ref: VendorRef) -> None:
        if ref.over:
            self._vendor_sessions.pop(key, None)
        elif ref.context_id and key[2]:
            self._vendor_sessions[key] = ref.context_id
            self._vendor_sessions.move_to_end(key)
            if len(self._vendor_sessions) > SESSIONS_MAX:
                self._vendor_sessions.popitem(last=False)


class PollingAgent(VendorAgent):
    """A VendorAgent that is a Watcher too."""

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        vendor = cast("PollingVendor", self.vendor)
        line = self._connection(call)
        async with aclosing(enforce_contract(vendor.poll(ref, line), line)) as events:
            async for event in events:
                yield event


def build_vendor_agent(vendor: Vendor, egress: Egress, read_text: Callable[[str], str] = str) -> VendorAgent:
    return (PollingAgent if isinstance(vendor, PollingVendor) else VendorAgent)(vendor, egress, read_text)


async def _await_outcome(outcome: Awaitable[CancelOutcome]) -> CancelOutcome:
    try:
        return await outcome
    except READING_ERRORS as error:
        raise unreadable_answer(error) from error


_: type[Adapter] = VendorAgent
_reattaches: type[Reattachable] = VendorAgent
