"""Microsoft 365 Agents and Copilot Studio (Activity protocol): a turn is an activity, and its responses are activities."""

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
    """Options. `dialect`: `messages` for an agent's own endpoint at `path`, or `copilot-studio`, with a URL up to `/conversations`.

    `agent`: its identifier in Copilot Studio, where the URL is its environment's, which locates the agent. `channel`: the gateway's channel
    id. `title` and `about` are for the card, since agents have neither.
    """

    dialect: Literal["messages", "copilot-studio"] = "messages"
    path: str = Field("/api/messages", pattern=r"^/[!-~]*$")
    agent: str = ""
    channel: str = "emulator"
    version: str = "2022-03-01-preview"
    title: str = "Agent"
    about: str = "An agent of Microsoft 365."


class Activity:
    """The Activity vendor: the gateway names a conversation, or Copilot Studio does when it begins."""

    kind: ClassVar[str] = "activity"
    features: ClassVar[Features] = Features(streams=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = ActivityOptions

    async def describe(self, connection: VendorConnection[ActivityOptions]) -> AgentFacts:
        """Returns the configured description: the protocol has none."""
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
        """Returns UNSUPPORTED: the protocol has no cancel."""
        return CancelOutcome.UNSUPPORTED


async def _copilot_studio_turn(
    turn: Turn, connection: VendorConnection[ActivityOptions], previous_ref: VendorRef
) -> tuple[VendorRef, Request]:
    """The conversation, newly created if there is none, and the request of the turn. Raises UpstreamFault."""
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
    """Creates a conversation and returns its id. The agent's greeting is not an answer. Raises UpstreamFault."""
    found, request = "", Request("POST", endpoints.create, {"emitStartConversationEvent": False}, credential_domain=endpoints.domain)
    async with aclosing(connection.stream_frames(request)) as frames:
        async for frame in frames:
            match frame:
                case Head(headers):
                    found = headers.get(CONVERSATION_HEADER, "")
                case SseFrame("activity") if not found:
                    found = str(frame.json()["conversation"]["id"])
    if not found:
        raise InvalidAnswer(UNREADABLE_TEXT, "the new conversation has no id")
    return found


def _with_addresses(activity: dict[str, Any], connection: VendorConnection[ActivityOptions]) -> dict[str, Any]:
    """The activity with addresses: replies come in the response, not by a callback; its sender is the verified person."""
    places = {"deliveryMode": "expectReplies", "serviceUrl": "https://gateway.invalid/", "channelId": connection.options.channel}
    return {**activity, **places, "from": {"id": connection.user, "role": "user"}, "recipient": {"id": "bot", "role": "bot"}}


_: type[Vendor] = Activity
