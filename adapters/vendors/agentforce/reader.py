"""What an Agentforce session tells: the messages of one turn, in whole or in pieces, and the end of the session."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import UNSET

from adapters.contract import CITATIONS, ArtifactPiece, Ask, Done, Event, Failed, Progress, Prompt, PromptKind
from adapters.task import Artifact, Part
from adapters.vendors.sdk.agent import said
from adapters.vendors.sdk.faults import FAILED, LOST, SESSION_LOST
from adapters.vendors.sdk.frames import Frame, JsonBody, SseFrame

HANDED_OVER: Final = "The agent hands the conversation over to people, where the gateway can't follow"
TAKEN_BACK: Final = "The agent took back what it said"
BAD_ENDS: Final = ("ERROR", "Error", "InfiniteLoopDetected", "TransferFailedNotConfigured")  # reasons of a session's end
BY_AGENT: Final = "Action"  # the reason of an end that the agent itself decided on


class MessageReader:
    """Of a body with all messages, or of a stream of them: an Inform has the whole of what came in chunks before."""

    def __init__(self) -> None:
        self._number = 1  # of the message that comes in chunks
        self._chunks = ""
        self._taken_back = False
        self._answered = False
        self.session_ended = False
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
            case "SessionEnded":
                self.session_ended = True
                yield from self._session_over(str(message.get("reason") or ""))
            case "EndOfTurn":
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

    def _session_over(self, reason: str) -> Iterator[Event]:
        """An answer counts as one. A question can't be answered any more, and a message without an answer was not taken."""
        if reason in BAD_ENDS:
            yield Failed(FAILED, detail=f"the session ended: {reason}")
        elif self._prompts or not (reason == BY_AGENT or self._answered or self._taken_back):
            yield Failed(LOST, detail=f"the session ended: {reason}", kind=SESSION_LOST)
        else:
            yield from self._ended()

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
