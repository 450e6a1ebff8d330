"""Bedrock Agents: what the recordings do not show, from the service's model."""

import base64
from typing import Any

import pytest

from adapters.contract import CITATIONS_KEY, USAGE_KEY, Answer, ArtifactPiece, Ask, Done, Event, Failed, PromptKind, VendorRef
from adapters.vendors.sdk.agent import CancelOutcome
from adapters.vendors.sdk.faults import AGENT_BUSY, AGENT_REFUSES
from tests.adapters.hand_written import asked, canceled, described
from tests.fakes.aws import chunk, message

UPSTREAM = {"agent": "A1", "alias": "B1"}
PATH = "/agents/A1/agentAliases/B1/sessions/5f0c2a52-0000-5000-8000-000000000001/text"


def exchange(body: Any, *messages: bytes) -> dict[str, Any]:
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    raw = base64.b64encode(b"".join(messages)).decode()
    request = {"method": "POST", "path": PATH, "json": body}
    return {"seq": 0, "request": request, "response": {"status": 200, "headers": headers, "base64": raw}}


async def told(*messages: bytes, upstream: Any = UPSTREAM, body: Any = None, **turn: Any) -> list[Event]:
    return await asked("bedrock", upstream, [exchange(body, *messages)], **turn)


def control(*inputs: Any) -> bytes:
    return message("returnControl", {"invocationId": "inv-1", "invocationInputs": list(inputs)})


def function(wants: str, name: str = "refund") -> dict[str, Any]:
    call = {"actionGroup": "money", "function": name, "actionInvocationType": wants, "parameters": [{"name": "n", "value": "1"}]}
    return {"functionInvocationInput": call}


API = {
    "apiInvocationInput": {
        "actionGroup": "orders",
        "apiPath": "/orders",
        "httpMethod": "GET",
        "actionInvocationType": "RESULT",
        "requestBody": {"content": {}},
    }
}


async def test_several_calls_are_several_prompts_and_their_results_go_back_together() -> None:
    events = await told(control(function("RESULT"), API, function("USER_CONFIRMATION_AND_RESULT", "pay")))
    assert isinstance(events[-1], Ask)
    prompts = events[-1].prompts
    assert [(prompt.id, prompt.kind) for prompt in prompts] == [
        ("inv-1.1", PromptKind.INPUT),
        ("inv-1.2", PromptKind.INPUT),
        ("inv-1.3", PromptKind.APPROVAL),
    ]
    results = [
        {"functionResult": {"actionGroup": "money", "function": "refund", "responseBody": {"TEXT": {"body": '{"ok":true}'}}}},
        {
            "apiResult": {
                "actionGroup": "orders",
                "apiPath": "/orders",
                "httpMethod": "GET",
                "responseBody": {"application/json": {"body": "[1]"}},
            }
        },
        {
            "functionResult": {
                "actionGroup": "money",
                "function": "pay",
                "confirmationState": "CONFIRM",
                "responseBody": {"TEXT": {"body": "paid"}},
            }
        },
    ]
    body = {"sessionState": {"invocationId": "inv-1", "returnControlInvocationResults": results}}
    values: list[Any] = [{"ok": True}, [1], {"approved": True, "result": "paid"}]
    answers = tuple(Answer(prompt, value) for prompt, value in zip(prompts, values, strict=True))
    assert isinstance((await told(chunk("done"), body=body, answers=answers))[-1], Done)


@pytest.mark.parametrize(("wants", "value"), [("USER_CONFIRMATION", False), ("USER_CONFIRMATION_AND_RESULT", {"approved": False})])
async def test_a_denial_is_an_answer_without_a_result(wants: str, value: Any) -> None:
    (prompt,) = (await told(control(function(wants))))[-1].prompts  # type: ignore[union-attr]  # an Ask has prompts, and this is one
    egress_body = {"functionResult": {"actionGroup": "money", "function": "refund", "confirmationState": "DENY"}}
    talk = exchange({"sessionState": {"returnControlInvocationResults": [egress_body]}}, chunk("as you like"))
    assert isinstance((await asked("bedrock", UPSTREAM, [talk], answers=(Answer(prompt, value),)))[-1], Done)


async def test_citations_are_with_the_text_and_usage_with_the_task() -> None:
    reference = {"content": {"text": "30 days"}, "location": {"type": "S3", "s3Location": {"uri": "s3://docs/terms.pdf"}}}
    step = {"modelInvocationOutput": {"metadata": {"usage": {"inputTokens": 7, "outputTokens": 2}}}}
    events = await told(
        message("trace", {"trace": {"orchestrationTrace": step}}),
        message("trace", {"trace": {"postProcessingTrace": step}}),
        chunk("within 30 days", attribution={"citations": [{"retrievedReferences": [reference, {}]}]}),
        upstream={**UPSTREAM, "traces": True},
        body={"enableTrace": True},
    )
    (piece,) = [event for event in events if isinstance(event, ArtifactPiece)]
    assert piece.artifact.parts[0].metadata == {CITATIONS_KEY: [{"url": "s3://docs/terms.pdf", "text": "30 days"}]}
    assert isinstance(events[-1], Done) and events[-1].metadata == {USAGE_KEY: {"input_tokens": 14, "output_tokens": 4}}


async def test_a_letter_that_is_cut_between_chunks_is_whole() -> None:
    euro = "€".encode()
    events = await told(chunk(b"5 " + euro[:1]), chunk(euro[1:]))
    assert "".join(str(event.artifact.parts[0].text) for event in events if isinstance(event, ArtifactPiece)) == "5 €"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("throttlingException", AGENT_BUSY), ("accessDeniedException", AGENT_REFUSES), ("internalServerException", "UPSTREAM")],
)
async def test_an_exception_in_the_stream_is_a_failure_of_its_kind_even_after_output(kind: str, reason: str) -> None:
    events = await told(chunk("half of"), message(kind, {"message": "/srv/secret-folder"}, form="exception"), chunk("it"))
    ending = events[-1]
    assert isinstance(ending, Failed) and ending.kind == reason and not ending.retryable
    assert "secret-folder" not in ending.reason and "secret-folder" in ending.detail


async def test_an_answer_that_says_nothing_is_a_failure() -> None:
    assert isinstance((await told(message("trace", {"trace": {}})))[-1], Failed)


async def test_files_are_sent_and_memory_is_used_where_configured() -> None:
    source = {"sourceType": "BYTE_CONTENT", "byteContent": {"data": "YQ==", "mediaType": "text/csv"}}
    body = {
        "inputText": 'look\n{"a":1}',
        "sessionState": {"files": [{"name": "a.csv", "useCase": "CHAT", "source": source}]},
        "memoryId": "*",
    }
    parts = [{"text": "look"}, {"data": {"a": 1}}, {"raw": "YQ==", "mediaType": "text/csv", "filename": "a.csv"}]
    await told(chunk("seen"), upstream={**UPSTREAM, "memory": True}, body=body, send={"parts": parts}, ours=["*"])


async def test_an_agent_is_described_without_being_asked_and_can_t_be_stopped() -> None:
    assert (await described("bedrock", UPSTREAM, [])).name == "A1"
    assert await canceled("bedrock", UPSTREAM, [], VendorRef("s")) is CancelOutcome.UNSUPPORTED
