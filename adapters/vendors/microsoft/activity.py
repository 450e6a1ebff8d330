"""Microsoft 365 Agents and Copilot Studio: a turn is an activity, and what the agent says to it are activities again."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final, Literal

from msgspec import UNSET
from pydantic import Field

from adapters.contract import Event, InvalidAnswer, Ref, Turn, VendorRef
from adapters.vendors.microsoft.activity_reader import ActivityReader
from adapters.vendors.microsoft.content import message_activity
from adapters.vendors.microsoft.copilot_endpoints import TURN, Endpoints, discovered, endpoints_at
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read
from adapters.vendors.sdk.connection import Line, Request
from adapters.vendors.sdk.frames import UNREADABLE, Head, SseFrame

CONVERSATION: Final = "x-ms-conversationid"


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

    async def describe(self, line: Line[ActivityOptions]) -> AgentFacts:
        """The protocol has no word for it."""
        return AgentFacts(line.options.title, line.options.about)

    async def run(self, turn: Turn, line: Line[ActivityOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        if line.options.dialect == "messages":
            ref = VendorRef(ref.context_id or turn.session)
            sent = Request("POST", line.options.path, _addressed(message_activity(turn, ref.context_id), line))
        else:
            ref, sent = await _turn_in_studio(turn, line, ref)
        yield Ref(ref)
        async with aclosing(read(ActivityReader(), line.frames(sent))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, line: Line[ActivityOptions]) -> CancelOutcome:
        """There is no word for it."""
        return CancelOutcome.UNSUPPORTED


async def _turn_in_studio(turn: Turn, line: Line[ActivityOptions], before: VendorRef) -> tuple[VendorRef, Request]:
    """The conversation, which begins where there is none, and the request that says something in it. Raises UpstreamFault."""
    agent = line.options.agent
    places = await discovered(line, agent, before.kept or {}) if agent else endpoints_at(line.options.version)
    conversation = before.context_id or await _begun(line, places)
    sent = Request("POST", places.turn_in(conversation), {"activity": message_activity(turn, conversation)}, domain=places.domain)
    return VendorRef(conversation, kept={TURN: places.turn} if agent else UNSET), sent


async def _begun(line: Line[ActivityOptions], places: Endpoints) -> str:
    """A new conversation; what the agent greets with is no answer. Raises UpstreamFault."""
    found, request = "", Request("POST", places.create, {"emitStartConversationEvent": False}, domain=places.domain)
    async with aclosing(line.frames(request)) as frames:
        async for frame in frames:
            match frame:
                case Head(headers):
                    found = headers.get(CONVERSATION, "")
                case SseFrame("activity") if not found:
                    found = str(frame.json()["conversation"]["id"])
    if not found:
        raise InvalidAnswer(UNREADABLE, "the conversation that began has no id")
    return found


def _addressed(activity: dict[str, Any], line: Line[ActivityOptions]) -> dict[str, Any]:
    """The agent answers in the response and calls nobody; its sender is the verified person."""
    places = {"deliveryMode": "expectReplies", "serviceUrl": "https://gateway.invalid/", "channelId": line.options.channel}
    return {**activity, **places, "from": {"id": line.user, "role": "user"}, "recipient": {"id": "bot", "role": "bot"}}


_: type[Vendor] = Activity
