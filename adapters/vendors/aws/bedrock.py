"""Amazon Bedrock Agents through InvokeAgent: a session is a conversation; answers to prompts are results of returned control."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar

from adapters.contract import Answer, Event, RefLearned, Turn, VendorRef
from adapters.task import Part
from adapters.vendors.aws.bedrock_reader import BedrockReader
from adapters.vendors.aws.eventstream import CONTENT_TYPE, EVENTSTREAM_DECODERS
from adapters.vendors.aws.signing import AwsOptions, sign_request
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment


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
    told = dict(token["call"])
    if token["wants"] != "RESULT":
        told["confirmationState"] = "CONFIRM" if value is True or (isinstance(value, dict) and value["approved"]) else "DENY"
    if token["wants"] == "USER_CONFIRMATION_AND_RESULT":
        value = value.get("result", "")
    if token["wants"] != "USER_CONFIRMATION" and told.get("confirmationState") != "DENY":
        told["responseBody"] = {"TEXT" if token["as"] == "functionResult" else "application/json": {"body": as_text(value)}}
    return {token["as"]: told}


_: type[Vendor] = Bedrock
