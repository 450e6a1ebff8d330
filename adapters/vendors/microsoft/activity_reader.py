"""Reads activities of Microsoft 365 agents: messages, streams, questions with choices, sign-ins, and the end of a conversation."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import UNSET

from adapters.contract import CITATIONS_KEY, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Progress
from adapters.task import Artifact, Part
from adapters.vendors.microsoft.content import (
    SIGN_IN_CARDS,
    attachments,
    citations,
    login_prompt,
    part_from_attachment,
    question_prompt,
    stream_info,
)
from adapters.vendors.sdk.agent import agent_message
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT
from adapters.vendors.sdk.frames import End, Frame, JsonBody, SseFrame

NORMAL_END_CODES: Final = ("", "unknown", "completedSuccessfully")  # codes of endOfConversation that are no failure


class ActivityReader:
    """Collects messages and sends them at the end: a later activity may show that a message is an error's text."""

    def __init__(self) -> None:
        self._messages: list[Mapping[str, Any]] = []
        self._streams: dict[str, str] = {}  # text by the id of its stream
        self._has_begun = False

    def read(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value):
                self._has_begun = True
                for activity in value["activities"]:
                    yield from self._read_activity(activity)
            case SseFrame("activity" | "message" | ""):
                self._has_begun = True
                yield from self._read_activity(frame.json())
            case SseFrame("end"):
                self._has_begun = True
            case End() if self._has_begun:
                yield from self._final_events()

    def _read_activity(self, activity: Mapping[str, Any]) -> Iterator[Event]:
        kind, sender = activity["type"], activity.get("from") or {}
        if kind == "trace" and str(activity.get("valueType") or "").endswith("/schemas/error"):
            yield Failed(AGENT_FAILED_TEXT, detail=str(activity.get("value") or activity.get("name")))
        elif kind == "endOfConversation" and (activity.get("code") or "") not in NORMAL_END_CODES:
            code = activity["code"]
            yield Canceled() if code == "userCancelled" else Failed(AGENT_FAILED_TEXT, detail=f"the conversation ended: {code}")
        elif kind == "message" and sender.get("role") != "user":
            self._messages.append(activity)
        elif kind == "typing" and activity.get("text"):
            yield from self._typing_events(activity)

    def _typing_events(self, activity: Mapping[str, Any]) -> Iterator[Event]:
        """Sends a stream's text, which arrives as a whole or in pieces. Other typing activities are progress."""
        info, text = stream_info(activity), str(activity["text"])
        name = str(info.get("streamId") or activity.get("id") or "")
        if info.get("streamType") != "streaming" or not name:
            yield Progress(agent_message(text))
            return
        earlier_text = self._streams.get(name, "")
        piece = info.get("chunkType") == "delta"
        self._streams[name] = earlier_text + text if piece else text
        more = piece or text.startswith(earlier_text)
        fresh = text if piece else text.removeprefix(earlier_text) if more else text
        if fresh:
            yield ArtifactPiece(Artifact(name, (Part(text=fresh),)), append=more and bool(earlier_text), last_chunk=False)

    def _final_events(self) -> Iterator[Event]:
        logins = [card for message in self._messages for card in attachments(message) if card.get("contentType") in SIGN_IN_CARDS]
        last = self._messages[-1] if self._messages else {}
        asks = bool(last.get("text")) and last.get("inputHint") == "expectingInput" and not logins
        for number, message in enumerate(self._messages[:-1] if asks else self._messages):
            yield from self._answer_events(message, number)
        if logins:
            yield Ask(prompts=tuple(login_prompt(card, number) for number, card in enumerate(logins, 1)))
        elif asks:
            yield Ask(prompts=(question_prompt(last),))
        else:
            yield Done()

    def _answer_events(self, message: Mapping[str, Any], number: int) -> Iterator[Event]:
        text, notes = str(message.get("text") or ""), citations(message)
        name = str(stream_info(message).get("streamId") or message.get("id") or f"answer-{number}")
        was_streamed = bool(text) and self._streams.get(name) == text and not notes
        words = (Part(text=text, metadata={CITATIONS_KEY: notes} if notes else UNSET),) if text and not was_streamed else ()
        files = tuple(part_from_attachment(each) for each in attachments(message) if each.get("contentType") not in SIGN_IN_CARDS)
        if words or files:
            yield ArtifactPiece(Artifact(name, (*words, *files)), append=was_streamed)
