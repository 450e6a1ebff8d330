"""Activities of Microsoft 365 agents, as answers: messages, streams, questions with their choices, logins, and how a conversation ended."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import UNSET

from adapters.contract import CITATIONS, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Progress
from adapters.task import Artifact, Part
from adapters.vendors.microsoft.content import SIGN_IN, attachments, citations, login, part_of, question, stream_of
from adapters.vendors.sdk.agent import said
from adapters.vendors.sdk.faults import FAILED
from adapters.vendors.sdk.frames import End, Frame, JsonBody, SseFrame

ENDED: Final = ("", "unknown", "completedSuccessfully")  # codes of endOfConversation that are no failure


class ActivityReader:
    """Messages are answers when all is said: what looks like one may be an error's text, which only a later activity tells."""

    def __init__(self) -> None:
        self._messages: list[Mapping[str, Any]] = []
        self._streams: dict[str, str] = {}  # text by the id of its stream
        self._begun = False

    def take(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value):
                self._begun = True
                for activity in value["activities"]:
                    yield from self._activity(activity)
            case SseFrame("activity" | "message" | ""):
                self._begun = True
                yield from self._activity(frame.json())
            case SseFrame("end"):
                self._begun = True
            case End() if self._begun:
                yield from self._ended()

    def _activity(self, activity: Mapping[str, Any]) -> Iterator[Event]:
        kind, sender = activity["type"], activity.get("from") or {}
        if kind == "trace" and str(activity.get("valueType") or "").endswith("/schemas/error"):
            yield Failed(FAILED, detail=str(activity.get("value") or activity.get("name")))
        elif kind == "endOfConversation" and (activity.get("code") or "") not in ENDED:
            code = activity["code"]
            yield Canceled() if code == "userCancelled" else Failed(FAILED, detail=f"the conversation ended: {code}")
        elif kind == "message" and sender.get("role") != "user":
            self._messages.append(activity)
        elif kind == "typing" and activity.get("text"):
            yield from self._typed(activity)

    def _typed(self, activity: Mapping[str, Any]) -> Iterator[Event]:
        """A stream tells its text so far, or a piece of it. What else is typed is said meanwhile."""
        about, text = stream_of(activity), str(activity["text"])
        name = str(about.get("streamId") or activity.get("id") or "")
        if about.get("streamType") != "streaming" or not name:
            yield Progress(said(text))
            return
        before = self._streams.get(name, "")
        piece = about.get("chunkType") == "delta"
        self._streams[name] = before + text if piece else text
        more = piece or text.startswith(before)
        fresh = text if piece else text.removeprefix(before) if more else text
        if fresh:
            yield ArtifactPiece(Artifact(name, (Part(text=fresh),)), append=more and bool(before), last_chunk=False)

    def _ended(self) -> Iterator[Event]:
        logins = [card for message in self._messages for card in attachments(message) if card.get("contentType") in SIGN_IN]
        last = self._messages[-1] if self._messages else {}
        asks = bool(last.get("text")) and last.get("inputHint") == "expectingInput" and not logins
        for number, message in enumerate(self._messages[:-1] if asks else self._messages):
            yield from self._answer(message, number)
        if logins:
            yield Ask(prompts=tuple(login(card, number) for number, card in enumerate(logins, 1)))
        elif asks:
            yield Ask(prompts=(question(last),))
        else:
            yield Done()

    def _answer(self, message: Mapping[str, Any], number: int) -> Iterator[Event]:
        text, notes = str(message.get("text") or ""), citations(message)
        name = str(stream_of(message).get("streamId") or message.get("id") or f"answer-{number}")
        told = bool(text) and self._streams.get(name) == text and not notes
        words = (Part(text=text, metadata={CITATIONS: notes} if notes else UNSET),) if text and not told else ()
        files = tuple(part_of(each) for each in attachments(message) if each.get("contentType") not in SIGN_IN)
        if words or files:
            yield ArtifactPiece(Artifact(name, (*words, *files)), append=told)
