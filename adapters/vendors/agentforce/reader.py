"""Reads the messages of one turn in an Agentforce session, whole or in chunks, and the end of the session."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import UNSET

from adapters.contract import CITATIONS_KEY, ArtifactPiece, Ask, Done, Event, Failed, Progress, Prompt, PromptKind
from adapters.task import Artifact, Part
from adapters.vendors.sdk.agent import agent_message
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT, SESSION_LOST, SESSION_LOST_TEXT
from adapters.vendors.sdk.frames import Frame, JsonBody, SseFrame

HANDED_OVER_TEXT: Final = "The agent handed the conversation over to a person, whom the gateway can't reach"
TAKEN_BACK_TEXT: Final = "The agent withdrew its answer"
FAILED_END_REASONS: Final = ("ERROR", "Error", "InfiniteLoopDetected", "TransferFailedNotConfigured")  # reasons of a session's end
EXPIRY_REASONS: Final = ("Expiration", "Timeout")  # reasons of a session that ended before the message
ENDED_BY_AGENT: Final = "Action"  # the reason of an end that the agent itself decided


class AgentforceReader:
    """Reads a body with all messages, or a stream of them. An Inform message has the whole text of the chunks before it."""

    def __init__(self) -> None:
        self._number = 1  # of the message that arrives in chunks
        self._chunks = ""
        self._was_taken_back = False
        self._has_answered = False
        self.has_session_ended = False  # with the turn's ending; a lost session is one of its own
        self._prompts: list[Prompt] = []

    def read(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value):
                for message in value["messages"]:
                    yield from self._read_message(message)
                if self._has_answered or self._prompts:
                    yield from self._final_events()
            case SseFrame(_, data) if data.strip():
                document = frame.json()
                yield from self._read_message(document.get("message") or {})

    def _read_message(self, message: Mapping[str, Any]) -> Iterator[Event]:
        match message.get("type"):
            case "ProgressIndicator":
                yield Progress(agent_message(str(message.get("message") or "")))
            case "TextChunk":
                yield from self._chunk_events(str(message["message"]))
            case "ValidationFailureChunk":
                self._chunks, self._was_taken_back = "", True
            case "Inform":
                yield from self._inform_events(message)
            case "Inquire" | "Confirm" as kind:
                self._prompts.append(_build_prompt(message, kind == "Confirm"))
            case "Failure" | "Error":
                details = [message.get(name) for name in ("code", "error", "message", "errors")]
                yield Failed(AGENT_FAILED_TEXT, detail=" ".join(str(each) for each in details if each))
            case "Escalate" | "Escalation":
                yield Failed(HANDED_OVER_TEXT)
            case "SessionEnded":
                yield from self._session_end_events(str(message.get("reason") or ""))
            case "EndOfTurn":
                yield from self._final_events()

    def _chunk_events(self, text: str) -> Iterator[Event]:
        if text:
            yield ArtifactPiece(Artifact(self._artifact_id, (Part(text=text),)), append=bool(self._chunks), last_chunk=False)
            self._chunks, self._was_taken_back, self._has_answered = self._chunks + text, False, True

    def _inform_events(self, message: Mapping[str, Any]) -> Iterator[Event]:
        text, notes = str(message["message"]), [_citation(each) for each in message.get("citedReferences") or ()]
        if text != self._chunks or notes:
            part = Part(text=text, metadata={CITATIONS_KEY: notes} if notes else UNSET)
            yield ArtifactPiece(Artifact(self._artifact_id, (part,)))
        self._number, self._chunks, self._was_taken_back, self._has_answered = self._number + 1, "", False, True

    def _session_end_events(self, reason: str) -> Iterator[Event]:
        """The ending for a session that ended: a received answer is valid, but a question can no longer be answered.

        A session that ended without an answer is lost. If it had expired before, the agent never took the message.
        """
        is_answered = reason == ENDED_BY_AGENT or self._has_answered or self._was_taken_back
        if reason not in FAILED_END_REASONS and (self._prompts or not is_answered):
            was_expired = reason in EXPIRY_REASONS and not self._prompts
            yield Failed(SESSION_LOST_TEXT, detail=f"the session ended: {reason}", kind=SESSION_LOST, retryable=was_expired)
            return
        self.has_session_ended = True
        if reason in FAILED_END_REASONS:
            yield Failed(AGENT_FAILED_TEXT, detail=f"the session ended: {reason}")
        else:
            yield from self._final_events()

    def _final_events(self) -> Iterator[Event]:
        if self._was_taken_back:
            yield Failed(TAKEN_BACK_TEXT)
        else:
            yield Ask(prompts=tuple(self._prompts)) if self._prompts else Done()

    @property
    def _artifact_id(self) -> str:
        return f"answer-{self._number}"


def _citation(reference: Mapping[str, Any]) -> dict[str, Any]:
    """A citation with a link or the id of a record."""
    value, claims = str(reference.get("value") or ""), reference.get("inlineMetadata") or ()
    text = " ".join(str(each.get("claim") or "") for each in claims)
    return {"url": value if reference.get("type") == "link" else "", "title": value, "text": text}


def _build_prompt(message: Mapping[str, Any], is_confirmation: bool) -> Prompt:
    kind, schema = (PromptKind.APPROVAL, {"type": "boolean"}) if is_confirmation else (PromptKind.INPUT, None)
    return Prompt(str(message["id"]), str(message.get("message") or ""), schema=schema, kind=kind)
