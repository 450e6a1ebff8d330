"""Chat completions, as OpenAI, vLLM, watsonx, Databricks and model gateways offer them: the gateway stores the conversation."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from msgspec import UNSET
from pydantic import Field, field_validator

from adapters.contract import Ask, Done, Event, RefLearned, Turn, VendorRef
from adapters.task import Part
from adapters.vendors.openai.chat_reader import ChatReader
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import as_text, recent_messages
from adapters.vendors.sdk.connection import Request, VendorConnection

HISTORY_MAX: Final = 32_000  # characters of the conversation that are sent with the next turn
RESERVED_MEMBERS: Final = frozenset({"messages", "model", "stream", "stream_options", "tools"})
AUDIO_FORMATS: Final = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav"}  # formats with another name in media types
NO_MODEL_LIST_STATUSES: Final = (400, 404, 405, 501)  # statuses of servers without a list of models
EMPTY: Final[Mapping[str, Any]] = {}
Json = dict[str, Any]


class OpenAIChatOptions(VendorOptions):
    """Options of a model behind chat completions.

    `path` is below the URL, and `query` has its parameters, such as `api-version`. `parameters` are members of every request, such as
    `temperature`. `tools` are functions that people answer. `history`: send the conversation with each turn. `session` names a header for
    the conversation's id, `person` the member for the person's; an empty name sends neither. `usage`: request the usage in streams, which
    some servers refuse. `title` and `about` are for the card.
    """

    model: str = ""
    path: str = Field("/chat/completions", pattern=r"^/[!-~]*$")
    query: Mapping[str, str] = EMPTY
    instructions: str = ""
    parameters: Mapping[str, Any] = EMPTY
    tools: tuple[dict[str, Any], ...] = ()
    history: bool = True
    streams: bool = True
    usage: bool = True
    session: str = Field("", pattern=r"^[A-Za-z0-9-]*$")
    person: str = "user"
    title: str = ""
    about: str = ""

    @field_validator("parameters")
    @classmethod
    def _check_not_reserved(cls, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := sorted(RESERVED_MEMBERS & parameters.keys()):
            raise ValueError(f"must not have {', '.join(taken)}, which the gateway sets")
        return parameters


class OpenAIChat:
    """The chat completions vendor: a turn is one request with the conversation. The server stores nothing."""

    kind: ClassVar[str] = "openai-chat"
    features: ClassVar[Features] = Features(streams=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = OpenAIChatOptions

    async def describe(self, connection: VendorConnection[OpenAIChatOptions]) -> AgentFacts:
        """Returns the configured description. Requests the list of models only to check that the server accepts the credential."""
        options = connection.options
        await connection.request(Request("GET", _with_query("/models", options.query), accepted_statuses=NO_MODEL_LIST_STATUSES))
        name = options.title or options.model or "chat"
        return AgentFacts(name, options.about or f"The model {options.model or name}.")

    async def run(self, turn: Turn, connection: VendorConnection[OpenAIChatOptions]) -> AsyncIterator[Event]:
        options, kept_values = connection.options, (turn.ref.kept if turn.ref else UNSET) or EMPTY
        earlier_messages: list[Json] = list(kept_values.get("messages", ())) if options.history else []
        messages = [*(earlier_messages if turn.answers else without_open_calls(earlier_messages)), *_new_messages(turn)]
        yield RefLearned(VendorRef(turn.session, kept=kept_values))
        streams = turn.stream and options.streams
        headers = {options.session: turn.session} if options.session else {}
        path = _with_query(options.path, options.query)
        frames = connection.stream_frames(
            Request("POST", path, _body(options, messages, streams, connection.user), headers, accepted_statuses=(400,))
        )
        reader = ChatReader(is_structured=_is_structured(options.parameters))
        async with aclosing(read_events(reader, frames)) as events:
            async for event in events:
                if isinstance(event, Ask | Done) and options.history:
                    yield RefLearned(
                        VendorRef(turn.session, kept={"messages": recent_messages([*messages, reader.message()], HISTORY_MAX)})
                    )
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[OpenAIChatOptions]) -> CancelOutcome:
        """Returns UNSUPPORTED: the API has no cancel; a request ends with its connection."""
        return CancelOutcome.UNSUPPORTED


def without_open_calls(messages: Sequence[Json]) -> list[Json]:
    """The conversation without a last, unanswered call of tools, since servers refuse a message after one."""
    last = max((place for place, each in enumerate(messages) if each["role"] == "assistant"), default=-1)
    if last < 0 or not messages[last].get("tool_calls"):
        return list(messages)
    answered = {each.get("tool_call_id") for each in messages[last + 1 :]}
    return list(messages if {call["id"] for call in messages[last]["tool_calls"]} <= answered else messages[:last])


def _new_messages(turn: Turn) -> list[Json]:
    if turn.answers:
        return [{"role": "tool", "tool_call_id": each.prompt.id, "content": as_text(each.value)} for each in turn.answers]
    blocks = [_block(part) for part in turn.message.parts]
    alone = len(blocks) == 1 and blocks[0]["type"] == "text"
    return [{"role": "user", "content": blocks[0]["text"] if alone else blocks}]


def _block(part: Part) -> Json:
    if isinstance(part.text, str):
        return {"type": "text", "text": part.text}
    form, _, kind = part.media_type.partition("/")
    if isinstance(part.raw, str) and form == "audio":
        return {"type": "input_audio", "input_audio": {"data": part.raw, "format": AUDIO_FORMATS.get(kind, kind)}}
    if isinstance(part.raw, str) or isinstance(part.url, str):
        url = part.url if isinstance(part.url, str) else f"data:{part.media_type or 'application/octet-stream'};base64,{part.raw}"
        if form == "image":
            return {"type": "image_url", "image_url": {"url": url}}
        if isinstance(part.raw, str):
            return {"type": "file", "file": {"filename": part.filename or "file", "file_data": url}}
        return {"type": "text", "text": url}
    return {"type": "text", "text": as_text(part.data)}


def _body(options: OpenAIChatOptions, messages: list[Json], streams: bool, user: str) -> Json:
    system = [{"role": "system", "content": options.instructions}] if options.instructions else []
    known: Json = {
        "model": options.model,
        "tools": options.tools,
        options.person: user,
        "stream_options": {"include_usage": True} if streams and options.usage else None,
    }
    own_members = {name: value for name, value in known.items() if name and value}
    return {**options.parameters, **own_members, "messages": [*system, *messages], "stream": streams}


def _is_structured(parameters: Mapping[str, Any]) -> bool:
    """Whether the operator requested answers in JSON."""
    wanted = parameters.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_schema", "json_object")


def _with_query(path: str, query: Mapping[str, str]) -> str:
    return f"{path}{'&' if '?' in path else '?'}{urlencode(query)}" if query else path


_: type[Vendor] = OpenAIChat
