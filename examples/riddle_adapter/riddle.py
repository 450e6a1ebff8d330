"""Riddle: one POST for each turn, answered by server-sent events."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, ClassVar

from adapters.contract import ArtifactPiece, Ask, Done, Event, Failed, Prompt, PromptKind, RefLearned, Turn, VendorRef, token_usage_metadata
from adapters.task import Artifact, Part, text_of
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.frames import Frame, SseFrame


class RiddleOptions(VendorOptions):
    """The options in `upstream`: how hard the riddles are."""

    level: str = "easy"


class Riddle:
    """Sends the requests."""

    kind: ClassVar[str] = "riddle"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True)
    options: ClassVar[type[VendorOptions]] = RiddleOptions

    async def describe(self, connection: VendorConnection[RiddleOptions]) -> AgentFacts:
        about = await connection.request_json(Request("GET", "/about"))
        return AgentFacts(about["name"], about["description"])

    async def run(self, turn: Turn, connection: VendorConnection[RiddleOptions]) -> AsyncIterator[Event]:
        body: dict[str, Any] = {"user": connection.user, "session": turn.session, "level": connection.options.level}
        if turn.answers:
            body["answers"] = {answer.prompt.token: answer.value for answer in turn.answers}
        else:
            body["text"] = text_of(turn.message.parts)
        frames = connection.stream_frames(Request("POST", "/turns", body))
        async with aclosing(read_events(RiddleReader(turn.session), frames)) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[RiddleOptions]) -> CancelOutcome:
        answer = await connection.request(Request("DELETE", f"/turns/{quote_segment(ref.task_id)}", accepted_statuses=(404, 409)))
        return CancelOutcome.CANCELED if answer.status < 300 else CancelOutcome.TOO_LATE


class RiddleReader:
    """Reads the events of one answer."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._has_text = False

    def read(self, frame: Frame) -> Iterator[Event]:
        if not isinstance(frame, SseFrame):
            return
        match frame.event, frame.json():
            case "turn", {"id": turn_id}:
                yield RefLearned(VendorRef(self._session, turn_id))
            case "token", {"text": text}:
                yield ArtifactPiece(Artifact("answer", (Part(text=text),)), append=self._has_text, last_chunk=False)
                self._has_text = True
            case "question", {"id": name, "text": text, "schema": schema, "token": token}:
                yield Ask(prompts=(Prompt(name, text, schema=schema, kind=PromptKind.INPUT, token=token),))
            case "failed", {"why": why}:
                yield Failed("The agent failed", detail=why)
            case "done", {"tokens": tokens}:
                yield Done(metadata=token_usage_metadata(output_tokens=tokens))


_: type[Vendor] = Riddle
