"""OpenAI Responses, and the dialect of the Microsoft Agent Framework's DevUI: approvals, open calls and requests become prompts."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final, Literal

import structlog
from msgspec.structs import replace

from adapters.contract import ENDINGS, AgentFault, CannotReattach, Event, PromptKind, RefLearned, Turn, VendorRef
from adapters.vendors.openai.devui_reader import DevUiReader
from adapters.vendors.openai.items import answer_item, devui_answer_items, input_items
from adapters.vendors.openai.response_reader import ResponseReader, poll_response
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, SkillFacts, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import NOT_ACCEPTED_TEXT, UNKNOWN_RESOURCE_TEXT

NO_SUCH_MODEL_CODE: Final = "model_not_found"  # the code of OpenAI's 404 for an unknown model
log = structlog.get_logger()


class OpenAIResponsesOptions(VendorOptions):
    """Options. `model`: a model's name; in DevUI an entity's id. `prompt`: a stored prompt's id. `background`: runs can be canceled."""

    model: str
    dialect: Literal["openai", "devui"] = "openai"
    prompt: str = ""
    instructions: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    background: bool = False

    def narrow_features(self, features: Features) -> Features:
        return replace(features, shares_questions=self.dialect == "devui")


class OpenAIResponses:
    """The Responses vendor: a turn is a response that continues the previous one; DevUI has conversations.

    A response with open calls accepts only their results: until then the conversation stays at the previous response.
    """

    kind: ClassVar[str] = "openai-responses"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = OpenAIResponsesOptions

    async def describe(self, connection: VendorConnection[OpenAIResponsesOptions]) -> AgentFacts:
        model = connection.options.model
        if connection.options.dialect == "openai":
            name = await _model_name(connection)
            return AgentFacts(name, f"The model {name}.")
        entity = await connection.request_json(Request("GET", f"/entities/{quote_segment(model)}/info"))
        name, schema = str(entity["name"] or model), entity.get("input_schema") or {}
        description = str(entity.get("description") or f"The {entity['type']} {name}.")
        return AgentFacts(
            name, description, skills=(SkillFacts(name, name, description, schema=schema),) if schema.get("type") == "object" else ()
        )

    async def run(self, turn: Turn, connection: VendorConnection[OpenAIResponsesOptions]) -> AsyncIterator[Event]:
        options, ref = connection.options, turn.ref or VendorRef()
        session, previous_response_id = ref.context_id, ref.task_id if turn.answers else ref.context_id
        devui = options.dialect == "devui"
        if devui and not session:
            session = str(
                (await connection.request_json(Request("POST", "/conversations", {"metadata": {"agent_id": options.model}})))["id"]
            )
        if session:
            yield RefLearned(VendorRef(session))
        body = (
            {"metadata": {"entity_id": options.model}, "conversation": session}
            if devui
            else _model_body(options, previous_response_id, connection.user)
        )
        streams = turn.stream or devui or options.background  # DevUI loses questions without a stream
        body |= {"input": _input(turn, devui), "stream": streams}
        frames = connection.stream_frames(Request("POST", "/responses", body))
        requested = any(answer.prompt.kind is not PromptKind.APPROVAL for answer in turn.answers)
        reader = DevUiReader(session, requested) if devui else ResponseReader(session)
        async with aclosing(read_events(reader, frames)) as events:
            async for event in events:
                if isinstance(reader, DevUiReader) and reader.dropped_requests and type(event) in ENDINGS:
                    log.warning("question_dropped", url=connection.url, conversation=session, requests=reader.dropped_requests)
                yield event

    async def reattach(self, ref: VendorRef, connection: VendorConnection[OpenAIResponsesOptions]) -> AsyncIterator[Event]:
        """Polls a background response. Raises CannotReattach for any other one, which ended with its connection."""
        if connection.options.dialect != "openai" or not connection.options.background:
            raise CannotReattach
        async with aclosing(poll_response(ref, connection, f"/responses/{quote_segment(ref.task_id)}")) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[OpenAIResponsesOptions]) -> CancelOutcome:
        """Cancels a background response. A response that waits has ended; in DevUI its question stays in the conversation."""
        if ref.prompts:
            return CancelOutcome.CANCELED if connection.options.dialect == "openai" else CancelOutcome.UNSUPPORTED
        if connection.options.dialect == "openai" and not connection.options.background:
            return CancelOutcome.UNSUPPORTED
        after = (await connection.request_json(Request("POST", f"/responses/{quote_segment(ref.task_id)}/cancel", {})))["status"]
        late = CancelOutcome.TOO_LATE
        outcomes = {"cancelled": CancelOutcome.CANCELED, "already_completed": late, "completed": late, "failed": late, "incomplete": late}
        return outcomes.get(after, CancelOutcome.UNKNOWN)


def _model_body(options: OpenAIResponsesOptions, previous_response_id: str, user: str) -> dict[str, Any]:
    """The body of a request. `previous_response_id`: the response that this one continues."""
    members = {
        "model": options.model,
        "previous_response_id": previous_response_id,
        "prompt": {"id": options.prompt} if options.prompt else None,
        "instructions": options.instructions,
        "tools": options.tools,
        "background": options.background,
        "safety_identifier": user,
    }
    return {name: value for name, value in members.items() if value}


async def _model_name(connection: VendorConnection[OpenAIResponsesOptions]) -> str:
    """The model's id by its server. A server may not support the request: then the configured name is used.

    Raises UpstreamFault, also where the server does not know the model.
    """
    model = connection.options.model
    try:
        model_info = await connection.request_json(Request("GET", f"/models/{quote_segment(model)}"))
    except AgentFault as fault:
        if fault.public not in (UNKNOWN_RESOURCE_TEXT, NOT_ACCEPTED_TEXT) or NO_SUCH_MODEL_CODE in fault.detail:
            raise
        return model
    return str(model_info["id"])


def _input(turn: Turn, devui: bool) -> str | list[dict[str, Any]]:
    if turn.answers:
        return devui_answer_items(turn.answers) if devui else [answer_item(each) for each in turn.answers]
    return input_items(turn.message.parts, bare_base64=devui)


_: type[Vendor] = OpenAIResponses
