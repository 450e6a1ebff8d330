"""The adapter around a vendor: a vendor defines requests and reads responses; this module does everything else."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, Protocol, cast, runtime_checkable
from weakref import WeakValueDictionary

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, ValidationError

from adapters.contract import (
    ENDINGS,
    Adapter,
    AgentFault,
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
    Stoppable,
    Turn,
    UpstreamFault,
    VendorRef,
)
from adapters.redaction.validation_texts import describe_problem
from adapters.task import Message, Part, Role, Task
from adapters.upstream.egress import Egress
from adapters.vendors.sdk.answers import READING_ERRORS, enforce_contract, ensure_final_message, unreadable_answer
from adapters.vendors.sdk.connection import VendorConnection, VendorEndpoint
from adapters.vendors.sdk.frames import End, Frame
from adapters.vendors.sdk.lost_sessions import is_session_unknown, names_lost_response, run_in_session
from policies.delegation.chain import Principal
from registry.names import InvalidMember

CUT_OFF_TEXT: Final = "The agent's answer was cut off"
NO_OUTCOME_TEXT: Final = "The agent's answer ended without an outcome"
CANCEL_UNKNOWN_TEXT: Final = "It is unknown whether the agent stopped"
BAD_OPTIONS_TEXT: Final = "The agent's registration has options that its adapter does not accept"
COMMON_OPTIONS: Final = frozenset(
    {"headers", "timeout", "idle_timeout", "tls", "push", "auth"}
)  # members of an entry's `upstream` for agents of every kind
SESSIONS_MAX: Final = 10_000
CANCELLATIONS_MAX: Final = 1_000  # remembered cancellations, until their runs end


class OpenQuestions(StrEnum):
    """How many questions a session may have open while the gateway sends another message in that session."""

    NONE = "none"  # the agent never asks
    ONE = "one"  # the next message answers the open question, drops it or confuses it
    EACH = "each"  # an answer reaches its own question only, and every other question stays open


class Features(Struct, frozen=True):
    """What agents of one kind support."""

    streams: bool = False
    cancels: bool = False
    cancel_ends_session: bool = False  # a cancellation deletes the session's memory, so only callers may request it, and no deadline
    resumes: bool = False  # asks questions, and continues with the answers
    polls: bool = False  # the state of a turn can be polled, by `PollingVendor.poll`
    files: bool = False
    parallel: bool = False  # has no sessions, so that turns of one conversation can run at the same time
    questions: OpenQuestions = OpenQuestions.ONE  # per session; the gateway starts no new task in a session whose one question is open
    keeps_sessions: bool = False  # an unknown session (404, 410) means that the agent lost it, if the agent itself responds
    shares_questions: bool = False  # a session may repeat another's questions: the gateway ignores those of another caller's task


class VendorOptions(BaseModel):
    """An agent's options in `upstream`, beside those of every agent. Each vendor adds its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    user: Literal["pseudonym", "subject"] = "pseudonym"  # the id of a person that the vendor gets

    def narrow_features(self, features: Features) -> Features:
        """The features of an agent with these options, where they differ from its kind's."""
        return features


class BadOptions(InvalidMember):
    """An `upstream` is invalid for this kind of agent. `field` is a path in it; both texts are safe to show."""


class SkillFacts(Struct, frozen=True):
    id: str
    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None  # of its input


class AgentFacts(Struct, frozen=True):
    """The facts for the card that the gateway writes for an agent without one."""

    name: str
    description: str
    version: str = "1"
    skills: tuple[SkillFacts, ...] = ()
    input_modes: tuple[str, ...] = ("text/plain", "application/json")
    output_modes: tuple[str, ...] = ("text/plain", "application/json")


class CancelOutcome(StrEnum):
    CANCELED = "canceled"  # the agent confirmed it
    TOO_LATE = "too_late"  # there was nothing left to stop
    UNSUPPORTED = "unsupported"  # no request was sent
    UNKNOWN = "unknown"


class FrameReader(Protocol):
    """Converts the frames of one response to events. Pure: no I/O, no clock. Never gets an `End` that is not clean."""

    def read(self, frame: Frame) -> Iterable[Event]: ...


class Vendor(Protocol):
    """The protocol of one vendor, in one file. Stateless: everything it uses comes with the VendorConnection."""

    kind: ClassVar[str]
    features: ClassVar[Features]
    options: ClassVar[type[VendorOptions]]

    async def describe(self, connection: VendorConnection[Any]) -> AgentFacts:
        """The facts of the agent; also used as a health check. Raises UpstreamFault."""
        ...

    def run(self, turn: Turn, connection: VendorConnection[Any]) -> AsyncIterator[Event]:
        """Runs a turn: a new message, or with `turn.answers` a continuation in the session. Raises UpstreamFault."""
        ...

    async def cancel(self, ref: VendorRef, connection: VendorConnection[Any]) -> CancelOutcome: ...


@runtime_checkable
class PollingVendor(Protocol):
    """A Vendor whose agents may continue a waiting task by themselves."""

    def poll(self, ref: VendorRef, connection: VendorConnection[Any]) -> AsyncIterator[Event]:
        """Yields nothing while the task waits, then what became of it, as Watcher.watch does. Raises UpstreamFault."""
        ...


@runtime_checkable
class ReattachableVendor(Protocol):
    """A Vendor that can read the outcome of a run that another process of the gateway began."""

    def reattach(self, ref: VendorRef, connection: VendorConnection[Any]) -> AsyncIterator[Event]:
        """Yields the run's events up to its ending. Raises CannotReattach if the run can't be read, and UpstreamFault."""
        ...


def parse_events(reader: FrameReader, frames: Iterable[Frame]) -> Iterator[Event]:
    """The events of one response, with exactly one ending at the end. A truncated response is a failure, whatever came before."""
    for frame in frames:
        if isinstance(frame, End) and not frame.is_clean:
            yield Failed(CUT_OFF_TEXT, detail="the body was cut", kind=InvalidAnswer.kind)
            return
        for event in reader.read(frame):
            yield event
            if type(event) in ENDINGS:
                return
    yield Failed(NO_OUTCOME_TEXT, kind=InvalidAnswer.kind)


async def read_events(reader: FrameReader, frames: AsyncGenerator[Frame, None]) -> AsyncGenerator[Event, None]:
    """Like `parse_events`, while the frames arrive."""
    async with aclosing(frames) as arriving:
        async for frame in arriving:
            for event in parse_events(reader, (frame,)) if isinstance(frame, End) else reader.read(frame):
                yield event
                if type(event) in ENDINGS:
                    return


def parse_options(vendor: Vendor, upstream: Mapping[str, Any], read_text: Callable[[str], str] = str) -> VendorOptions:
    """Parses an entry's `upstream`. `read_text` resolves values such as `env:NAME`. Raises BadOptions."""
    vendor_options = {
        name: read_text(value) if isinstance(value, str) else value for name, value in upstream.items() if name not in COMMON_OPTIONS
    }
    try:
        return vendor.options.model_validate_json(msgspec.json.encode(vendor_options))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step)[:100] for step in first["loc"] if str(step).isprintable())
        problem = "is not an option of this kind of agent" if first["type"] == "extra_forbidden" else describe_problem(first)
        raise BadOptions(f"upstream.{field}".rstrip("."), problem) from None


def user_id(principal: Principal, options: VendorOptions) -> str:
    """The id of a person for the vendor: constant, and derived from the verified token only.

    Without `subject`, it does not reveal the name, and differs between gateways and tenants.
    """
    if options.user == "subject":
        return principal.subject
    return "u-" + hashlib.sha256(f"interlock user|{principal.owner_key}".encode()).hexdigest()[:32]


def agent_message(text: str, message_id: str = "m-agent") -> Message:
    """A message with an agent's text, for protocols without messages of their own."""
    return Message(message_id, Role.AGENT, (Part(text=text),))


class _SessionTurnLock:
    """The lock for turns of one session, kept while any turn waits. `previous_ref`: the last turn's ids."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.previous_ref: VendorRef | None = None


class VendorAgent:
    """An Adapter around a Vendor: runs one turn at a time in each session, fetches outputs, and refuses malformed responses."""

    def __init__(self, vendor: Vendor, egress: Egress, read_text: Callable[[str], str] = str) -> None:
        """`read_text` resolves an option such as `env:NAME`."""
        self.vendor = vendor
        self._egress = egress
        self._read_text = read_text
        self._session_locks: WeakValueDictionary[tuple[str, str, str], _SessionTurnLock] = WeakValueDictionary()
        self._cancellations: OrderedDict[tuple[str, str, str], asyncio.Future[CancelOutcome]] = OrderedDict()  # by the agents' run ids
        self._vendor_sessions: OrderedDict[tuple[str, str, str], str] = OrderedDict()  # the vendor's ids, for turns that follow closely

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Runs a turn. Raises UpstreamFault."""
        key, run = (call.target.tenant, call.target.name, turn.session), ""
        async with (
            self._lock_session(key) as gate,
            aclosing(self._vendor_events(self._with_known_session(key, turn, gate.previous_ref), call)) as events,
        ):
            async for event in events:
                if isinstance(event, RefLearned):
                    if turn.ref is not None and turn.ref.session:
                        event = RefLearned(replace(event.ref, session=turn.ref.session))
                    gate.previous_ref = event.ref
                    self._remember_session(key, event.ref)
                    if not run and (cancellation := self._cancellations.get((*key[:2], event.ref.task_id))) and cancellation.done():
                        del self._cancellations[
                            (*key[:2], event.ref.task_id)
                        ]  # a cancellation of an earlier turn, where runs have no ids of their own
                    run = event.ref.task_id or run
                elif isinstance(event, Failed | Done) and await self._was_canceled((*key[:2], run)):
                    event = Canceled()
                yield event

    def _vendor_events(self, turn: Turn, call: Call) -> AsyncGenerator[Event, None]:
        """The events of a turn under the contract of adapters. Begins a new session if the agent lost one that nothing was in."""

        def run_vendor(turn: Turn) -> AsyncGenerator[Event, None]:
            connection = self._connection(call, turn.session)
            return ensure_final_message(enforce_contract(self.vendor.run(turn, connection), connection))

        async def is_lost(fault: AgentFault) -> bool:
            if names_lost_response(fault):
                return True
            if not self.vendor.features.keeps_sessions:
                return False
            return await is_session_unknown(fault, lambda: self.vendor.describe(self._connection(call, turn.session)))

        return run_in_session(turn, run_vendor, is_lost)

    async def stop(self, ref: VendorRef, call: Call) -> bool:
        """Stops a run, see Stoppable: not its session, whose memory later turns need. Raises UpstreamFault."""
        features = self.vendor.features
        if not features.cancels or features.cancel_ends_session or not ref.task_id:
            return False
        run = replace(ref, prompts=UNSET)  # the turn has answered them
        return await _await_outcome(self.vendor.cancel(run, self._connection(call))) is CancelOutcome.CANCELED

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Reads a run's events again from its beginning, see Reattachable. Raises CannotReattach and UpstreamFault."""
        ref, vendor = turn.ref or VendorRef(), self.vendor
        if not isinstance(vendor, ReattachableVendor) or not ref.task_id:
            raise CannotReattach
        connection, key = self._connection(call, turn.session), (call.target.tenant, call.target.name, turn.session)
        async with (
            self._lock_session(key),
            aclosing(ensure_final_message(enforce_contract(vendor.reattach(ref, connection), connection))) as events,
        ):
            async for event in events:
                if isinstance(event, Failed | Done) and await self._was_canceled((*key[:2], ref.task_id)):
                    event = Canceled()
                yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """Cancels a task, see Adapter. Raises CannotCancel and UpstreamFault."""
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
        if outcome is CancelOutcome.UNSUPPORTED or ref.prompts:  # a waiting task has no run to stop, whatever became of its last one
            raise CannotCancel
        if outcome is CancelOutcome.TOO_LATE:
            return False
        raise UpstreamFault(CANCEL_UNKNOWN_TEXT)

    async def describe(self, endpoint: VendorEndpoint) -> AgentFacts:
        """The facts of an agent. Raises UpstreamFault, EgressRefused and BadOptions."""
        options = parse_options(self.vendor, endpoint.upstream, self._read_text)
        try:
            return await self.vendor.describe(VendorConnection(self._egress, endpoint, options))
        except READING_ERRORS as error:
            raise unreadable_answer(error) from error

    async def _was_canceled(self, run: tuple[str, str, str]) -> bool:
        """Whether a run ended because of a cancellation: some agents' streams then end as if they were complete."""
        stopping = self._cancellations.get(run)
        if stopping is None:
            return False
        await asyncio.wait((stopping,))
        return not stopping.cancelled() and stopping.exception() is None and stopping.result() is CancelOutcome.CANCELED

    def _connection(self, call: Call, session: str = "") -> VendorConnection[Any]:
        target = call.target
        try:
            options = parse_options(self.vendor, target.upstream, self._read_text)
        except BadOptions as error:  # registered with another version of the adapter
            raise UpstreamFault(BAD_OPTIONS_TEXT, str(error)) from error
        user = user_id(call.grant.delegation.principal, options)
        url = str(target.facts.get("interface") or target.url)
        return VendorConnection(
            self._egress, VendorEndpoint(url, target.upstream, call.headers, call.deadline, user, session, call.on_activity), options
        )

    @asynccontextmanager
    async def _lock_session(self, key: tuple[str, str, str]) -> AsyncIterator[_SessionTurnLock]:
        """Lets the turns of one session run one after another; the call's deadline ends the wait."""
        gate = self._session_locks.get(key)
        if gate is None:
            gate = self._session_locks[key] = _SessionTurnLock()
        async with gate.lock:
            yield gate

    def _with_known_session(self, key: tuple[str, str, str], turn: Turn, previous_ref: VendorRef | None) -> Turn:
        """The turn with the vendor's session that the previous turn opened, and with the values that it kept."""
        ref = turn.ref or VendorRef()
        if previous_ref is not None and previous_ref.context_id and not previous_ref.over:
            known = replace(ref, context_id=previous_ref.context_id, kept=previous_ref.kept, is_unused=previous_ref.is_unused)
            return replace(turn, ref=known)
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
    """A VendorAgent that also polls waiting tasks, see Watcher."""

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        vendor = cast("PollingVendor", self.vendor)
        connection = self._connection(call)
        async with aclosing(enforce_contract(vendor.poll(ref, connection), connection)) as events:
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
_stops: type[Stoppable] = VendorAgent
