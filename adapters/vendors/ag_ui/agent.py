"""AG-UI: a run is one POST with an event stream; each run gets the conversation, the answers to interrupts and the results of calls."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, ClassVar, Final

import msgspec
from pydantic import BaseModel

from adapters.contract import Ask, Done, Event, RefLearned, Turn, VendorRef
from adapters.vendors.ag_ui.reader import AgUiReader
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import content_with_sources, recent_messages
from adapters.vendors.sdk.connection import Request, VendorConnection

HISTORY_MAX: Final = 32_000  # characters of the conversation that are sent with the next run
Json = dict[str, Any]


class AgUiTool(BaseModel, extra="forbid", strict=True, frozen=True):
    """A tool that the agent may call and that people answer."""

    name: str
    description: str
    parameters: dict[str, Any] = {}


class AgUiOptions(VendorOptions):
    """Options of an AG-UI agent. `path`: below the URL, for example where that needs a trailing slash. `title` and `about` are for the
    card.
    """

    path: str = ""
    title: str = "AG-UI agent"
    about: str = "An agent that speaks AG-UI."
    tools: tuple[AgUiTool, ...] = ()


class AgUi:
    """The AG-UI vendor: the gateway makes the ids of threads and runs. The agent need not store anything."""

    kind: ClassVar[str] = "ag-ui"
    features: ClassVar[Features] = Features(streams=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = AgUiOptions

    async def describe(self, connection: VendorConnection[AgUiOptions]) -> AgentFacts:
        """Returns the configured description. Any response to HEAD shows that the server is up; Express responds with 404."""
        await connection.request(Request("HEAD", connection.options.path, accepted_statuses=(400, 404, 405, 406, 411, 415, 422, 501)))
        return AgentFacts(connection.options.title, connection.options.about)

    async def run(self, turn: Turn, connection: VendorConnection[AgUiOptions]) -> AsyncIterator[Event]:
        kept = (turn.ref.kept if turn.ref else None) or {}
        messages = [*kept.get("messages", ()), *_new_messages(turn)]
        run = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{turn.session} {turn.message.message_id} {len(messages)}"))
        body = {"threadId": turn.session, "runId": run, "state": kept.get("state") or {}, "messages": messages, "context": []}
        body |= {"tools": [each.model_dump() for each in connection.options.tools], "forwardedProps": {}}
        resume = [
            {"interruptId": each.prompt.id, "status": "resolved", "payload": each.value} for each in turn.answers if not each.prompt.token
        ]
        yield RefLearned(VendorRef(turn.session, run, kept=kept))
        frames = connection.stream_frames(Request("POST", connection.options.path, {**body, **({"resume": resume} if resume else {})}))
        reader = AgUiReader([each.name for each in connection.options.tools], [str(each["id"]) for each in messages])
        async with aclosing(read_events(reader, frames)) as events:
            async for event in events:
                if isinstance(event, Ask | Done):
                    answers = [{"id": name, "role": "assistant", "content": text} for name, text in reader.texts.items()]
                    state = reader.state if len(_json(reader.state)) <= HISTORY_MAX else None
                    yield RefLearned(
                        VendorRef(turn.session, run, kept={"messages": recent_messages([*messages, *answers], HISTORY_MAX), "state": state})
                    )
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[AgUiOptions]) -> CancelOutcome:
        """Returns UNSUPPORTED: the protocol has no cancel; a run ends with its connection."""
        return CancelOutcome.UNSUPPORTED


def _new_messages(turn: Turn) -> Iterator[Json]:
    """Yields the turn's messages: answers to interrupts are none; answers to calls are results after the message that called."""
    calls = [each.prompt.token for each in turn.answers if each.prompt.token]
    if calls:
        yield {"id": f"{turn.message.message_id}-calls", "role": "assistant", "toolCalls": calls}
    for each in turn.answers:
        if each.prompt.token:
            content = each.value if isinstance(each.value, str) else _json(each.value)
            yield {"id": f"{turn.message.message_id}-{each.prompt.id}", "role": "tool", "toolCallId": each.prompt.id, "content": content}
    if not turn.answers:
        yield {"id": turn.message.message_id, "role": "user", "content": content_with_sources(turn.message.parts)}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_: type[Vendor] = AgUi
