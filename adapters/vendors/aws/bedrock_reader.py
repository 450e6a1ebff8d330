"""Reads the event stream of InvokeAgent: chunks, files, citations and token usage; returned control becomes prompts."""

import base64
import codecs
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import UNSET

from adapters.contract import CITATIONS_KEY, ArtifactPiece, Ask, Done, Event, Failed, Prompt, PromptKind, token_usage_metadata
from adapters.task import Artifact, Part
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


class BedrockReader:
    """Reads an event stream. Without an end marker, the end of a body with any output ends the turn."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._has_begun = False
        self._has_answered = False
        self._prompts: dict[str, Prompt] = {}
        self._input_tokens = self._output_tokens = 0

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
                has_usage = bool(self._input_tokens or self._output_tokens)
                usage = token_usage_metadata(input_tokens=self._input_tokens, output_tokens=self._output_tokens)
                yield Done(metadata=usage if has_usage else None)

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
            self._input_tokens += used.get("inputTokens", 0)
            self._output_tokens += used.get("outputTokens", 0)


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
