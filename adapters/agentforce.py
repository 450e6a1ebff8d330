"""Salesforce Agentforce: messages in a session of the Agent API, in their order; what the agent takes back is not said."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from msgspec import UNSET
from pydantic import BaseModel, ConfigDict, Field

from adapters.chat_content import as_text
from adapters.contract import (
    CITATIONS,
    ArtifactPiece,
    Ask,
    Done,
    Event,
    Failed,
    Progress,
    Prompt,
    PromptKind,
    Ref,
    Turn,
    VendorRef,
)
from adapters.frames import Frame, JsonBody, SseFrame
from adapters.task import Artifact, Part
from adapters.vendor import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read, said
from adapters.vendor_faults import FAILED, not_taken
from adapters.vendor_line import Line, Request, quoted

NO_FILES: Final = "The agent takes texts and structured data, and no files"
HANDED_OVER: Final = "The agent hands the conversation over to people, where the gateway can't follow"
TAKEN_BACK: Final = "The agent took back what it said"
BAD_ENDS: Final = ("ERROR", "Error", "InfiniteLoopDetected", "TransferFailedNotConfigured")  # reasons of a session's end


class Variable(BaseModel):
    """What the agent has to know of the conversation, such as `$Context.EndUserLanguage`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    type: str = "Text"
    value: Any


class AgentforceOptions(VendorOptions):
    """`agent`: its id. `domain`: the organization's My Domain URL. `bypass_user`: act as the agent's own user, not as that of the token.

    `title` and `about` are for the card, since the API tells of neither.
    """

    agent: str = Field(min_length=1)
    domain: str = Field(pattern=r"^https://[^/]+$")
    bypass_user: bool = False
    variables: tuple[Variable, ...] = ()
    title: str = "Agentforce"
    about: str = "An agent of Salesforce Agentforce."


class Agentforce:
    """A session is a conversation; its messages are numbered, and the numbers rise."""

    kind: ClassVar[str] = "agentforce"
    features: ClassVar[Features] = Features(streams=True, resumes=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = AgentforceOptions

    async def describe(self, line: Line[AgentforceOptions]) -> AgentFacts:
        """The API has no word for it."""
        return AgentFacts(line.options.title, line.options.about)

    async def run(self, turn: Turn, line: Line[AgentforceOptions]) -> AsyncIterator[Event]:
        text = _text(turn)
        ref = turn.ref or VendorRef()
        session, number = ref.context_id or await _begun(turn, line), int((ref.kept or {}).get("sequence", 0)) + 1
        yield Ref(VendorRef(session, kept={"sequence": number}))
        message = {"sequenceId": number, "type": "Text", "text": text}
        if turn.answers:
            message["inReplyToMessageId"] = turn.answers[0].prompt.id
        path = f"/sessions/{quoted(session)}/messages" + ("/stream" if turn.stream else "")
        frames = line.frames(Request("POST", path, {"message": message, "variables": []}))
        async with aclosing(read(MessageReader(), frames)) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, line: Line[AgentforceOptions]) -> CancelOutcome:
        """Only a whole session can be ended."""
        return CancelOutcome.UNSUPPORTED


async def _begun(turn: Turn, line: Line[AgentforceOptions]) -> str:
    """A new session; its greeting is no answer."""
    options = line.options
    body = {
        "externalSessionKey": turn.session,
        "instanceConfig": {"endpoint": options.domain},
        "streamingCapabilities": {"chunkTypes": ["Text"]},
        "bypassUser": options.bypass_user,
        "variables": [each.model_dump() for each in options.variables],
    }
    return str((await line.json(Request("POST", f"/agents/{quoted(options.agent)}/sessions", body)))["sessionId"])


def _text(turn: Turn) -> str:
    """Whatever is said is a text. Raises AgentFault for files."""
    if turn.answers:
        return "\n".join(_words(each.value) for each in turn.answers)
    parts = turn.message.parts
    if any(isinstance(part.raw, str) or isinstance(part.url, str) for part in parts):
        raise not_taken("a file", NO_FILES)
    return "\n".join(part.text if isinstance(part.text, str) else as_text(part.data) for part in parts)


def _words(value: Any) -> str:
    return ("Yes" if value else "No") if isinstance(value, bool) else as_text(value)


class MessageReader:
    """Of a body with all messages, or of a stream of them: an Inform has the whole of what came in chunks before."""

    def __init__(self) -> None:
        self._number = 1  # of the message that comes in chunks
        self._chunks = ""
        self._taken_back = False
        self._answered = False
        self._prompts: list[Prompt] = []

    def take(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value):
                for message in value["messages"]:
                    yield from self._message(message)
                if self._answered or self._prompts:
                    yield from self._ended()
            case SseFrame(_, data) if data.strip():
                told = frame.json()
                yield from self._message(told.get("message") or {})

    def _message(self, message: Mapping[str, Any]) -> Iterator[Event]:
        match message.get("type"):
            case "ProgressIndicator":
                yield Progress(said(str(message.get("message") or "")))
            case "TextChunk":
                yield from self._chunk(str(message["message"]))
            case "ValidationFailureChunk":
                self._chunks, self._taken_back = "", True
            case "Inform":
                yield from self._inform(message)
            case "Inquire" | "Confirm" as kind:
                self._prompts.append(_prompt(message, kind == "Confirm"))
            case "Failure" | "Error":
                what = [message.get(name) for name in ("code", "error", "message", "errors")]
                yield Failed(FAILED, detail=" ".join(str(each) for each in what if each))
            case "Escalate" | "Escalation":
                yield Failed(HANDED_OVER)
            case "SessionEnded" if message.get("reason") in BAD_ENDS:
                yield Failed(FAILED, detail=f"the session ended: {message['reason']}")
            case "SessionEnded" | "EndOfTurn":
                yield from self._ended()

    def _chunk(self, text: str) -> Iterator[Event]:
        if text:
            yield ArtifactPiece(Artifact(self._name, (Part(text=text),)), append=bool(self._chunks), last_chunk=False)
            self._chunks, self._taken_back, self._answered = self._chunks + text, False, True

    def _inform(self, message: Mapping[str, Any]) -> Iterator[Event]:
        text, notes = str(message["message"]), [_citation(each) for each in message.get("citedReferences") or ()]
        if text != self._chunks or notes:
            part = Part(text=text, metadata={CITATIONS: notes} if notes else UNSET)
            yield ArtifactPiece(Artifact(self._name, (part,)))
        self._number, self._chunks, self._taken_back, self._answered = self._number + 1, "", False, True

    def _ended(self) -> Iterator[Event]:
        if self._taken_back:
            yield Failed(TAKEN_BACK)
        else:
            yield Ask(prompts=tuple(self._prompts)) if self._prompts else Done()

    @property
    def _name(self) -> str:
        return f"answer-{self._number}"


def _citation(reference: Mapping[str, Any]) -> dict[str, Any]:
    """A link, or the id of a record."""
    value, claims = str(reference.get("value") or ""), reference.get("inlineMetadata") or ()
    text = " ".join(str(each.get("claim") or "") for each in claims)
    return {"url": value if reference.get("type") == "link" else "", "title": value, "text": text}


def _prompt(message: Mapping[str, Any], confirms: bool) -> Prompt:
    kind, schema = (PromptKind.APPROVAL, {"type": "boolean"}) if confirms else (PromptKind.INPUT, None)
    return Prompt(str(message["id"]), str(message.get("message") or ""), schema=schema, kind=kind)


_: type[Vendor] = Agentforce
