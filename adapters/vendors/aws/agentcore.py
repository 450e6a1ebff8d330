"""Amazon Bedrock AgentCore Runtime, and its containers by themselves: one payload in, JSON or a stream of pieces out."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from adapters.contract import ArtifactPiece, Done, Event, Failed, Ref, Turn, UpstreamFault, VendorRef
from adapters.task import Artifact, Part
from adapters.vendors.aws.signing import AwsOptions, signed
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import Line, Request, quoted
from adapters.vendors.sdk.faults import FAILED, not_taken
from adapters.vendors.sdk.frames import End, Frame, JsonBody, SseFrame

NOTHING: Final[Mapping[str, Any]] = {}
ANSWER: Final = "answer"
SERVICE: Final = "bedrock-agentcore"
SESSION: Final = "x-amzn-bedrock-agentcore-runtime-session-id"
USER: Final = "x-amzn-bedrock-agentcore-runtime-user-id"
UNWELL: Final = "The agent says that it is not well"


class AgentCoreOptions(AwsOptions):
    """`runtime`: the runtime's ARN; none: the URL is a container's. `qualifier`: its endpoint. `users`: it learns who the person is.

    What the payload looks like is the agent's own: `payload` goes along as it is, `prompt` is its member for what the person says.
    `answer` is the member of an answer that is for them, `piece` that of an event of a stream.
    """

    runtime: str = ""
    qualifier: str = ""
    users: bool = False
    payload: Mapping[str, Any] = NOTHING
    prompt: str = "prompt"
    answer: str = "result"
    piece: str = "delta"


class AgentCore:
    """A session is a conversation, and its id is the gateway's. A run has no id: what can be stopped is the session."""

    kind: ClassVar[str] = "agentcore"
    features: ClassVar[Features] = Features(streams=True, cancels=True, questions=OpenQuestions.NONE)
    options: ClassVar[type[VendorOptions]] = AgentCoreOptions

    async def describe(self, line: Line[AgentCoreOptions]) -> AgentFacts:
        """A container tells whether it is well. What runtimes are is told by another service, with other permissions: nobody is asked."""
        if line.options.runtime:
            name = line.options.runtime.rpartition("/")[2]
            return AgentFacts(name, f"The AgentCore runtime {name}.")
        status = (await line.json(Request("GET", "/ping")))["status"]
        if status not in ("Healthy", "HealthyBusy"):
            raise UpstreamFault(UNWELL, f"its status is {status}")
        return AgentFacts("agentcore", "An agent in an AgentCore container.")

    async def run(self, turn: Turn, line: Line[AgentCoreOptions]) -> AsyncIterator[Event]:
        options = line.options
        yield Ref(VendorRef(turn.session, turn.session))
        headers = {SESSION: turn.session, "accept": "text/event-stream, application/json"}
        if options.users:
            headers[USER] = line.user
        request = await signed(Request("POST", _path(options, "invocations"), _payload(turn, options), headers), line, SERVICE)
        async with aclosing(read(PayloadReader(options.answer, options.piece), line.frames(request))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, line: Line[AgentCoreOptions]) -> CancelOutcome:
        """Ends the session's machine, with all that the agent kept in its memory; a container has no word for it."""
        if not line.options.runtime:
            return CancelOutcome.UNSUPPORTED
        request = Request("POST", _path(line.options, "stopruntimesession"), {}, {SESSION: ref.context_id}, also=(404,))
        answer = await line.ask(await signed(request, line, SERVICE))
        return CancelOutcome.TOO_LATE if answer.status == 404 else CancelOutcome.CANCELED


def _path(options: AgentCoreOptions, deed: str) -> str:
    if not options.runtime:
        return f"/{deed}"
    return f"/runtimes/{quoted(options.runtime)}/{deed}" + (f"?qualifier={quoted(options.qualifier)}" if options.qualifier else "")


def _payload(turn: Turn, options: AgentCoreOptions) -> dict[str, Any]:
    """Objects are members, beside those that the operator sets; everything else is what the person says."""
    parts = turn.message.parts
    members = {name: value for part in parts if isinstance(part.data, dict) for name, value in part.data.items()}
    texts = [_text(part) for part in parts if not isinstance(part.data, dict)]
    return {**members, **({options.prompt: "\n".join(texts)} if texts else {}), **options.payload}


def _text(part: Part) -> str:
    if isinstance(part.text, str):
        return part.text
    if isinstance(part.raw, str):
        raise not_taken("a file, which the payload has no place for")
    return part.url if isinstance(part.url, str) else as_text(part.data)


class PayloadReader:
    """There is no end marker: the end of the body is it, once anything was said. Whatever has an `error` is one."""

    def __init__(self, answer: str = "result", piece: str = "delta") -> None:
        self._answer = answer
        self._piece = piece
        self._begun = False

    def take(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value):
                yield from self._told(value if isinstance(value, str) else value if _is_error(value) else value[self._answer])
            case SseFrame():
                yield from self._event(frame.json())
            case End() if self._begun:
                yield Done()

    def _event(self, value: Any) -> Iterator[Event]:
        if isinstance(value, str) or _is_error(value):
            yield from self._told(value)
        elif isinstance(value, dict):
            if self._piece in value:
                yield from self._told(value[self._piece])
            elif self._answer in value and not self._begun:
                yield from self._told(value[self._answer])

    def _told(self, value: Any) -> Iterator[Event]:
        if _is_error(value):
            yield Failed(FAILED, detail=as_text(value["error"]))
            return
        part = Part(text=value) if isinstance(value, str) else Part(data=value, media_type="application/json")
        yield ArtifactPiece(Artifact(ANSWER, (part,)), append=self._begun, last_chunk=False)
        self._begun = True


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("error"))


_: type[Vendor] = AgentCore
