"""The contract of adapters: an adapter runs one turn of one agent and yields events. It is stateless and has no credential."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import msgspec
from msgspec import UNSET, Struct, UnsetType

from adapters.task import Artifact, Message, Task
from policies.delegation.rulings import Grant
from registry.cards.card import Registration


class PromptKind(StrEnum):
    INPUT = "input"
    APPROVAL = "approval"
    AUTH = "auth"  # an authorization that is given elsewhere, at the prompt's `url`


class Prompt(Struct, frozen=True, omit_defaults=True):
    """One question that a task waits for. `schema` is the JSON Schema of its answer; None: any JSON value, by default a text.

    `token` is what the adapter needs to send the answer. It is stored with the task, and never shown.
    """

    id: str
    text: str = ""
    data: Any = None
    schema: Mapping[str, Any] | None = None
    kind: PromptKind = PromptKind.INPUT
    url: str = ""
    token: Any = None


class Answer(Struct, frozen=True):
    """A person's answer to an open prompt, valid by the prompt's schema."""

    prompt: Prompt
    value: Any


class VendorRef(Struct, frozen=True, omit_defaults=True):
    """The agent's own ids of a conversation, which the gateway stores as soon as RefLearned arrives, and never shows.

    `prompts` are the open questions of its task: the gateway sets them from the Ask that ended the turn, until the agent ended the turn
    with their answers. `kept` is what the adapter has to remember of the session for later tasks; it is small, since it is written with
    each task. `over`: the agent ended or lost its session, so the conversation's next task opens another one. `is_unused`: no message has
    reached the agent in its session yet. `session`: the gateway's id of the conversation since its session was last replaced, see Turn.
    """

    context_id: str = ""
    task_id: str = ""
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    prompts: tuple[Prompt, ...] | UnsetType = UNSET
    kept: Mapping[str, Any] | UnsetType = UNSET
    over: bool = False
    is_unused: bool = False
    session: str = ""


class Turn(Struct, frozen=True):
    """One message for the agent. `ref` is set when a conversation continues; there is no other method to resume.

    `stream`: a client is watching, so events should be streamed if the agent can. `answers` are to all prompts that the task waited for.
    `session` is the gateway's id of the conversation, a UUID unique to this person, agent and transaction. A new one is made after the
    agent's session was given up. Only adapters of vendors get it.
    """

    message: Message
    ref: VendorRef | None = None
    stream: bool = False
    accepted_output_modes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None  # of the request, in addition to the message's
    answers: tuple[Answer, ...] = ()
    session: str = ""


def _do_nothing() -> None:
    """The default of `on_activity`, for calls without an observer."""


def _ignore_retry(_problem: str) -> None:
    """The default of `on_retry`, for calls without an observer."""


class Call(Struct, frozen=True):
    """The permission for one call with its data. Can't be built without a Grant."""

    grant: Grant
    target: Registration
    deadline: float  # seconds on the event loop's clock
    headers: Mapping[str, str]  # trace context and the delegated credential, ready to send
    idempotency_key: str = ""
    has_shortened_deadline: bool = False  # the caller gives it less time than the target usually gets
    idle: float = math.inf  # seconds without a sign of life before the call ends
    on_activity: Callable[[], None] = _do_nothing  # to be called for each sign of life that is no event, such as bytes of a stream
    on_retry: Callable[[str], None] = _ignore_retry  # called with the problem before the agent is asked again

    @property
    def ran_out_of_callers_time(self) -> bool:
        """Whether such a call ended because of its short deadline, which says nothing about the target."""
        return self.has_shortened_deadline and asyncio.get_running_loop().time() > self.deadline - DEADLINE_MARGIN_SECONDS


class RefLearned(Struct, frozen=True):
    """The agent's ids of the task, for the next turn. `awaited_connection_id` is set if the task waits for a person's consent."""

    ref: VendorRef
    awaited_connection_id: str | None = None  # the account connection whose consent the task waits for


class Progress(Struct, frozen=True):
    """The agent works. `message` is its intermediate message, `metadata` its notes on the task.

    `detail`: text that callers do not see, for the redacted log.
    """

    message: Message | None = None
    metadata: Mapping[str, Any] | None = None
    detail: str = ""


class ArtifactPiece(Struct, frozen=True):
    """An artifact or a piece of one. `append` adds to the artifact with that id; otherwise it replaces it.

    `metadata` is the agent's note on this update; the artifact has its own.
    """

    artifact: Artifact
    append: bool = False
    last_chunk: bool = True
    metadata: Mapping[str, Any] | None = None


class RejectedArtifact(Struct, frozen=True):
    """An artifact that violates the agent's contract: stored, and given to no caller. Made by the gateway, never by an adapter."""

    artifact: Artifact


class Ask(Struct, frozen=True):
    """The agent waits for input, or with `auth` for an authorization that is given elsewhere. Ends the turn.

    The gateway stores and shows `prompts`, and refuses an answer that fits none of them. `metadata` is the agent's note on the task.
    """

    message: Message | None = None
    auth: bool = False
    prompts: tuple[Prompt, ...] = ()
    metadata: Mapping[str, Any] | None = None


class Replied(Struct, frozen=True):
    """The agent responded with a Message and keeps no task. Ends the turn."""

    message: Message


class Done(Struct, frozen=True):
    """The agent completed the task. Ends the turn. `metadata` is a note on the task, such as `usage`."""

    message: Message | None = None
    metadata: Mapping[str, Any] | None = None


class Failed(Struct, frozen=True):
    """The turn failed. Ends the turn. `reason` is public and never an upstream's text; `detail` goes to the redacted log.

    `kind` is UpstreamFault's, or AGENT_LATE; empty: the agent itself reported the failure. `retryable`: nothing was done, and the same turn
    may work later, after `retry_after` seconds if the agent says so. `metadata` is the agent's note on the task. `had_no_effect`: the agent
    has certainly done nothing, so the turn costs nothing.
    """

    reason: str
    message: Message | None = None
    rejected: bool = False
    detail: str = ""
    kind: str = ""
    retryable: bool = False
    retry_after: float | None = None
    metadata: Mapping[str, Any] | None = None
    had_no_effect: bool = False


class AnswerRefused(Struct, frozen=True):
    """The agent refused the answers of a turn, and its task waits as before. Ends the turn.

    `reason`, `detail` and `retryable` are as in Failed. `kind` is UpstreamFault's; empty: the agent refused the content of the answer.
    """

    reason: str
    detail: str = ""
    kind: str = ""
    retryable: bool = False


class Canceled(Struct, frozen=True):
    """The agent confirmed a cancellation. Ends the turn. `metadata` is the agent's note on the task."""

    message: Message | None = None
    metadata: Mapping[str, Any] | None = None


class Suspended(Struct, frozen=True):
    """The work goes on later by itself, in any process: the task stays WORKING without a turn. Ends the turn.

    Made by the gateway's own engine of workflows, never by an adapter of an upstream. `message` says what the task waits for.
    """

    message: Message | None = None
    metadata: Mapping[str, Any] | None = None


def token_usage_metadata(
    model: str = "", input_tokens: int | None = None, output_tokens: int | None = None, total_tokens: int | None = None
) -> dict[str, Any]:
    """Usage metadata for an event such as Done or Failed; empty where nothing is known."""
    figures = {"model": model or None, "input_tokens": input_tokens, "output_tokens": output_tokens, "total_tokens": total_tokens}
    known = {name: figure for name, figure in figures.items() if figure is not None}
    return {USAGE_KEY: known} if known else {}


def is_token_count(value: Any) -> bool:
    """Whether a reported figure can be a number of tokens of one turn."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX


Event = RefLearned | Progress | ArtifactPiece | RejectedArtifact | Ask | Replied | Done | Failed | AnswerRefused | Canceled | Suspended
USAGE_KEY = "urn:interlock:a2a:usage"  # in the metadata of a task: model, input_tokens, output_tokens, total_tokens, if known
INVALID = "invalid"  # in that: the names of figures that were reported and can't be right
TOKENS_MAX = 1_000_000_000  # of one turn; a higher figure is no report of usage
CITATIONS_KEY = "urn:interlock:a2a:citations"  # in the metadata of a part: a list of {url, title, text, …}
ENDPOINT_KEY = "interlock.endpoint"  # in the `extra` of a VendorRef: the endpoint with the task, if not the registered one
DEADLINE_MARGIN_SECONDS = 0.05  # seconds before a deadline in which it counts as reached
AGENT_LATE = "AGENT_LATE"  # the kind of a Failed whose agent did not answer in time
BAD_ANSWER = "BAD_ANSWER"  # the kind of an AnswerRefused without one
ENDINGS = frozenset({Ask, Replied, Done, Failed, AnswerRefused, Canceled, Suspended})  # their types: isinstance takes five times as long


class Failure(StrEnum):
    """The public category of a failed call to an agent or server: the member `failure` of an error."""

    UNREACHABLE = "unreachable"  # no connection, or it broke before a response began
    LATE = "late"  # no response before the deadline
    CUT = "cut"  # the response was cut off
    INVALID = "invalid"  # the response violates the protocol
    BUSY = "busy"  # the upstream asks to retry later


class UpstreamFault(Exception):
    """The upstream is unreachable, or its response violates the protocol. `public` and `kind` are safe to show.

    `retryable`: the upstream did nothing, and may do it later, after `retry_after` seconds if it says so. `is_unsent`: no byte of the
    request was sent. `had_no_effect`: the upstream did nothing. `is_callers_mistake`: the content of the request caused it.
    """

    kind = "UPSTREAM"
    retryable = False
    retry_after: float | None = None
    is_unsent = False
    had_no_effect = False
    is_callers_mistake = False
    address = ""  # the URL that was called, without its query
    shows_cause = False  # the receiver is an operator, who may see the cause
    failure: Failure | None = None

    def __init__(self, public: str, detail: str = "", failure: Failure | None = None) -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        if failure is not None:
            self.failure = failure

    @property
    def cause(self) -> str:
        """For operators: the URL that was called, and its error."""
        return ": ".join(filter(None, (self.address, self.detail)))


class InvalidAnswer(UpstreamFault):
    """The agent's response violates the protocol."""

    kind = "INVALID_AGENT_RESPONSE"
    failure = Failure.INVALID


class AgentFault(UpstreamFault):
    """The agent's response says why it did not do what was requested."""

    def __init__(self, kind: str, public: str, detail: str = "", retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(public, detail)
        self.kind = kind
        self.retryable = retryable
        self.retry_after = retry_after


class CannotCancel(Exception):
    """The agent can't stop a task; no request was sent."""


class TurnPostponed(Exception):
    """The turn has neither ended nor failed: another one goes on with the task when the gateway can, in any process (`Reattachable`)."""


class CannotReattach(Exception):
    """The agent can't continue a turn that another process of the gateway began."""


class NotSent(UpstreamFault):
    """There was no time or capacity left to send the request, so the upstream's state is unknown."""

    is_unsent = True


class Unreachable(UpstreamFault):
    """The connection failed, broke, or timed out: it is unknown whether the upstream did anything."""


@runtime_checkable
class Watcher(Protocol):
    """An Adapter whose agents may continue a waiting task by themselves, for example after an authorization elsewhere."""

    def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """Yields nothing while the task waits, then what becomes of it up to an ending."""
        ...


@runtime_checkable
class Reattachable(Protocol):
    """An Adapter that can continue a turn that an ended process of the gateway began."""

    def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Yields what becomes of the turn with the ids `turn.ref`, up to an ending; `turn` has no message.

        `known` is the task as stored. Its content need not be sent again; an artifact that is sent again without `append` replaces the
        stored one. Raises CannotReattach before the first event, and UpstreamFault.
        """
        ...


@runtime_checkable
class Stoppable(Protocol):
    """An Adapter whose agents continue a turn after the gateway stopped waiting."""

    async def stop(self, ref: VendorRef, call: Call) -> bool:
        """Asks the agent once to stop the run, where the agent supports it. Returns whether the agent confirmed. Raises UpstreamFault."""
        ...


class Adapter(Protocol):
    """The client of one protocol. `run` yields any number of events, and ends with exactly one of ENDINGS."""

    def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]: ...

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """Cancels a task. True only when the agent confirmed it, False when the agent does not stop it.

        Raises CannotCancel, and UpstreamFault when it is unknown whether the agent was reached.
        """
        ...


class RunningTurn(Protocol):
    """A turn that an agent works on. The asyncio task that reads its events also closes it, whether it has ended or not."""

    async def next_events(self) -> Sequence[Event] | None:
        """The next events that arrived together, possibly none; None after the last. Raises what `run` raises."""

    async def aclose(self) -> None: ...


class BatchingAdapter(Protocol):
    """An Adapter whose events often arrive together."""

    def begin_turn(self, turn: Turn, call: Call) -> RunningTurn: ...


class Challenged(UpstreamFault):
    """The upstream requires a credential, or another one. `challenge` is its WWW-Authenticate header."""

    def __init__(self, status: int, challenge: str, detail: str = "", public: str = "") -> None:
        super().__init__(public or "The server refused the gateway's credential", detail or f"status {status}")
        self.status = status
        self.challenge = challenge


class ConsentNeeded(Exception):
    """A person has to consent at `url`, a page of the gateway, before this call can be made.

    `id` identifies the consent; `service` needs it. The text is safe to show to the person's own clients and agents.
    """

    def __init__(self, url: str, id: str, service: str) -> None:
        super().__init__(f"{service} needs your own account there. Open {url} to connect it, then do this again.")
        self.url = url
        self.id = id
        self.service = service
