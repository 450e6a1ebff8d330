"""What an adapter is: it runs one turn of one agent and yields events. It holds no state and no credential of its own."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
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
    """One thing that a task waits for. `schema` is the JSON Schema of its answer; None: any JSON value, a text for one.

    `token` is what the adapter needs beside the answer to give it: kept with the task, shown to nobody.
    """

    id: str
    text: str = ""
    data: Any = None
    schema: Mapping[str, Any] | None = None
    kind: PromptKind = PromptKind.INPUT
    url: str = ""
    token: Any = None


class Answer(Struct, frozen=True):
    """What somebody answered to an open prompt; it fits the prompt's schema."""

    prompt: Prompt
    value: Any


class VendorRef(Struct, frozen=True, omit_defaults=True):
    """The agent's own ids of this conversation; kept by the gateway as soon as `Ref` arrives, shown to nobody else.

    `prompts` are those that its task waits for: the gateway's to write, from the Ask that ended the turn. They stay until the agent
    itself ended the turn that answers them. `kept` is what the adapter has to know of the session in its later tasks too, where the
    agent itself keeps nothing: small, since it is written with each task. `over`: the agent has ended or lost its session, so the next
    task of the conversation opens another one. `session`: the gateway's name of the conversation since it last began anew, see Turn.
    """

    context_id: str = ""
    task_id: str = ""
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    prompts: tuple[Prompt, ...] | UnsetType = UNSET
    kept: Mapping[str, Any] | UnsetType = UNSET
    over: bool = False
    session: str = ""


class Turn(Struct, frozen=True):
    """One message for the agent. `ref` is set when a conversation goes on; start and resume are one method.

    `stream`: somebody watches, so events should come as they happen, from an agent that can stream. `answers` are to the prompts
    that the task waited for, all of them. `session` is the gateway's name of the conversation, a UUID that no other person, agent or
    errand shares, and another one after the agent's session was given up; only adapters of vendors get it.
    """

    message: Message
    ref: VendorRef | None = None
    stream: bool = False
    accepted_output_modes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None  # of the request, beside those of the message
    answers: tuple[Answer, ...] = ()
    session: str = ""


def _do_nothing() -> None:
    """For calls that nobody watches."""


class Call(Struct, frozen=True):
    """The leave to make one call, and all that it may carry. Can't be built without a Grant."""

    grant: Grant
    target: Registration
    deadline: float  # seconds on the event loop's clock
    headers: Mapping[str, str]  # trace context and the delegated credential, ready to send
    idempotency_key: str = ""
    has_shortened_deadline: bool = False  # whoever calls gives it less time than the target usually gets
    idle: float = math.inf  # seconds that the agent may give no sign of life for
    heard: Callable[[], None] = _do_nothing  # to be called for each sign of life that is no event, such as bytes of a stream

    @property
    def ran_out_of_callers_time(self) -> bool:
        """Whether such a call is over for want of time, which tells nothing of the target."""
        return self.has_shortened_deadline and asyncio.get_running_loop().time() > self.deadline - DEADLINE_MARGIN_SECONDS


class RefLearned(Struct, frozen=True):
    ref: VendorRef


class Progress(Struct, frozen=True):
    """The agent works; `message` is what it says meanwhile, `metadata` what it notes about its task.

    `detail`: what it says and callers do not get to see, for the redacted log.
    """

    message: Message | None = None
    metadata: Mapping[str, Any] | None = None
    detail: str = ""


class ArtifactPiece(Struct, frozen=True):
    """An artifact or a piece of one. `append` adds to the artifact of that id, else it replaces it.

    `metadata` is what the agent notes about this update; the artifact has metadata of its own.
    """

    artifact: Artifact
    append: bool = False
    last_chunk: bool = True
    metadata: Mapping[str, Any] | None = None


class RejectedArtifact(Struct, frozen=True):
    """What an agent gave and its contract does not allow: kept for the record, handed to nobody. The gateway's own, never an adapter's."""

    artifact: Artifact


class Ask(Struct, frozen=True):
    """The agent waits for input (`auth` false) or for an authorization given out of band. Ends the turn.

    With `prompts` the gateway shows each of them, keeps them with the task, and takes no answer that fits none.
    `metadata` is what the agent notes about the task as it asks.
    """

    message: Message | None = None
    auth: bool = False
    prompts: tuple[Prompt, ...] = ()
    metadata: Mapping[str, Any] | None = None


class Replied(Struct, frozen=True):
    """The agent answered with a Message and keeps no task. Ends the turn."""

    message: Message


class Done(Struct, frozen=True):
    """Ends the turn. `metadata` is what is noted about the task, such as `usage`."""

    message: Message | None = None
    metadata: Mapping[str, Any] | None = None


class Failed(Struct, frozen=True):
    """Ends the turn. `reason` is for everyone and never an upstream's text; `detail` goes to the redacted log.

    `kind` is UpstreamFault's, or AGENT_LATE; empty: the agent itself says that it failed. `retryable`: nothing was done, and the same
    turn may work later, after `retry_after` seconds if the agent says so. `metadata` is what the agent notes about the task as it fails.
    """

    reason: str
    message: Message | None = None
    rejected: bool = False
    detail: str = ""
    kind: str = ""
    retryable: bool = False
    retry_after: float | None = None
    metadata: Mapping[str, Any] | None = None


class AnswerRefused(Struct, frozen=True):
    """Ends a turn that brought answers: the agent took none of them, and its task waits as before.

    `reason`, `detail` and `retryable` are as those of Failed. `kind` is UpstreamFault's; empty: the agent refuses what the answer says.
    """

    reason: str
    detail: str = ""
    kind: str = ""
    retryable: bool = False


class Canceled(Struct, frozen=True):
    """Ends the turn; only when the agent confirmed it. `metadata` is what the agent notes about the task as it stops."""

    message: Message | None = None
    metadata: Mapping[str, Any] | None = None


def token_usage_metadata(
    model: str = "", input_tokens: int | None = None, output_tokens: int | None = None, total_tokens: int | None = None
) -> dict[str, Any]:
    """Metadata for an event such as Done or Failed; empty where nothing is known."""
    figures = {"model": model or None, "input_tokens": input_tokens, "output_tokens": output_tokens, "total_tokens": total_tokens}
    known = {name: figure for name, figure in figures.items() if figure is not None}
    return {USAGE_KEY: known} if known else {}


Event = RefLearned | Progress | ArtifactPiece | RejectedArtifact | Ask | Replied | Done | Failed | AnswerRefused | Canceled
USAGE_KEY = "urn:interlock:a2a:usage"  # in the metadata of a task: model, input_tokens, output_tokens, total_tokens, as far as known
CITATIONS_KEY = "urn:interlock:a2a:citations"  # in the metadata of a part: a list of {url, title, text, …}
ENDPOINT_KEY = "interlock.endpoint"  # in the `extra` of a VendorRef: where the agent has the task, if not where it is registered
DEADLINE_MARGIN_SECONDS = 0.05  # seconds before a deadline in which it counts as reached
AGENT_LATE = "AGENT_LATE"  # the kind of a Failed whose agent did not answer in time
BAD_ANSWER = "BAD_ANSWER"  # what an AnswerRefused without a kind is told as
ENDINGS = (Ask, Replied, Done, Failed, AnswerRefused, Canceled)


class Failure(StrEnum):
    """How a call of an agent or a server failed, for callers: the member `failure` of an error."""

    UNREACHABLE = "unreachable"  # no connection, or the connection broke before an answer began
    LATE = "late"  # no answer before the deadline
    CUT = "cut"  # the answer broke off
    INVALID = "invalid"  # the answer is not what the protocol allows
    BUSY = "busy"  # the other side asks to try again later


class UpstreamFault(Exception):
    """The other side can't be reached, or answered what its protocol forbids. `public` is safe to show, and so is `kind`.

    `retryable`: the other side did nothing, and may do it later; after `retry_after` seconds, where it says so. `unsent`: not a byte of it
    has reached anybody. `undone`: the other side did nothing of it. `unfit`: because of what the request says.
    """

    kind = "UPSTREAM"
    retryable = False
    retry_after: float | None = None
    is_unsent = False
    had_no_effect = False
    is_callers_mistake = False
    address = ""  # the address that was called, without its query
    shows_cause = False  # whoever is told of it is an operator, who may know the cause
    failure: Failure | None = None

    def __init__(self, public: str, detail: str = "", failure: Failure | None = None) -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        if failure is not None:
            self.failure = failure

    @property
    def cause(self) -> str:
        """For operators: what was called, and what happened there."""
        return ": ".join(filter(None, (self.address, self.detail)))


class InvalidAnswer(UpstreamFault):
    """The agent was reached, and answered what its protocol forbids."""

    kind = "INVALID_AGENT_RESPONSE"
    failure = Failure.INVALID


class AgentFault(UpstreamFault):
    """The agent was reached, and its answer says why it does not do what it was asked."""

    def __init__(self, kind: str, public: str, detail: str = "", retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(public, detail)
        self.kind = kind
        self.retryable = retryable
        self.retry_after = retry_after


class CannotCancel(Exception):
    """The agent offers no way to stop a task, so it was told nothing."""


class CannotReattach(Exception):
    """The agent offers no way to go on with a turn that another process of the gateway began."""


class NotSent(UpstreamFault):
    """There was no time or no room left to send it, so nothing is known of the other side."""

    is_unsent = True


class Unreachable(UpstreamFault):
    """The connection failed, broke off, or brought nothing in time: whether the other side did anything is not known."""


@runtime_checkable
class Watcher(Protocol):
    """An Adapter whose agents may go on by themselves with a task that waits: once an authorization was given elsewhere, say."""

    def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """Nothing as long as the task waits; then what becomes of it, up to an ending."""
        ...


@runtime_checkable
class Reattachable(Protocol):
    """An Adapter that can go on with a turn which a process of the gateway began that is no more."""

    def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """What becomes of the turn whose agent's ids are `turn.ref`, up to an ending; `turn` has no message.

        `known` is the task as the gateway has kept it. What it shows need not be told again; an artifact that is told again without
        `append` takes the place of what is known of it. Raises CannotReattach before the first event, and UpstreamFault.
        """
        ...


@runtime_checkable
class Stoppable(Protocol):
    """An Adapter whose agents go on with a turn that nobody waits for any more."""

    async def stop(self, ref: VendorRef, call: Call) -> None:
        """Ends the run at the agent, where the agent has a way for it. Raises UpstreamFault."""
        ...


class Adapter(Protocol):
    """One language. Yields any number of events, and ends with exactly one of ENDINGS."""

    def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]: ...

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """True only when the agent confirmed the cancellation, False when it says that it does not stop.

        Raises CannotCancel, and UpstreamFault when nobody knows whether the agent was reached.
        """
        ...


class Challenged(UpstreamFault):
    """The other side wants a credential, another one, or one for more. `challenge` is its WWW-Authenticate."""

    def __init__(self, status: int, challenge: str, detail: str = "", public: str = "") -> None:
        super().__init__(public or "The server refuses the credentials it was shown", detail or f"status {status}")
        self.status = status
        self.challenge = challenge


class ConsentNeeded(Exception):
    """A person has to give their consent at `url`, a page of the gateway, before this call can be made; then it can be made again.

    `id` names the consent; `service` is whom it is for. The text is safe to show to the person's own clients and agents.
    """

    def __init__(self, url: str, id: str, service: str) -> None:
        super().__init__(f"{service} needs your own account there. Open {url} to connect it, then do this again.")
        self.url = url
        self.id = id
        self.service = service
