"""Microsoft 365 Agents and Copilot Studio: a turn is an activity, and what the agent says to it are activities again."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final, Literal

from msgspec import UNSET
from pydantic import Field

from adapters.contract import Event, InvalidAnswer, RefLearned, Turn, VendorRef
from adapters.vendors.microsoft.activity_reader import ActivityReader
from adapters.vendors.microsoft.content import message_activity
from adapters.vendors.microsoft.copilot_endpoints import TURN_KEY, CopilotEndpoints, default_endpoints, discover_endpoints
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.connection import Request, VendorConnection
from adapters.vendors.sdk.frames import UNREADABLE_TEXT, Head, SseFrame

CONVERSATION_HEADER: Final = "x-ms-conversationid"


class ActivityOptions(VendorOptions):
    """`dialect`: `messages`, an agent's own endpoint at `path`, or `copilot-studio`, whose URL ends before `/conversations`.

    `agent`: in Copilot Studio its identifier, where the URL is that of its environment, which tells where the agent is.
    `channel`: as which channel the gateway comes. `title` and `about` are for the card, since agents tell of neither.
    """

    dialect: Literal["messages", "copilot-studio"] = "messages"
    path: str = Field("/api/messages", pattern=r"^/[!-~]*$")
    agent: str = ""
    channel: str = "emulator"
    version: str = "2022-03-01-preview"
    title: str = "Agent"
    about: str = "An agent of Microsoft 365."


class Activity:
    """A conversation is named by the gateway, or told by Copilot Studio when it begins."""

    kind: ClassVar[str] = "activity"
    features: ClassVar[Features] = Features(streams=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = ActivityOptions

    async def describe(self, connection: VendorConnection[ActivityOptions]) -> AgentFacts:
        """The protocol has no word for it."""
        return AgentFacts(connection.options.title, connection.options.about)

    async def run(self, turn: Turn, connection: VendorConnection[ActivityOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        if connection.options.dialect == "messages":
            ref = VendorRef(ref.context_id or turn.session)
            sent = Request("POST", connection.options.path, _with_addresses(message_activity(turn, ref.context_id), connection))
        else:
            ref, sent = await _copilot_studio_turn(turn, connection, ref)
        yield RefLearned(ref)
        async with aclosing(read_events(ActivityReader(), connection.stream_frames(sent))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[ActivityOptions]) -> CancelOutcome:
        """There is no word for it."""
        return CancelOutcome.UNSUPPORTED


async def _copilot_studio_turn(
    turn: Turn, connection: VendorConnection[ActivityOptions], previous_ref: VendorRef
) -> tuple[VendorRef, Request]:
    """The conversation, which begins where there is none, and the request that says something in it. Raises UpstreamFault."""
    agent = connection.options.agent
    places = (
        await discover_endpoints(connection, agent, previous_ref.kept or {}) if agent else default_endpoints(connection.options.version)
    )
    conversation = previous_ref.context_id or await _create_conversation(connection, places)
    sent = Request(
        "POST", places.turn_path(conversation), {"activity": message_activity(turn, conversation)}, credential_domain=places.domain
    )
    return VendorRef(conversation, kept={TURN_KEY: places.turn} if agent else UNSET), sent


async def _create_conversation(connection: VendorConnection[ActivityOptions], endpoints: CopilotEndpoints) -> str:
    """A new conversation; what the agent greets with is no answer. Raises UpstreamFault."""
    found, request = "", Request("POST", endpoints.create, {"emitStartConversationEvent": False}, credential_domain=endpoints.domain)
    async with aclosing(connection.stream_frames(request)) as frames:
        async for frame in frames:
            match frame:
                case Head(headers):
                    found = headers.get(CONVERSATION_HEADER, "")
                case SseFrame("activity") if not found:
                    found = str(frame.json()["conversation"]["id"])
    if not found:
        raise InvalidAnswer(UNREADABLE_TEXT, "the conversation that began has no id")
    return found


def _with_addresses(activity: dict[str, Any], connection: VendorConnection[ActivityOptions]) -> dict[str, Any]:
    """The agent answers in the response and calls nobody; its sender is the verified person."""
    places = {"deliveryMode": "expectReplies", "serviceUrl": "https://gateway.invalid/", "channelId": connection.options.channel}
    return {**activity, **places, "from": {"id": connection.user, "role": "user"}, "recipient": {"id": "bot", "role": "bot"}}


_: type[Vendor] = Activity
