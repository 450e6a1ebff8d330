"""Salesforce Agentforce: messages in a session of the Agent API, in their order; what the agent takes back is not said."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from adapters.contract import ENDINGS, Event, Ref, Turn, VendorRef
from adapters.vendors.agentforce.reader import MessageReader
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import Line, Request, quoted
from adapters.vendors.sdk.faults import not_taken

NO_FILES: Final = "The agent takes texts and structured data, and no files"


class Variable(BaseModel):
    """What the agent has to know of the conversation, such as `$Context.EndUserLanguage`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    type: str = "Text"
    value: Any


class AgentforceOptions(VendorOptions):
    """`agent`: its id. `domain`: the organization's My Domain URL. `bypass_user`: act as the agent's own user, not as that of the token.

    `title` and `about` are for the card, since the API tells of neither.
    """

    agent: str = Field(min_length=1)
    domain: str = Field(pattern=r"^https://[^/]+$")
    bypass_user: bool = False
    variables: tuple[Variable, ...] = ()
    title: str = "Agentforce"
    about: str = "An agent of Salesforce Agentforce."


class Agentforce:
    """A session is a conversation; its messages are numbered, and the numbers rise."""

    kind: ClassVar[str] = "agentforce"
    features: ClassVar[Features] = Features(streams=True, resumes=True, questions=OpenQuestions.ONE, keeps_sessions=True)
    options: ClassVar[type[VendorOptions]] = AgentforceOptions

    async def describe(self, line: Line[AgentforceOptions]) -> AgentFacts:
        """The API has no word for it."""
        return AgentFacts(line.options.title, line.options.about)

    async def run(self, turn: Turn, line: Line[AgentforceOptions]) -> AsyncIterator[Event]:
        text = _text(turn)
        ref = turn.ref or VendorRef()
        session, number = ref.context_id or await _begun(turn, line), int((ref.kept or {}).get("sequence", 0)) + 1
        yield Ref(VendorRef(session, kept={"sequence": number}))
        message = {"sequenceId": number, "type": "Text", "text": text}
        if turn.answers:
            message["inReplyToMessageId"] = turn.answers[0].prompt.id
        path = f"/sessions/{quoted(session)}/messages" + ("/stream" if turn.stream else "")
        frames = line.frames(Request("POST", path, {"message": message, "variables": []}))
        reader = MessageReader()
        async with aclosing(read(reader, frames)) as events:
            async for event in events:
                if reader.session_ended and isinstance(event, ENDINGS):
                    yield Ref(VendorRef(session, over=True))
                yield event

    async def cancel(self, ref: VendorRef, line: Line[AgentforceOptions]) -> CancelOutcome:
        """Only a whole session can be ended."""
        return CancelOutcome.UNSUPPORTED


async def _begun(turn: Turn, line: Line[AgentforceOptions]) -> str:
    """A new session; its greeting is no answer."""
    options = line.options
    body = {
        "externalSessionKey": turn.session,
        "instanceConfig": {"endpoint": options.domain},
        "streamingCapabilities": {"chunkTypes": ["Text"]},
        "bypassUser": options.bypass_user,
        "variables": [each.model_dump() for each in options.variables],
    }
    return str((await line.json(Request("POST", f"/agents/{quoted(options.agent)}/sessions", body)))["sessionId"])


def _text(turn: Turn) -> str:
    """Whatever is said is a text. Raises AgentFault for files."""
    if turn.answers:
        return "\n".join(_words(each.value) for each in turn.answers)
    parts = turn.message.parts
    if any(isinstance(part.raw, str) or isinstance(part.url, str) for part in parts):
        raise not_taken("a file", NO_FILES)
    return "\n".join(part.text if isinstance(part.text, str) else as_text(part.data) for part in parts)


def _words(value: Any) -> str:
    return ("Yes" if value else "No") if isinstance(value, bool) else as_text(value)


_: type[Vendor] = Agentforce
