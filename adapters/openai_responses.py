"""OpenAI Responses, and the dialect of the Microsoft Agent Framework's DevUI: approvals, open calls and requests as prompts."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final, Literal

from adapters.chat_content import question_in
from adapters.contract import ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, Ref, Turn, VendorRef
from adapters.frames import Frame, JsonBody, SseFrame
from adapters.response_items import approval, devui_answers, is_aside, is_structured, items_of, open_call, outputs_of, result_of, usage_of
from adapters.task import Artifact, Part
from adapters.vendor import AgentFacts, CancelOutcome, Features, SkillFacts, Vendor, VendorOptions, read
from adapters.vendor_faults import FAILED
from adapters.vendor_line import Line, Request, quoted

INCOMPLETE: Final = "The agent's answer is incomplete"
FOREIGN: Final = "The agent wants something done that the gateway has no words for"
CALLS: Final = ("function_call", "custom_tool_call")  # whose results the caller gives
UNANSWERABLE: Final = ("computer_call", "local_shell_call", "apply_patch_call")


class ResponsesOptions(VendorOptions):
    """`model`: a model's name; in DevUI an entity's id. `prompt`: a stored prompt's id. `background` makes runs that can be canceled."""

    model: str
    dialect: Literal["openai", "devui"] = "openai"
    prompt: str = ""
    instructions: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    background: bool = False


class OpenAIResponses:
    """A turn is a response, which goes on from the one before it; in DevUI a conversation is an object of its own."""

    kind: ClassVar[str] = "openai-responses"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True)
    options: ClassVar[type[VendorOptions]] = ResponsesOptions

    async def describe(self, line: Line[ResponsesOptions]) -> AgentFacts:
        model = line.options.model
        if line.options.dialect == "openai":
            name = str((await line.json(Request("GET", f"/models/{quoted(model)}")))["id"])
            return AgentFacts(name, f"The model {name}.")
        about = await line.json(Request("GET", f"/entities/{quoted(model)}/info"))
        name, schema = str(about["name"] or model), about.get("input_schema") or {}
        told = str(about.get("description") or f"The {about['type']} {name}.")
        return AgentFacts(name, told, skills=(SkillFacts(name, name, told, schema=schema),) if schema.get("type") == "object" else ())

    async def run(self, turn: Turn, line: Line[ResponsesOptions]) -> AsyncIterator[Event]:
        options, session = line.options, (turn.ref or VendorRef()).context_id
        devui = options.dialect == "devui"
        if devui and not session:
            session = str((await line.json(Request("POST", "/conversations", {"metadata": {"agent_id": options.model}})))["id"])
        if session:
            yield Ref(VendorRef(session))
        body = {"metadata": {"entity_id": options.model}, "conversation": session} if devui else _called(options, session, line.user)
        streams = turn.stream or devui or options.background  # without a stream, DevUI loses questions
        body |= {"input": _input(turn, devui), "stream": streams}
        frames = line.frames(Request("POST", "/responses", body))
        async with aclosing(read(ResponseReader(session, devui), frames)) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, line: Line[ResponsesOptions]) -> CancelOutcome:
        if line.options.dialect == "openai" and not line.options.background:
            return CancelOutcome.UNSUPPORTED
        after = (await line.json(Request("POST", f"/responses/{quoted(ref.task_id)}/cancel", {})))["status"]
        late = CancelOutcome.TOO_LATE
        outcomes = {"cancelled": CancelOutcome.CANCELED, "already_completed": late, "completed": late, "failed": late, "incomplete": late}
        return outcomes.get(after, CancelOutcome.UNKNOWN)


def _called(options: ResponsesOptions, before: str, user: str) -> dict[str, Any]:
    """`before`: the response that this one goes on from."""
    said = {
        "model": options.model,
        "previous_response_id": before,
        "prompt": {"id": options.prompt} if options.prompt else None,
        "instructions": options.instructions,
        "tools": options.tools,
        "background": options.background,
        "safety_identifier": user,
    }
    return {name: value for name, value in said.items() if value}


def _input(turn: Turn, devui: bool) -> str | list[dict[str, Any]]:
    if turn.answers:
        return devui_answers(turn.answers) if devui else [result_of(each) for each in turn.answers]
    return items_of(turn.message.parts, bare=devui)


class ResponseReader:
    """Of a stream of events, or of a whole response. `session` is what the next turn goes on from, where responses are not that."""

    def __init__(self, session: str = "", devui: bool = False) -> None:
        self._session = session
        self._devui = devui
        self._run = ""
        self._structured = False
        self._aside: set[str] = set()  # items that are not the answer
        self._streamed: dict[str, str] = {}
        self._whole: set[str] = set()
        self._open: dict[str, Prompt] = {}
        self._foreign = ""

    def take(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, JsonBody):
            yield from self._ended(frame.value)
        elif isinstance(frame, SseFrame) and frame.data != "[DONE]":
            yield from self._event(frame.json())

    def _event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event:
            case {"type": "response.created" | "response.in_progress", "response": response}:
                yield from self._named(response)
            case {"type": "response.output_item.added", "item": item} if is_aside(item):
                self._aside.add(item["id"])
            case {"type": "response.output_text.delta" | "response.refusal.delta", "item_id": name, "delta": text}:
                yield from self._delta(name, text)
            case {"type": "response.output_item.done", "item": item}:
                yield from self._item(item)
            case {"type": "response.completed" | "response.failed" | "response.incomplete", "response": response}:
                yield from self._ended(response)
            case {"type": "response.function_approval.requested", "request_id": name, "function_call": call}:
                self._open[name] = approval(name, call, token=call)
            case {"type": "response.request_info.requested", "request_id": name, "request_data": data}:
                self._open[name] = Prompt(name, question_in(data), data, event.get("response_schema"))
            case _:
                yield from _broken(event)

    def _delta(self, name: str, text: str) -> Iterator[Event]:
        if name not in self._aside and not self._structured:
            yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=name in self._streamed, last_chunk=False)
            self._streamed[name] = self._streamed.get(name, "") + text

    def _named(self, response: Mapping[str, Any]) -> Iterator[Event]:
        self._structured = is_structured(response)
        if response["id"] != self._run:
            self._run = response["id"]
            yield Ref(VendorRef(self._session, self._run))

    def _ended(self, response: Mapping[str, Any]) -> Iterator[Event]:
        yield from self._named(response)
        status, error = response["status"], response.get("error")
        if status == "failed" or error:
            yield Failed(FAILED, detail=str(error))
        elif status == "cancelled":
            yield Canceled()
        elif status in ("completed", "incomplete"):
            for item in response["output"]:
                yield from self._item(item)
            if status == "completed" and not self._devui:
                yield Ref(VendorRef(self._run, self._run))
            yield self._ending(response)

    def _ending(self, response: Mapping[str, Any]) -> Event:
        if response["status"] == "incomplete":
            return Failed(INCOMPLETE, detail=str(response.get("incomplete_details")))
        if self._foreign:
            return Failed(FOREIGN, detail=self._foreign)
        if self._open:
            return Ask(prompts=tuple(self._open.values()))
        return Done(metadata=usage_of(response.get("model"), response.get("usage")))

    def _item(self, item: Mapping[str, Any]) -> Iterator[Event]:
        """Once each, though the end of a stream tells all of them again."""
        kind, name = item["type"], str(item.get("id") or item.get("call_id") or "answer")
        if name in self._whole:
            return
        self._whole.add(name)
        if kind == "mcp_approval_request":
            self._open[name] = approval(name, item)
        elif kind in CALLS and not self._devui:  # DevUI does them itself
            self._open[item["call_id"]] = open_call(item, token=kind)
        elif kind.endswith("_output"):
            self._open.pop(item.get("call_id", ""), None)
        elif kind in UNANSWERABLE:
            self._foreign = kind
        else:
            yield from outputs_of(name, item, self._streamed, self._structured)


def _broken(event: Mapping[str, Any]) -> Iterator[Event]:
    """What else ends a stream; most events are for those who watch a model."""
    match event:
        case {"type": "response.cancelled"}:
            yield Canceled()
        case {"type": "error"}:
            yield Failed(FAILED, detail=str(event.get("message")))
        case {"error": error} if "type" not in event:
            yield Failed(FAILED, detail=str(error))


_: type[Vendor] = OpenAIResponses
