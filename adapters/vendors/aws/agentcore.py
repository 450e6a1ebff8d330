"""Amazon Bedrock AgentCore Runtime, or one of its containers: one payload in, JSON or a stream of events out."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from adapters.contract import ArtifactPiece, Done, Event, Failed, RefLearned, Turn, UpstreamFault, VendorRef
from adapters.task import Artifact, Part
from adapters.vendors.aws.signing import AwsOptions, sign_request
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT, unsupported_content_fault
from adapters.vendors.sdk.frames import End, Frame, JsonBody, SseFrame

EMPTY: Final[Mapping[str, Any]] = {}
ANSWER: Final = "answer"
SERVICE: Final = "bedrock-agentcore"
SESSION_HEADER: Final = "x-amzn-bedrock-agentcore-runtime-session-id"
USER_HEADER: Final = "x-amzn-bedrock-agentcore-runtime-user-id"
UNHEALTHY_TEXT: Final = "The agent reports that it is unhealthy"


class AgentCoreOptions(AwsOptions):
    """Options. `runtime`: the runtime's ARN, empty for a container at the URL. `qualifier`: its endpoint. `users`: send the person's id.

    The payload's form is the agent's own: `payload` is sent unchanged, `prompt` is the member for the person's text. `answer` is the member
    of a response that has the answer, `piece` that of a stream's event.
    """

    runtime: str = ""
    qualifier: str = ""
    users: bool = False
    payload: Mapping[str, Any] = EMPTY
    prompt: str = "prompt"
    answer: str = "result"
    piece: str = "delta"


class AgentCore:
    """The AgentCore vendor: a session is a conversation, with an id by the gateway. Runs have no ids, so only a session can be stopped."""

    kind: ClassVar[str] = "agentcore"
    features: ClassVar[Features] = Features(streams=True, cancels=True, cancel_ends_session=True, questions=OpenQuestions.NONE)
    options: ClassVar[type[VendorOptions]] = AgentCoreOptions

    async def describe(self, connection: VendorConnection[AgentCoreOptions]) -> AgentFacts:
        """Checks a container's health. Does not query a runtime: another service with other permissions describes it."""
        if connection.options.runtime:
            name = connection.options.runtime.rpartition("/")[2]
            return AgentFacts(name, f"The AgentCore runtime {name}.")
        status = (await connection.request_json(Request("GET", "/ping")))["status"]
        if status not in ("Healthy", "HealthyBusy"):
            raise UpstreamFault(UNHEALTHY_TEXT, f"its status is {status}")
        return AgentFacts("agentcore", "An agent in an AgentCore container.")

    async def run(self, turn: Turn, connection: VendorConnection[AgentCoreOptions]) -> AsyncIterator[Event]:
        options = connection.options
        yield RefLearned(VendorRef(turn.session, turn.session))
        headers = {SESSION_HEADER: turn.session, "accept": "text/event-stream, application/json"}
        if options.users:
            headers[USER_HEADER] = connection.user
        request = await sign_request(Request("POST", _path(options, "invocations"), _payload(turn, options), headers), connection, SERVICE)
        async with aclosing(read_events(AgentCoreReader(options.answer, options.piece), connection.stream_frames(request))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[AgentCoreOptions]) -> CancelOutcome:
        """Stops the session's machine, which deletes the agent's memory. Returns UNSUPPORTED for a container."""
        if not connection.options.runtime:
            return CancelOutcome.UNSUPPORTED
        request = Request(
            "POST", _path(connection.options, "stopruntimesession"), {}, {SESSION_HEADER: ref.context_id}, accepted_statuses=(404,)
        )
        answer = await connection.request(await sign_request(request, connection, SERVICE))
        return CancelOutcome.TOO_LATE if answer.status == 404 else CancelOutcome.CANCELED


def _path(options: AgentCoreOptions, operation: str) -> str:
    if not options.runtime:
        return f"/{operation}"
    return f"/runtimes/{quote_segment(options.runtime)}/{operation}" + (
        f"?qualifier={quote_segment(options.qualifier)}" if options.qualifier else ""
    )


def _payload(turn: Turn, options: AgentCoreOptions) -> dict[str, Any]:
    """The payload: objects are merged as members with the operator's; everything else is the prompt."""
    parts = turn.message.parts
    members = {name: value for part in parts if isinstance(part.data, dict) for name, value in part.data.items()}
    texts = [_text(part) for part in parts if not isinstance(part.data, dict)]
    return {**members, **({options.prompt: "\n".join(texts)} if texts else {}), **options.payload}


def _text(part: Part) -> str:
    if isinstance(part.text, str):
        return part.text
    if isinstance(part.raw, str):
        raise unsupported_content_fault("a file, which the payload has no place for")
    return part.url if isinstance(part.url, str) else as_text(part.data)


class AgentCoreReader:
    """Reads a response. Without an end marker, the end of a body with any output ends the turn. A value with `error` is a failure."""

    def __init__(self, answer: str = "result", piece: str = "delta") -> None:
        self._answer = answer
        self._piece = piece
        self._has_begun = False

    def read(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value):
                yield from self._value_events(value if isinstance(value, str) else value if _is_error(value) else value[self._answer])
            case SseFrame():
                yield from self._read_event(frame.json())
            case End() if self._has_begun:
                yield Done()

    def _read_event(self, value: Any) -> Iterator[Event]:
        if isinstance(value, str) or _is_error(value):
            yield from self._value_events(value)
        elif isinstance(value, dict):
            if self._piece in value:
                yield from self._value_events(value[self._piece])
            elif self._answer in value and not self._has_begun:
                yield from self._value_events(value[self._answer])

    def _value_events(self, value: Any) -> Iterator[Event]:
        if _is_error(value):
            yield Failed(AGENT_FAILED_TEXT, detail=as_text(value["error"]))
            return
        part = Part(text=value) if isinstance(value, str) else Part(data=value, media_type="application/json")
        yield ArtifactPiece(Artifact(ANSWER, (part,)), append=self._has_begun, last_chunk=False)
        self._has_begun = True


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("error"))


_: type[Vendor] = AgentCore
