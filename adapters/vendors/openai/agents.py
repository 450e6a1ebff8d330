"""OpenAI's hosted agents (beta, agents=v1): a session's turns as events, its required actions as prompts, its published files."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, ClassVar, Final

from msgspec import UNSET

from adapters.contract import ArtifactPiece, Ask, Canceled, Done, Event, Failed, InvalidAnswer, Ref, Turn, UpstreamFault, VendorRef
from adapters.task import Artifact, Message, Part
from adapters.vendors.openai.items import is_aside, items_of, outputs_of, usage_of
from adapters.vendors.openai.required_actions import foreign_actions, open_actions, prompts_of, result_event
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read
from adapters.vendors.sdk.connection import Line, Request, quoted
from adapters.vendors.sdk.faults import LOST, SESSION_LOST
from adapters.vendors.sdk.frames import Frame, Head, SseFrame
from adapters.vendors.sdk.model_failures import FOREIGN, failure_in, failure_of

BETA: Final = {"openai-beta": "agents=v1"}
NOWHERE: Final[Mapping[str, Any]] = {"type": "none"}
CANCEL: Final = {"type": "agent.session.input.cancel"}
PAGE: Final = 100  # files of a turn, at most


class AgentsOptions(VendorOptions):
    """`agent`: a saved agent's id. `environment`: where it works, as the API has it; `vaults`: ids of what it may use there."""

    agent: str
    environment: Mapping[str, Any] = NOWHERE
    vaults: tuple[str, ...] = ()


class OpenAIAgents:
    """A session is a conversation. Its events are only told while they happen, so whoever sends something listens first."""

    kind: ClassVar[str] = "openai-agents"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = AgentsOptions

    async def describe(self, line: Line[AgentsOptions]) -> AgentFacts:
        about = await line.json(_request("GET", f"/agents/{quoted(line.options.agent)}"))
        name = str(about.get("name") or about["id"])
        return AgentFacts(name, str(about.get("description") or f"The OpenAI agent {name}."))

    async def run(self, turn: Turn, line: Line[AgentsOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        reader = TurnReader(ref.context_id, ref.task_id if turn.answers else "", {answer.prompt.id for answer in turn.answers})
        if not ref.context_id:
            frames = line.frames(_request("POST", "/agents/sessions", _opening(turn, line.options)))
        elif turn.answers:
            frames = _heard(line, ref.context_id, [result_event(answer) for answer in turn.answers])
        else:
            frames = _heard(line, ref.context_id, [{"type": "agent.session.input.message", "input": _messages(turn.message)}])
        async with aclosing(read(reader, frames)) as events:
            async for event in events:
                if isinstance(event, Done) and line.options.environment.get("type") != "none":
                    async for piece in _published(line, reader.session, reader.root):
                        yield piece
                elif isinstance(event, Failed) and event.reason == FOREIGN:
                    await _given_up(line, reader.session)
                elif isinstance(event, Failed) and event.kind == SESSION_LOST:
                    yield Ref(VendorRef(reader.session, reader.root, over=True))
                yield event

    async def cancel(self, ref: VendorRef, line: Line[AgentsOptions]) -> CancelOutcome:
        """The answer to a cancellation says that it is taken; what becomes of the turn is in the events."""
        before = await line.json(_request("GET", f"/agents/sessions/{quoted(ref.context_id)}/turns/{quoted(ref.task_id)}"))
        if before["status"] in ("completed", "failed", "cancelled"):
            return CancelOutcome.TOO_LATE
        reader = TurnReader(ref.context_id, ref.task_id, None)
        async with aclosing(read(reader, _heard(line, ref.context_id, [CANCEL]))) as events:
            async for event in events:
                if isinstance(event, Canceled):
                    return CancelOutcome.CANCELED
                if isinstance(event, Done) or (isinstance(event, Failed) and event.kind != InvalidAnswer.kind):
                    return CancelOutcome.TOO_LATE
        return CancelOutcome.UNKNOWN


def _request(method: str, path: str, body: Any = UNSET) -> Request:
    return Request(method, path, body, BETA)


async def _heard(line: Line[AgentsOptions], session: str, said: list[dict[str, Any]]) -> AsyncGenerator[Frame, None]:
    """The events of a session, to which something is said once they are listened to."""
    path = f"/agents/sessions/{quoted(session)}/events"
    async with aclosing(line.frames(_request("GET", path))) as frames:
        async for frame in frames:
            yield frame
            if isinstance(frame, Head):
                await line.ask(_request("POST", path, {"events": said}))


async def _published(line: Line[AgentsOptions], session: str, turn: str) -> AsyncIterator[ArtifactPiece]:
    """The files that a turn left."""
    path = f"/agents/sessions/{quoted(session)}/artifacts"
    for file in (await line.json(_request("GET", f"{path}?limit={PAGE}&order=desc")))["data"]:
        if file["turn_id"] == turn:
            name = file["path"].rpartition("/")[2]
            named = Part(url=f"{path.removeprefix('/')}/{quoted(file['id'])}/content", filename=name)
            yield ArtifactPiece(Artifact(file["id"], (await line.fetched(named, BETA),), name=name))


def _opening(turn: Turn, options: AgentsOptions) -> dict[str, Any]:
    body = {"agent_id": options.agent, "environment": options.environment, "input": items_of(turn.message.parts), "stream": True}
    return body | ({"vault_ids": options.vaults} if options.vaults else {})


def _messages(message: Message) -> list[dict[str, Any]]:
    said = items_of(message.parts)
    return said if isinstance(said, list) else [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}]


async def _given_up(line: Line[AgentsOptions], session: str) -> None:
    """Ends a turn that nobody can answer, so that the session takes the next one. The turn has failed, whatever the answer is."""
    with suppress(UpstreamFault):
        await line.ask(_request("POST", f"/agents/sessions/{quoted(session)}/events", {"events": [CANCEL]}))


class TurnReader:
    """Of the events of a session, those of one turn: `root`, or the next that begins. `answered`: actions that are done; None: all are."""

    def __init__(self, session: str = "", root: str = "", answered: Collection[str] | None = ()) -> None:
        self.session = session
        self.root = root
        self._answered = answered
        self._aside: set[str] = set()
        self._streamed: dict[str, str] = {}

    def take(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, SseFrame) and frame.data != "[DONE]":
            event = frame.json()
            yield from self._of_session(event)
            if event.get("turn_id") == self.root and self.root:
                yield from self._of_turn(str(event["type"]).removeprefix("agent.session.turn."), event)

    def _of_session(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event:
            case {"type": "agent.session.created", "session": {"id": session}}:
                self.session = session
                yield Ref(VendorRef(session))
            case {"type": "agent.session.turn.created", "turn_id": turn} if not self.root and _is_root(event):
                self.root = turn
                yield Ref(VendorRef(self.session, turn))
            case {"type": "agent.session.requires_action", "session": session} if self._answered is not None:
                yield from _asked(open_actions(session, self._answered))
            case {"type": "agent.session.budget_reached"} if self._answered is not None:
                yield failure_of("budget_reached", "the session reached its spending limit")
            case {"type": "agent.session.environment.expired"}:
                yield Failed(LOST, detail=str(event["environment"]), kind=SESSION_LOST)
            case {"type": "agent.session.failed" | "agent.session.environment.failed" | "error"}:
                yield failure_in(event.get("error") or event.get("environment") or event.get("session"))

    def _of_turn(self, kind: str, event: Mapping[str, Any]) -> Iterator[Event]:
        turn = event.get("turn") or {}
        match kind, event:
            case "item.added", {"item": item} if is_aside(item) or item.get("role") == "user":
                self._aside.add(item["id"])
            case "output_text.delta", {"item_id": name, "delta": text} if name not in self._aside:
                yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=name in self._streamed, last_chunk=False)
                self._streamed[name] = self._streamed.get(name, "") + text
            case "item.done", {"item": {"id": name} as item} if item.get("role") != "user":
                yield from outputs_of(name, item, self._streamed)
            case "completed", _:
                yield Done(metadata=usage_of("", event.get("usage") or turn.get("usage")))
            case "failed", _:
                yield failure_in(turn.get("error"))
            case "cancelled", _:
                yield Canceled()


def _asked(actions: list[Mapping[str, Any]]) -> Iterator[Event]:
    if foreign := foreign_actions(actions):
        yield Failed(FOREIGN, detail=", ".join(foreign))
    elif actions:
        yield Ask(prompts=prompts_of(actions))


def _is_root(event: Mapping[str, Any]) -> bool:
    return (event.get("turn") or {}).get("subagent_id") is None


_: type[Vendor] = OpenAIAgents
