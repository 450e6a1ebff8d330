"""Anthropic's managed agents (beta): a session's events, heard before anything is said; idle is an end only where nobody is waited for."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from msgspec import UNSET
from pydantic import Field

from adapters.chat_content import as_text, question_in, text_in
from adapters.contract import Answer, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, PromptKind, Ref, Turn, VendorRef, usage
from adapters.frames import Frame, Head, SseFrame
from adapters.task import Artifact, Part
from adapters.vendor import AgentFacts, CancelOutcome, Features, Vendor, VendorOptions, read
from adapters.vendor_faults import FAILED
from adapters.vendor_line import Line, Request, quoted

VERSION: Final = {"anthropic-version": "2023-06-01", "anthropic-beta": "managed-agents-2026-04-01"}
PREVIEWS: Final = "?event_deltas%5B%5D=agent.message"
CALLS: Final = ("agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use")
CUSTOM: Final = "agent.custom_tool_use"
AT_WORK: Final = ("running", "rescheduling")
STOPPING: Final = 0.25  # seconds between questions whether an interrupted session has stopped
LOOKS: Final = 20
READ: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
YES_OR_NO: Final = {"type": "boolean"}


class ManagedOptions(VendorOptions):
    """`agent` and `environment`: their ids; `version` of the agent, without one the latest; `vaults`: ids of what it may use."""

    agent: str = Field(min_length=1)
    environment: str = Field(min_length=1)
    version: int | str | None = None
    vaults: tuple[str, ...] = ()


class AnthropicAgents:
    """A session is a conversation. Its events are told once, so whoever sends something listens first."""

    kind: ClassVar[str] = "anthropic-agents"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True)
    options: ClassVar[type[VendorOptions]] = ManagedOptions

    async def describe(self, line: Line[ManagedOptions]) -> AgentFacts:
        about = await line.json(_request("GET", f"/v1/agents/{quoted(line.options.agent)}"))
        name = str(about["name"])
        return AgentFacts(name, str(about.get("description") or f"The managed agent {name}."))

    async def run(self, turn: Turn, line: Line[ManagedOptions]) -> AsyncIterator[Event]:
        session = (turn.ref.context_id if turn.ref else "") or await _begun(line)
        yield Ref(VendorRef(session, session))
        words = {"type": "user.message", "content": [_block(part) for part in turn.message.parts]}
        said = [_result(answer) for answer in turn.answers] or [words]
        async with aclosing(read(SessionReader(), _heard(line, session, said, turn.stream))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, line: Line[ManagedOptions]) -> CancelOutcome:
        """An interrupt is taken in; that it worked is in the session's status, a little later."""
        place = f"/v1/sessions/{quoted(ref.context_id)}"
        if ref.prompts:
            return CancelOutcome.UNSUPPORTED  # it waits, so there is nothing to be stopped
        if (await line.json(_request("GET", place)))["status"] not in AT_WORK:
            return CancelOutcome.TOO_LATE
        await line.ask(_request("POST", f"{place}/events", {"events": [{"type": "user.interrupt"}]}))
        looks = 0
        async with aclosing(line.polled(_request("GET", place), STOPPING)) as sessions:
            async for session in sessions:
                if session["status"] not in AT_WORK:
                    return CancelOutcome.CANCELED if session["status"] == "idle" else CancelOutcome.TOO_LATE
                looks += 1
                if looks == LOOKS:
                    break
        return CancelOutcome.UNKNOWN


def _request(method: str, path: str, body: Any = UNSET) -> Request:
    return Request(method, path, body, VERSION)


async def _begun(line: Line[ManagedOptions]) -> str:
    options = line.options
    agent = options.agent if options.version is None else {"type": "agent", "id": options.agent, "version": options.version}
    body = {"agent": agent, "environment_id": options.environment, "metadata": {"user": line.user}}
    return str((await line.json(_request("POST", "/v1/sessions", body | ({"vault_ids": options.vaults} if options.vaults else {}))))["id"])


async def _heard(line: Line[ManagedOptions], session: str, said: list[dict[str, Any]], watched: bool) -> AsyncGenerator[Frame, None]:
    """The events of a session, to which something is said once they are listened to."""
    path = f"/v1/sessions/{quoted(session)}/events"
    async with aclosing(line.frames(_request("GET", f"{path}/stream{PREVIEWS if watched else ''}"))) as frames:
        async for frame in frames:
            yield frame
            if isinstance(frame, Head):
                await line.ask(_request("POST", path, {"events": said}))


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part.text, str):
        return {"type": "text", "text": part.text}
    form = "image" if part.media_type.startswith("image/") else "document"
    if isinstance(part.raw, str):
        return {"type": form, "source": {"type": "base64", "media_type": part.media_type or "application/octet-stream", "data": part.raw}}
    if isinstance(part.url, str):
        return {"type": form, "source": {"type": "url", "url": part.url}}
    return {"type": "text", "text": as_text(None if part.data is UNSET else part.data)}


def _result(answer: Answer) -> dict[str, Any]:
    if answer.prompt.kind is PromptKind.APPROVAL:
        return {"type": "user.tool_confirmation", "tool_use_id": answer.prompt.id, "result": "allow" if answer.value else "deny"}
    content = [{"type": "text", "text": as_text(answer.value)}]
    return {"type": "user.custom_tool_result", "custom_tool_use_id": answer.prompt.id, "content": content}


class SessionReader:
    """Of the events of a session from what was said on. A message that came in pieces is told again as a whole, which counts."""

    def __init__(self) -> None:
        self._calls: dict[str, Mapping[str, Any]] = {}
        self._pieces: dict[str, str] = {}
        self._told: set[Any] = set()
        self._interrupted = False
        self._figures: dict[str, Any] = {}

    def take(self, frame: Frame) -> Iterator[Event]:
        if not isinstance(frame, SseFrame) or not frame.data.strip():
            return
        event = frame.json()
        if event.get("id") in self._told:
            return
        if event.get("id") and event.get("processed_at", True):  # what waits to be processed is told again
            self._told.add(event.get("id"))
        yield from self._event(event)

    def _event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event.get("type"):
            case "event_delta":
                yield from self._piece(event)
            case "agent.message":
                yield from self._message(event)
            case kind if kind in CALLS:
                self._calls[event["id"]] = event
            case "span.model_request_end":
                self._spent(event.get("model_usage") or {})
            case "user.interrupt":
                self._interrupted = True
            case "session.error" if _is_final(event):
                yield Failed(FAILED, detail=str(event.get("error")))
            case "session.status_terminated" | "error":
                yield Failed(FAILED, detail=str(event.get("error") or "the session was terminated"))
            case "session.status_idle":
                yield self._idle(event["stop_reason"])

    def _piece(self, event: Mapping[str, Any]) -> Iterator[Event]:
        name, text = str(event["event_id"]), text_in([event["delta"].get("content") or {}])
        if text:
            yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=name in self._pieces, last_chunk=False)
            self._pieces[name] = self._pieces.get(name, "") + text

    def _message(self, event: Mapping[str, Any]) -> Iterator[Event]:
        text = text_in(event["content"])
        if text and text != self._pieces.get(event["id"]):
            yield ArtifactPiece(Artifact(str(event["id"]), (Part(text=text),)))

    def _spent(self, figures: Mapping[str, Any]) -> None:
        for name, theirs in (("input_tokens", READ), ("output_tokens", ("output_tokens",))):
            self._figures[name] = self._figures.get(name, 0) + sum(int(figures.get(each) or 0) for each in theirs)

    def _idle(self, reason: Mapping[str, Any]) -> Event:
        """Raises KeyError for a call that nobody was told of, and ValueError for a reason that nobody knows."""
        match reason["type"]:
            case "requires_action" if names := reason.get("event_ids") or reason["requires_action"]["event_ids"]:
                return Ask(prompts=tuple(_prompt(self._calls[each]) for each in names))
            case "end_turn":
                return Canceled() if self._interrupted else Done(metadata=usage(**self._figures))
            case "retries_exhausted":
                return Failed(FAILED, detail="its retries are exhausted")
        raise ValueError(f"the session is idle for no reason that is known: {reason['type']!r}")


def _is_final(event: Mapping[str, Any]) -> bool:
    """An error that the agent tries again after is none yet."""
    retry = (event.get("error") or {}).get("retry_status") or {}
    return bool(retry.get("type") != "retrying")


def _prompt(call: Mapping[str, Any]) -> Prompt:
    name, given, custom = str(call["name"]), call.get("input"), call["type"] == CUSTOM
    kind, schema = (PromptKind.INPUT, None) if custom else (PromptKind.APPROVAL, YES_OR_NO)
    return Prompt(call["id"], question_in(given) if custom else f"May the agent use {name}?", {"call": name, "args": given}, schema, kind)


_: type[Vendor] = AnthropicAgents
