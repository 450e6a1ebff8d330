"""Amazon Bedrock Agents through InvokeAgent: chunks, files, citations; returned control becomes prompts."""

import base64
import codecs
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from msgspec import UNSET

from adapters.contract import (
    CITATIONS_KEY,
    Answer,
    ArtifactPiece,
    Ask,
    Done,
    Event,
    Failed,
    Prompt,
    PromptKind,
    RefLearned,
    Turn,
    VendorRef,
    token_usage_metadata,
)
from adapters.task import Artifact, Part
from adapters.vendors.aws.eventstream import CONTENT_TYPE, EVENTSTREAM_DECODERS
from adapters.vendors.aws.signing import AwsOptions, sign_request
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import fault_for_status
from adapters.vendors.sdk.frames import End, EventMessage, Frame, parse_json

ANSWER: Final = "answer"
BOOLEAN_SCHEMA: Final = {"type": "boolean"}
DECISION_SCHEMA: Final = {"type": "object", "properties": {"approved": BOOLEAN_SCHEMA, "result": {}}, "required": ["approved"]}
PROMPT_SHAPES: Final = {  # by what the agent waits for
    "RESULT": (None, PromptKind.INPUT),
    "USER_CONFIRMATION": (BOOLEAN_SCHEMA, PromptKind.APPROVAL),
    "USER_CONFIRMATION_AND_RESULT": (DECISION_SCHEMA, PromptKind.APPROVAL),
}
EXCEPTION_STATUSES: Final = {  # of exceptions in the stream; any other is the agent's failure
    "accessDeniedException": 403,
    "conflictException": 409,
    "modelNotReadyException": 429,
    "resourceNotFoundException": 404,
    "serviceQuotaExceededException": 429,
    "throttlingException": 429,
    "validationException": 400,
}


class BedrockOptions(AwsOptions):
    """Options. `agent` and `alias`: ids. `memory`: the agent remembers each person. `traces`: request traces, which have the usage."""

    agent: str
    alias: str
    memory: bool = False
    traces: bool = False


class Bedrock:
    """The Bedrock vendor: a session is a conversation, with an id by the gateway. Runs have no ids, and can't be stopped."""

    kind: ClassVar[str] = "bedrock"
    features: ClassVar[Features] = Features(streams=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = BedrockOptions

    async def describe(self, connection: VendorConnection[BedrockOptions]) -> AgentFacts:
        """Returns the agent's id. Does not query AWS: another service with other permissions describes agents."""
        return AgentFacts(connection.options.agent, f"The Bedrock agent {connection.options.agent}.")

    async def run(self, turn: Turn, connection: VendorConnection[BedrockOptions]) -> AsyncIterator[Event]:
        options = connection.options
        yield RefLearned(VendorRef(turn.session))
        session = (
            f"/agents/{quote_segment(options.agent)}/agentAliases/{quote_segment(options.alias)}/sessions/{quote_segment(turn.session)}"
        )
        request = Request("POST", f"{session}/text", _body(turn, connection), headers={"accept": CONTENT_TYPE})
        frames = connection.stream_frames(await sign_request(request, connection, "bedrock"), EVENTSTREAM_DECODERS)
        async with aclosing(read_events(BedrockReader(), frames)) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[BedrockOptions]) -> CancelOutcome:
        return CancelOutcome.UNSUPPORTED


def _body(turn: Turn, connection: VendorConnection[BedrockOptions]) -> dict[str, Any]:
    body: dict[str, Any] = {"enableTrace": True} if connection.options.traces else {}
    if turn.stream:
        body["streamingConfigurations"] = {"streamFinalResponse": True}
    if connection.options.memory:
        body["memoryId"] = connection.user
    if turn.answers:
        results = [_result(answer) for answer in turn.answers]
        invocation = turn.answers[0].prompt.token["invocation"]
        return body | {"sessionState": {"invocationId": invocation, "returnControlInvocationResults": results}}
    parts = turn.message.parts
    files = [_file(part) for part in parts if isinstance(part.raw, str)]
    text = "\n".join(_text(part) for part in parts if not isinstance(part.raw, str))
    return body | {"inputText": text} | ({"sessionState": {"files": files}} if files else {})


def _text(part: Part) -> str:
    if isinstance(part.text, str):
        return part.text
    return part.url if isinstance(part.url, str) else as_text(part.data)


def _file(part: Part) -> dict[str, Any]:
    content = {"data": part.raw, "mediaType": part.media_type or "application/octet-stream"}
    return {"name": part.filename or "file", "useCase": "CHAT", "source": {"sourceType": "BYTE_CONTENT", "byteContent": content}}


def _result(answer: Answer) -> dict[str, Any]:
    """The result of a call. A denied call gets no result."""
    token, value = answer.prompt.token, answer.value
    result = dict(token["call"])
    if token["wants"] != "RESULT":
        result["confirmationState"] = "CONFIRM" if value is True or (isinstance(value, dict) and value["approved"]) else "DENY"
    if token["wants"] == "USER_CONFIRMATION_AND_RESULT":
        value = value.get("result", "")
    if token["wants"] != "USER_CONFIRMATION" and result.get("confirmationState") != "DENY":
        result["responseBody"] = {"TEXT" if token["as"] == "functionResult" else "application/json": {"body": as_text(value)}}
    return {token["as"]: result}


class BedrockReader:
    """Reads an event stream. Without an end marker, the end of a body with any output ends the turn."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._has_begun = False
        self._has_answered = False
        self._prompts: dict[str, Prompt] = {}
        self._input_and_output_tokens = [0, 0]  # of input, and of output

    def read(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, EventMessage):
            if frame.headers.get(":message-type") == "event":
                yield from self._read_event(frame.headers.get(":event-type"), parse_json(frame.payload))
            else:
                yield _failure_from_exception(frame)
        elif isinstance(frame, End):
            if self._prompts:
                yield Ask(prompts=tuple(self._prompts.values()))
            elif self._has_answered:
                yield Done(
                    metadata=token_usage_metadata(
                        input_tokens=self._input_and_output_tokens[0], output_tokens=self._input_and_output_tokens[1]
                    )
                    if any(self._input_and_output_tokens)
                    else None
                )

    def _read_event(self, kind: Any, data: Mapping[str, Any]) -> Iterator[Event]:
        match kind:
            case "chunk":
                cited = list(_citations((data.get("attribution") or {}).get("citations") or ()))
                part = Part(text=self._text.decode(base64.b64decode(data["bytes"])), metadata={CITATIONS_KEY: cited} if cited else UNSET)
                yield ArtifactPiece(Artifact(ANSWER, (part,)), append=self._has_begun, last_chunk=False)
                self._has_begun = self._has_answered = True
            case "files":
                for file in data["files"]:
                    yield ArtifactPiece(Artifact(file["name"], (Part(raw=file["bytes"], media_type=file["type"], filename=file["name"]),)))
                self._has_answered = True
            case "returnControl":
                for number, each in enumerate(data["invocationInputs"], 1):
                    prompt = _build_prompt(data["invocationId"], number, each)
                    self._prompts[prompt.id] = prompt
            case "trace":
                self._count_tokens(data.get("trace") or {})

    def _count_tokens(self, trace: Mapping[str, Any]) -> None:
        for step in trace.values():
            used = (((step or {}).get("modelInvocationOutput") or {}).get("metadata") or {}).get("usage") or {}
            self._input_and_output_tokens[0] += used.get("inputTokens", 0)
            self._input_and_output_tokens[1] += used.get("outputTokens", 0)


def _failure_from_exception(message: EventMessage) -> Failed:
    kind = str(message.headers.get(":exception-type") or message.headers.get(":error-code"))
    fault = fault_for_status(EXCEPTION_STATUSES.get(kind, 500), {}, kind.encode() + b" " + message.payload)
    return Failed(fault.public, detail=fault.detail, kind=fault.kind)  # not retryable: the agent has begun


def _build_prompt(invocation: str, number: int, invocation_input: Mapping[str, Any]) -> Prompt:
    function = invocation_input.get("functionInvocationInput")
    call = function or invocation_input["apiInvocationInput"]
    wants = call.get("actionInvocationType") or "RESULT"
    schema, kind = PROMPT_SHAPES[wants]
    same = {name: call[name] for name in ("actionGroup", "function", "apiPath", "httpMethod", "agentId") if call.get(name)}
    name = call["function"] if function else f"{call['httpMethod']} {call['apiPath']}"
    data = {**same, "parameters": {each["name"]: each.get("value") for each in call.get("parameters") or ()}}
    if call.get("requestBody"):
        data["requestBody"] = call["requestBody"]
    token = {"invocation": invocation, "as": "functionResult" if function else "apiResult", "wants": wants, "call": same}
    text = f"What does {name} answer?" if kind is PromptKind.INPUT else f"Approve {name}?"
    return Prompt(f"{invocation}.{number}", text, data, schema, kind, token=token)


def _citations(citations: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for citation in citations:
        for reference in citation.get("retrievedReferences") or ():
            places = [place for place in (reference.get("location") or {}).values() if isinstance(place, dict)]
            url = next((place[name] for place in places for name in ("uri", "url") if place.get(name)), None)
            found = {"url": url, "text": (reference.get("content") or {}).get("text")}
            if any(found.values()):
                yield {name: value for name, value in found.items() if value}


_: type[Vendor] = Bedrock
