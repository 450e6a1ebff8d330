"""Microsoft 365 Agents and Copilot Studio: a turn is an activity, and what the agent says to it are activities again."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final, Literal

from msgspec import UNSET
from pydantic import Field

from adapters.activity_content import SIGN_IN, attached, attachments, citations, login, part_of, question, stream_of
from adapters.contract import (
    CITATIONS,
    ArtifactPiece,
    Ask,
    Canceled,
    Done,
    Event,
    Failed,
    InvalidAnswer,
    Progress,
    Ref,
    Turn,
    VendorRef,
)
from adapters.frames import UNREADABLE, End, Frame, Head, JsonBody, SseFrame
from adapters.task import Artifact, Part, text_of
from adapters.vendor import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read, said
from adapters.vendor_faults import FAILED
from adapters.vendor_line import Line, Request, quoted

CONVERSATION: Final = "x-ms-conversationid"
ENDED: Final = ("", "unknown", "completedSuccessfully")  # codes of endOfConversation that are no failure


class ActivityOptions(VendorOptions):
    """`dialect`: `messages`, an agent's own endpoint at `path`, or `copilot-studio`, whose URL ends before `/conversations`.

    `channel`: as which channel the gateway comes. `title` and `about` are for the card, since agents tell of neither.
    """

    dialect: Literal["messages", "copilot-studio"] = "messages"
    path: str = Field("/api/messages", pattern=r"^/[!-~]*$")
    channel: str = "emulator"
    version: str = "2022-03-01-preview"
    title: str = "Agent"
    about: str = "An agent of Microsoft 365."


class Activity:
    """A conversation is named by the gateway, or told by Copilot Studio when it begins."""

    kind: ClassVar[str] = "activity"
    features: ClassVar[Features] = Features(streams=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = ActivityOptions

    async def describe(self, line: Line[ActivityOptions]) -> AgentFacts:
        """The protocol has no word for it."""
        return AgentFacts(line.options.title, line.options.about)

    async def run(self, turn: Turn, line: Line[ActivityOptions]) -> AsyncIterator[Event]:
        conversation = turn.ref.context_id if turn.ref else ""
        if line.options.dialect == "messages":
            conversation = conversation or turn.session
            sent = Request("POST", line.options.path, _addressed(_activity(turn, conversation), line))
        else:
            conversation = conversation or await _begun(line)
            sent = Request("POST", _place(line, f"/{quoted(conversation)}"), {"activity": _activity(turn, conversation)})
        yield Ref(VendorRef(conversation))
        async with aclosing(read(ActivityReader(), line.frames(sent))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, line: Line[ActivityOptions]) -> CancelOutcome:
        """There is no word for it."""
        return CancelOutcome.UNSUPPORTED


def _place(line: Line[ActivityOptions], rest: str = "") -> str:
    return f"/conversations{rest}?api-version={quoted(line.options.version)}"


async def _begun(line: Line[ActivityOptions]) -> str:
    """A new conversation; what the agent greets with is no answer. Raises UpstreamFault."""
    found = ""
    async with aclosing(line.frames(Request("POST", _place(line), {"emitStartConversationEvent": False}))) as frames:
        async for frame in frames:
            match frame:
                case Head(headers):
                    found = headers.get(CONVERSATION, "")
                case SseFrame("activity") if not found:
                    found = str(frame.json()["conversation"]["id"])
    if not found:
        raise InvalidAnswer(UNREADABLE, "the conversation that began has no id")
    return found


def _activity(turn: Turn, conversation: str) -> dict[str, Any]:
    """What the person says: several answers are one text, an object is a card's form."""
    values = [each.value for each in turn.answers] or [part.data for part in turn.message.parts if part.data is not UNSET]
    words = [str(value) for value in values if not isinstance(value, dict)]
    told = {
        "text": "\n".join(words if turn.answers else filter(None, (text_of(turn.message.parts), *words))),
        "value": next((value for value in values if isinstance(value, dict)), None),
        "attachments": [attached(part) for part in turn.message.parts if isinstance(part.raw, str) or isinstance(part.url, str)],
    }
    known = {name: value for name, value in told.items() if value}
    return {"type": "message", "id": turn.message.message_id, "conversation": {"id": conversation}, **known}


def _addressed(activity: dict[str, Any], line: Line[ActivityOptions]) -> dict[str, Any]:
    """The agent answers in the response and calls nobody; its sender is the verified person."""
    places = {"deliveryMode": "expectReplies", "serviceUrl": "https://gateway.invalid/", "channelId": line.options.channel}
    return {**activity, **places, "from": {"id": line.user, "role": "user"}, "recipient": {"id": "bot", "role": "bot"}}


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


_: type[Vendor] = Activity
