"""OpenAI's hosted agents (beta, agents=v1): a session's turns as events, required actions as prompts, published files as artifacts."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, ClassVar, Final

from msgspec import UNSET

from adapters.contract import ArtifactPiece, Ask, Canceled, Done, Event, Failed, InvalidAnswer, RefLearned, Turn, UpstreamFault, VendorRef
from adapters.task import Artifact, Message, Part
from adapters.vendors.openai.items import input_items, is_commentary, output_events, usage_metadata
from adapters.vendors.openai.required_actions import action_prompts, open_actions, result_event, unsupported_actions
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import SESSION_LOST, SESSION_LOST_TEXT
from adapters.vendors.sdk.frames import Frame, Head, SseFrame
from adapters.vendors.sdk.model_failures import UNSUPPORTED_ACTION_TEXT, failure_for_code, failure_from_error

BETA_HEADERS: Final = {"openai-beta": "agents=v1"}
NO_ENVIRONMENT: Final[Mapping[str, Any]] = {"type": "none"}
CANCEL_EVENT: Final = {"type": "agent.session.input.cancel"}
FILES_MAX: Final = 100  # files of a turn, at most


class OpenAIAgentsOptions(VendorOptions):
    """Options. `agent`: a saved agent's id. `environment`: where it works, in the API's form; `vaults`: ids that it may use there."""

    agent: str
    environment: Mapping[str, Any] = NO_ENVIRONMENT
    vaults: tuple[str, ...] = ()


class OpenAIAgents:
    """The hosted agents vendor: a session is a conversation. Events are not stored, so the adapter subscribes before it sends."""

    kind: ClassVar[str] = "openai-agents"
    features: ClassVar[Features] = Features(
        streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE, keeps_sessions=True
    )
    options: ClassVar[type[VendorOptions]] = OpenAIAgentsOptions

    async def describe(self, connection: VendorConnection[OpenAIAgentsOptions]) -> AgentFacts:
        agent = await connection.request_json(_request("GET", f"/agents/{quote_segment(connection.options.agent)}"))
        name = str(agent.get("name") or agent["id"])
        return AgentFacts(name, str(agent.get("description") or f"The OpenAI agent {name}."))

    async def run(self, turn: Turn, connection: VendorConnection[OpenAIAgentsOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        reader = OpenAITurnReader(ref.context_id, ref.task_id if turn.answers else "", {answer.prompt.id for answer in turn.answers})
        if not ref.context_id:
            frames = connection.stream_frames(_request("POST", "/agents/sessions", _session_body(turn, connection.options)))
        elif turn.answers:
            frames = _send_and_stream(connection, ref.context_id, [result_event(answer) for answer in turn.answers])
        else:
            frames = _send_and_stream(
                connection, ref.context_id, [{"type": "agent.session.input.message", "input": _input_messages(turn.message)}]
            )
        async with aclosing(read_events(reader, frames)) as events:
            async for event in events:
                if isinstance(event, Done) and connection.options.environment.get("type") != "none":
                    async for piece in _published_files(connection, reader.session, reader.turn_id):
                        yield piece
                elif isinstance(event, Failed) and event.reason == UNSUPPORTED_ACTION_TEXT:
                    await _cancel_turn(connection, reader.session)
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[OpenAIAgentsOptions]) -> CancelOutcome:
        """Cancels a turn. The response only confirms the request; the events that follow show what became of the turn."""
        response = await connection.request_json(
            _request("GET", f"/agents/sessions/{quote_segment(ref.context_id)}/turns/{quote_segment(ref.task_id)}")
        )
        if response["status"] in ("completed", "failed", "cancelled"):
            return CancelOutcome.TOO_LATE
        reader = OpenAITurnReader(ref.context_id, ref.task_id, None)
        async with aclosing(read_events(reader, _send_and_stream(connection, ref.context_id, [CANCEL_EVENT]))) as events:
            async for event in events:
                if isinstance(event, Canceled):
                    return CancelOutcome.CANCELED
                if isinstance(event, Done) or (isinstance(event, Failed) and event.kind != InvalidAnswer.kind):
                    return CancelOutcome.TOO_LATE
        return CancelOutcome.UNKNOWN


def _request(method: str, path: str, body: Any = UNSET) -> Request:
    return Request(method, path, body, BETA_HEADERS)


async def _send_and_stream(
    connection: VendorConnection[OpenAIAgentsOptions], session: str, events: list[dict[str, Any]]
) -> AsyncGenerator[Frame, None]:
    """Yields the frames of a session's stream, and sends `events` once the stream is open."""
    path = f"/agents/sessions/{quote_segment(session)}/events"
    async with aclosing(connection.stream_frames(_request("GET", path))) as frames:
        async for frame in frames:
            yield frame
            if isinstance(frame, Head):
                await connection.request(_request("POST", path, {"events": events}))


async def _published_files(connection: VendorConnection[OpenAIAgentsOptions], session: str, turn: str) -> AsyncIterator[ArtifactPiece]:
    """Yields the files that a turn published."""
    path = f"/agents/sessions/{quote_segment(session)}/artifacts"
    for file in (await connection.request_json(_request("GET", f"{path}?limit={FILES_MAX}&order=desc")))["data"]:
        if file["turn_id"] == turn:
            name = file["path"].rpartition("/")[2]
            named = Part(url=f"{path.removeprefix('/')}/{quote_segment(file['id'])}/content", filename=name)
            yield ArtifactPiece(Artifact(file["id"], (await connection.fetch_part(named, BETA_HEADERS),), name=name))


def _session_body(turn: Turn, options: OpenAIAgentsOptions) -> dict[str, Any]:
    body = {"agent_id": options.agent, "environment": options.environment, "input": input_items(turn.message.parts), "stream": True}
    return body | ({"vault_ids": options.vaults} if options.vaults else {})


def _input_messages(message: Message) -> list[dict[str, Any]]:
    items = input_items(message.parts)
    return items if isinstance(items, list) else [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": items}]}]


async def _cancel_turn(connection: VendorConnection[OpenAIAgentsOptions], session: str) -> None:
    """Cancels a turn that nothing can answer, so that the session accepts the next one. The turn has failed in any case."""
    with suppress(UpstreamFault):
        await connection.request(_request("POST", f"/agents/sessions/{quote_segment(session)}/events", {"events": [CANCEL_EVENT]}))


class OpenAITurnReader:
    """Reads one turn among a session's events: `turn_id`, or the next that begins.

    `answered_ids`: actions that were answered; None ignores all actions.
    """

    def __init__(self, session: str = "", turn_id: str = "", answered_ids: Collection[str] | None = ()) -> None:
        self.session = session
        self.turn_id = turn_id
        self._answered_ids = answered_ids
        self._commentary_ids: set[str] = set()
        self._streamed: dict[str, str] = {}

    def read(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, SseFrame) and frame.data != "[DONE]":
            event = frame.json()
            yield from self._read_session_event(event)
            if event.get("turn_id") == self.turn_id and self.turn_id:
                yield from self._read_turn_event(str(event["type"]).removeprefix("agent.session.turn."), event)

    def _read_session_event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event:
            case {"type": "agent.session.created", "session": {"id": session}}:
                self.session = session
                yield RefLearned(VendorRef(session))
            case {"type": "agent.session.turn.created", "turn_id": turn} if not self.turn_id and _is_root(event):
                self.turn_id = turn
                yield RefLearned(VendorRef(self.session, turn))
            case {"type": "agent.session.requires_action", "session": session} if self._answered_ids is not None:
                yield from _ask_for_actions(open_actions(session, self._answered_ids))
            case {"type": "agent.session.budget_reached"} if self._answered_ids is not None:
                yield failure_for_code("budget_reached", "the session reached its spending limit")
            case {"type": "agent.session.environment.expired"}:
                yield Failed(SESSION_LOST_TEXT, detail=str(event["environment"]), kind=SESSION_LOST)
            case {"type": "agent.session.failed" | "agent.session.environment.failed" | "error"}:
                yield failure_from_error(event.get("error") or event.get("environment") or event.get("session"))

    def _read_turn_event(self, kind: str, event: Mapping[str, Any]) -> Iterator[Event]:
        turn = event.get("turn") or {}
        match kind, event:
            case "item.added", {"item": item} if is_commentary(item) or item.get("role") == "user":
                self._commentary_ids.add(item["id"])
            case "output_text.delta", {"item_id": name, "delta": text} if name not in self._commentary_ids:
                yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=name in self._streamed, last_chunk=False)
                self._streamed[name] = self._streamed.get(name, "") + text
            case "item.done", {"item": {"id": name} as item} if item.get("role") != "user":
                yield from output_events(name, item, self._streamed)
            case "completed", _:
                yield Done(metadata=usage_metadata("", event.get("usage") or turn.get("usage")))
            case "failed", _:
                yield failure_from_error(turn.get("error"))
            case "cancelled", _:
                yield Canceled()


def _ask_for_actions(actions: list[Mapping[str, Any]]) -> Iterator[Event]:
    if foreign := unsupported_actions(actions):
        yield Failed(UNSUPPORTED_ACTION_TEXT, detail=", ".join(foreign))
    elif actions:
        yield Ask(prompts=action_prompts(actions))


def _is_root(event: Mapping[str, Any]) -> bool:
    return (event.get("turn") or {}).get("subagent_id") is None


_: type[Vendor] = OpenAIAgents
