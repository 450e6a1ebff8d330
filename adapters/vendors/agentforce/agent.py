"""Salesforce Agentforce: numbered messages in a session of the Agent API; withdrawn answers are not sent."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from adapters.contract import ENDINGS, Event, RefLearned, Turn, VendorRef
from adapters.vendors.agentforce.reader import AgentforceReader
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import unsupported_content_fault

NO_FILES_TEXT: Final = "The agent takes texts and structured data, and no files"


class AgentforceVariable(BaseModel):
    """A context variable of the conversation, such as `$Context.EndUserLanguage`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    type: str = "Text"
    value: Any


class AgentforceOptions(VendorOptions):
    """Options of an Agentforce agent.

    `agent`: its id. `domain`: the organization's My Domain URL. `bypass_user`: act as the agent's own user, not as the token's user.
    `title` and `about` are for the card, since the API has neither.
    """

    agent: str = Field(min_length=1)
    domain: str = Field(pattern=r"^https://[^/]+$")
    bypass_user: bool = False
    variables: tuple[AgentforceVariable, ...] = ()
    title: str = "Agentforce"
    about: str = "An agent of Salesforce Agentforce."


class Agentforce:
    """The Agentforce vendor: a session is a conversation; its messages have rising sequence numbers."""

    kind: ClassVar[str] = "agentforce"
    features: ClassVar[Features] = Features(streams=True, resumes=True, questions=OpenQuestions.ONE, keeps_sessions=True)
    options: ClassVar[type[VendorOptions]] = AgentforceOptions

    async def describe(self, connection: VendorConnection[AgentforceOptions]) -> AgentFacts:
        """Returns the configured description: the API has none."""
        return AgentFacts(connection.options.title, connection.options.about)

    async def run(self, turn: Turn, connection: VendorConnection[AgentforceOptions]) -> AsyncIterator[Event]:
        text = _text(turn)
        ref = turn.ref or VendorRef()
        session = ref.context_id or await _create_session(turn, connection)
        number = int((ref.kept or {}).get("sequence", 0)) + 1 if ref.context_id else 1
        yield RefLearned(VendorRef(session, kept={"sequence": number}))
        message = {"sequenceId": number, "type": "Text", "text": text}
        if turn.answers:
            message["inReplyToMessageId"] = turn.answers[0].prompt.id
        path = f"/sessions/{quote_segment(session)}/messages" + ("/stream" if turn.stream else "")
        frames = connection.stream_frames(Request("POST", path, {"message": message, "variables": []}))
        reader = AgentforceReader()
        async with aclosing(read_events(reader, frames)) as events:
            async for event in events:
                if reader.has_session_ended and type(event) in ENDINGS:
                    yield RefLearned(VendorRef(session, over=True))
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[AgentforceOptions]) -> CancelOutcome:
        """Returns UNSUPPORTED: the API can only end a whole session."""
        return CancelOutcome.UNSUPPORTED


async def _create_session(turn: Turn, connection: VendorConnection[AgentforceOptions]) -> str:
    """Creates a session and returns its id. Its greeting is not an answer."""
    options = connection.options
    body = {
        "externalSessionKey": turn.session,
        "instanceConfig": {"endpoint": options.domain},
        "streamingCapabilities": {"chunkTypes": ["Text"]},
        "bypassUser": options.bypass_user,
        "variables": [each.model_dump() for each in options.variables],
    }
    return str((await connection.request_json(Request("POST", f"/agents/{quote_segment(options.agent)}/sessions", body)))["sessionId"])


def _text(turn: Turn) -> str:
    """The turn as one text. Raises AgentFault for files."""
    if turn.answers:
        return "\n".join(_answer_text(each.value) for each in turn.answers)
    parts = turn.message.parts
    if any(isinstance(part.raw, str) or isinstance(part.url, str) for part in parts):
        raise unsupported_content_fault("a file", NO_FILES_TEXT)
    return "\n".join(part.text if isinstance(part.text, str) else as_text(part.data) for part in parts)


def _answer_text(value: Any) -> str:
    return ("Yes" if value else "No") if isinstance(value, bool) else as_text(value)


_: type[Vendor] = Agentforce
