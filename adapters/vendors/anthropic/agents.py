"""Anthropic's managed agents (beta): subscribes to a session's events before it sends; idle ends a turn unless an action is required."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, ClassVar, Final

from msgspec import UNSET
from pydantic import Field

from adapters.contract import Answer, Event, Failed, PromptKind, RefLearned, Turn, UpstreamFault, VendorRef
from adapters.task import Part
from adapters.vendors.anthropic.managed_session import AnthropicSessionReader
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.frames import Frame, Head
from adapters.vendors.sdk.model_failures import UNSUPPORTED_ACTION_TEXT

VERSION_HEADERS: Final = {"anthropic-version": "2026-10-21", "anthropic-beta": "managed-agents-2026-04-01"}
PREVIEWS_QUERY: Final = "?event_deltas%5B%5D=agent.message"
INTERRUPT_EVENT: Final = {"type": "user.interrupt"}
RUNNING_STATUSES: Final = ("running", "rescheduling")
STOP_POLL_SECONDS: Final = 0.25  # seconds between two checks whether an interrupted session has stopped
STOP_POLLS_MAX: Final = 20


class AnthropicAgentsOptions(VendorOptions):
    """Options. `agent` and `environment`: ids; `version` of the agent, by default the latest; `vaults`: ids of its vaults."""

    agent: str = Field(min_length=1)
    environment: str = Field(min_length=1)
    version: int | str | None = None
    vaults: tuple[str, ...] = ()


class AnthropicAgents:
    """The managed agents vendor: a session is a conversation. Events are sent only once, so the adapter subscribes before it sends."""

    kind: ClassVar[str] = "anthropic-agents"
    features: ClassVar[Features] = Features(
        streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE, keeps_sessions=True
    )
    options: ClassVar[type[VendorOptions]] = AnthropicAgentsOptions

    async def describe(self, connection: VendorConnection[AnthropicAgentsOptions]) -> AgentFacts:
        agent = await connection.request_json(_request("GET", f"/v1/agents/{quote_segment(connection.options.agent)}"))
        name = str(agent["name"])
        return AgentFacts(name, str(agent.get("description") or f"The managed agent {name}."))

    async def run(self, turn: Turn, connection: VendorConnection[AnthropicAgentsOptions]) -> AsyncIterator[Event]:
        session = (turn.ref.context_id if turn.ref else "") or await _create_session(connection)
        yield RefLearned(VendorRef(session, session))
        words = {"type": "user.message", "content": [_block(part) for part in turn.message.parts]}
        user_events = [_result(answer) for answer in turn.answers] or [words]
        async with aclosing(
            read_events(AnthropicSessionReader(), _send_and_stream(connection, session, user_events, turn.stream))
        ) as events:
            async for event in events:
                if isinstance(event, Failed) and event.reason == UNSUPPORTED_ACTION_TEXT:
                    await _interrupt_turn(connection, session)
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[AnthropicAgentsOptions]) -> CancelOutcome:
        """Interrupts the session. The response does not confirm that it stopped; the session's status shows it a little later."""
        place = f"/v1/sessions/{quote_segment(ref.context_id)}"
        if ref.prompts:
            return CancelOutcome.UNSUPPORTED  # it waits for an answer, so there is nothing to stop
        if (await connection.request_json(_request("GET", place)))["status"] not in RUNNING_STATUSES:
            return CancelOutcome.TOO_LATE
        await connection.request(_request("POST", f"{place}/events", {"events": [INTERRUPT_EVENT]}))
        poll_count = 0
        async with aclosing(connection.poll_json(_request("GET", place), STOP_POLL_SECONDS)) as sessions:
            async for session in sessions:
                if session["status"] not in RUNNING_STATUSES:
                    return CancelOutcome.CANCELED if session["status"] == "idle" else CancelOutcome.TOO_LATE
                poll_count += 1
                if poll_count == STOP_POLLS_MAX:
                    break
        return CancelOutcome.UNKNOWN


def _request(method: str, path: str, body: Any = UNSET) -> Request:
    return Request(method, path, body, VERSION_HEADERS)


async def _interrupt_turn(connection: VendorConnection[AnthropicAgentsOptions], session: str) -> None:
    """Interrupts a turn that nothing can answer. The turn has failed, whether the agent accepts the interrupt or not."""
    with suppress(UpstreamFault):
        await connection.request(_request("POST", f"/v1/sessions/{quote_segment(session)}/events", {"events": [INTERRUPT_EVENT]}))


async def _create_session(connection: VendorConnection[AnthropicAgentsOptions]) -> str:
    options = connection.options
    agent = options.agent if options.version is None else {"type": "agent", "id": options.agent, "version": options.version}
    body = {"agent": agent, "environment_id": options.environment, "metadata": {"user": connection.user}}
    return str(
        (await connection.request_json(_request("POST", "/v1/sessions", body | ({"vault_ids": options.vaults} if options.vaults else {}))))[
            "id"
        ]
    )


async def _send_and_stream(
    connection: VendorConnection[AnthropicAgentsOptions], session: str, events: list[dict[str, Any]], with_previews: bool
) -> AsyncGenerator[Frame, None]:
    """Yields the frames of a session's stream, and sends `events` once the stream is open."""
    path = f"/v1/sessions/{quote_segment(session)}/events"
    async with aclosing(connection.stream_frames(_request("GET", f"{path}/stream{PREVIEWS_QUERY if with_previews else ''}"))) as frames:
        async for frame in frames:
            yield frame
            if isinstance(frame, Head):
                await connection.request(_request("POST", path, {"events": events}))


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


_: type[Vendor] = AnthropicAgents
