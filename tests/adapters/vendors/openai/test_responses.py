"""OpenAI Responses: what its recordings do not show."""

from typing import Any

import pytest

from adapters.contract import AgentFault, Answer, ArtifactPiece, Ask, Done, Failed, Prompt, PromptKind, RefLearned, VendorRef
from adapters.task import text_of
from adapters.vendors.sdk.agent import CancelOutcome
from tests.adapters.hand_written import asked, canceled, described, exchange

PLAIN = {"model": "gpt-5"}
DEVUI = {"model": "flow", "dialect": "devui"}


def response(name: str, output: list[Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "status": "completed", "error": None, "output": output, **more}


async def test_a_turn_continues_the_previous_response_under_a_pseudonym() -> None:
    body = {"model": "gpt-5", "input": "hello", "previous_response_id": "resp_1", "safety_identifier": "*"}
    talk = [exchange("POST", "/responses", body, json=response("resp_2", []))]
    events = await asked("openai-responses", PLAIN, talk, ref=VendorRef("resp_1"), stream=False, ours=["*"])
    assert [event.ref for event in events if isinstance(event, RefLearned)] == [
        VendorRef("resp_1"),
        VendorRef("resp_1", "resp_2"),
        VendorRef("resp_2", "resp_2"),
    ]


async def test_a_failed_turn_leaves_the_conversation_where_it_was() -> None:
    talk = [exchange("POST", "/responses", None, json={**response("resp_2", []), "status": "failed", "error": {"code": "server_error"}})]
    events = await asked("openai-responses", PLAIN, talk, ref=VendorRef("resp_1"), stream=False)
    assert [event.ref.context_id for event in events if isinstance(event, RefLearned)] == ["resp_1", "resp_1"]


async def test_an_answer_continues_the_asking_response_and_a_new_task_the_previous_one() -> None:  # attack HIT-01
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "pay", "arguments": "{}"}
    talk = [exchange("POST", "/responses", {"previous_response_id": "resp_1"}, json=response("resp_2", [call]))]
    asking = await asked("openai-responses", PLAIN, talk, ref=VendorRef("resp_1"), stream=False)
    assert isinstance(asking[-1], Ask)
    ref = next(event.ref for event in reversed(asking) if isinstance(event, RefLearned))
    assert ref == VendorRef("resp_1", "resp_2")
    output = {"type": "function_call_output", "call_id": "call_1", "output": "paid"}
    talk = [exchange("POST", "/responses", {"previous_response_id": "resp_2", "input": [output]}, json=response("resp_3", []))]
    answers = (Answer(asking[-1].prompts[0], "paid"),)
    events = await asked("openai-responses", PLAIN, talk, ref=ref, answers=answers, stream=False)
    assert [event.ref for event in events if isinstance(event, RefLearned)][-1] == VendorRef("resp_3", "resp_3")


@pytest.mark.parametrize(
    ("item", "next_from"),
    [
        ({"type": "shell_call", "id": "sh", "call_id": "c", "environment": {"type": "local"}}, "resp_1"),
        ({"type": "tool_search_call", "id": "ts", "call_id": None, "execution": "client"}, "resp_1"),
        ({"type": "tool_search_call", "id": "ts", "call_id": None, "execution": "server"}, "resp_2"),
    ],
)
async def test_a_response_with_a_call_that_nobody_answers_is_not_gone_on_from(item: dict[str, Any], next_from: str) -> None:
    talk = [exchange("POST", "/responses", None, json=response("resp_2", [item]))]
    events = await asked("openai-responses", PLAIN, talk, ref=VendorRef("resp_1"), stream=False)
    assert [event.ref.context_id for event in events if isinstance(event, RefLearned)][-1] == next_from
    assert isinstance(events[-1], Failed) == (next_from == "resp_1")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_the_words_of_a_rejected_task_and_no_artifact(stream: bool) -> None:
    message = {"id": "m", "type": "message", "content": [{"type": "refusal", "refusal": "I won't."}]}
    events = [{"type": "response.refusal.delta", "item_id": "m", "delta": "I won"}, {"type": "response.refusal.delta", "delta": "'t."}]
    ending = {"type": "response.completed", "response": response("resp_1", [message])}
    answer: dict[str, Any] = {"sse": [*events, ending]} if stream else {"json": ending["response"]}
    found = await asked("openai-responses", PLAIN, [exchange("POST", "/responses", None, **answer)], stream=stream)
    assert isinstance(found[-1], Failed) and found[-1].rejected and found[-1].message is not None
    assert text_of(found[-1].message.parts) == "I won't." and not any(isinstance(event, ArtifactPiece) for event in found)


@pytest.mark.parametrize(
    ("dialect", "status", "outcome"),
    [
        ("devui", "cancelled", CancelOutcome.CANCELED),
        ("devui", "already_completed", CancelOutcome.TOO_LATE),
        ("devui", "not_found", CancelOutcome.UNKNOWN),
        ("openai", "cancelled", CancelOutcome.CANCELED),
        ("openai", "completed", CancelOutcome.TOO_LATE),
        ("openai", "in_progress", CancelOutcome.UNKNOWN),
    ],
)
async def test_a_cancellation_is_what_the_answer_says(dialect: str, status: str, outcome: CancelOutcome) -> None:
    talk = [exchange("POST", "/responses/resp_1/cancel", json={"status": status})]
    upstream = {"model": "gpt-5", "dialect": dialect, "background": True}
    assert await canceled("openai-responses", upstream, talk, VendorRef("", "resp_1")) is outcome


async def test_a_foreground_response_cannot_be_canceled_and_no_request_is_sent() -> None:
    assert await canceled("openai-responses", PLAIN, [], VendorRef("", "resp_1")) is CancelOutcome.UNSUPPORTED


@pytest.mark.parametrize(
    ("kind", "upstream", "outcome"),
    [
        ("openai-responses", {**PLAIN, "background": True}, CancelOutcome.CANCELED),
        ("foundry", {"background": True}, CancelOutcome.CANCELED),
        ("openai-responses", DEVUI, CancelOutcome.UNSUPPORTED),  # the conversation keeps the question
    ],
    ids=["openai", "foundry", "devui"],
)
async def test_a_response_that_asks_is_canceled_by_not_going_on_from_it(
    kind: str, upstream: dict[str, Any], outcome: CancelOutcome
) -> None:
    assert await canceled(kind, upstream, [], VendorRef("resp_1", "resp_2", prompts=(Prompt("call_1"),))) is outcome


async def test_a_response_in_the_background_is_watched_as_a_stream() -> None:
    talk = [
        exchange(
            "POST",
            "/responses",
            {"background": True, "stream": True, "prompt": {"id": "pmpt_1"}},
            sse=[
                {"type": "response.created", "response": {"id": "resp_1", "status": "queued", "output": []}},
                {"type": "response.completed", "response": response("resp_1", [])},
            ],
        )
    ]
    events = await asked("openai-responses", {**PLAIN, "background": True, "prompt": "pmpt_1"}, talk, stream=False)
    assert isinstance(events[-1], Done)


async def test_a_denial_and_the_answers_of_a_workflow_go_in_one_message() -> None:
    denied = Answer(Prompt("af-1", kind=PromptKind.APPROVAL, token={"id": "call_1", "name": "refund"}), False)
    told = Answer(Prompt("req-1", schema={"type": "object"}), {"amount": 3})
    content = [
        {
            "type": "function_approval_response",
            "request_id": "af-1",
            "approved": False,
            "function_call": {"id": "call_1", "name": "refund"},
        },
        {"type": "workflow_hil_response", "responses": {"req-1": {"response": {"amount": 3}}}},
    ]
    body = {"conversation": "conv_1", "input": [{"type": "message", "role": "user", "content": content}], "stream": True}
    talk = [exchange("POST", "/responses", body, sse=[{"type": "response.completed", "response": response("resp_1", [])}])]
    events = await asked("openai-responses", DEVUI, talk, ref=VendorRef("conv_1"), answers=(denied, told))
    assert isinstance(events[-1], Done)


async def test_files_and_data_reach_the_model_as_blocks() -> None:
    parts = [
        {"data": {"a": 1}},
        {"raw": "YQ==", "mediaType": "text/plain", "filename": "a.txt"},
        {"url": "https://files.example/b.pdf", "mediaType": "application/pdf"},
    ]
    content = [
        {"type": "input_text", "text": '{"a":1}'},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,YQ=="},
        {"type": "input_file", "file_url": "https://files.example/b.pdf"},
    ]
    body = {"input": [{"type": "message", "role": "user", "content": content}]}
    talk = [exchange("POST", "/responses", body, json=response("resp_1", []))]
    await asked("openai-responses", PLAIN, talk, send={"parts": parts}, stream=False)


async def test_a_file_is_bare_base64_in_devui() -> None:
    content = [{"type": "input_file", "filename": "a.txt", "file_data": "YQ=="}]
    body = {"input": [{"type": "message", "role": "user", "content": content}]}
    talk = [exchange("POST", "/responses", body, sse=[{"type": "response.completed", "response": response("resp_1", [])}])]
    send = {"parts": [{"raw": "YQ==", "mediaType": "text/plain", "filename": "a.txt"}]}
    await asked("openai-responses", DEVUI, talk, ref=VendorRef("conv_1"), send=send)


async def test_an_approval_that_is_told_twice_is_one_prompt() -> None:
    wanted = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "dice", "name": "roll", "arguments": "not json"}
    talk = [exchange("POST", "/responses", None, json=response("resp_1", [wanted, wanted]))]
    events = await asked("openai-responses", PLAIN, talk, stream=False)
    assert isinstance(events[-1], Ask) and [prompt.data["arguments"] for prompt in events[-1].prompts] == ["not json"]


async def test_what_a_workflow_says_on_its_way_is_no_part_of_its_answer() -> None:
    def item(name: str, kind: str) -> dict[str, Any]:
        content = [{"type": "output_text", "text": name, "annotations": []}]
        return {"id": name, "type": "message", "content": content, "metadata": {"workflow_output_kind": kind}}

    output = [item("half", "intermediate"), item("whole", "terminal")]
    talk = [exchange("POST", "/responses", None, sse=[{"type": "response.completed", "response": response("resp_1", output)}])]
    events = await asked("openai-responses", DEVUI, talk, ref=VendorRef("conv_1"))
    assert [event.artifact.artifact_id for event in events if hasattr(event, "artifact")] == ["whole"]


async def test_a_workflow_s_input_is_the_schema_of_its_skill() -> None:
    schema = {"type": "object", "properties": {"order": {"type": "string"}}}
    about = {"name": "refunds", "type": "workflow", "description": None, "input_schema": schema}
    facts = await described("openai-responses", DEVUI, [exchange("GET", "/entities/flow/info", json=about)])
    assert facts.description == "The workflow refunds." and [skill.schema for skill in facts.skills] == [schema]


async def test_a_text_that_ends_under_another_id_than_it_was_streamed_under_is_told_once() -> None:
    ending = {"id": "msg_other", "type": "message", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}
    talk = [
        exchange(
            "POST",
            "/responses",
            None,
            sse=[
                {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hel"},
                {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "lo"},
                {"type": "response.completed", "response": response("resp_1", [ending])},
            ],
        )
    ]
    events = await asked("openai-responses", PLAIN, talk)
    assert "".join(event.artifact.parts[0].text for event in events if hasattr(event, "artifact")) == "Hello"


async def test_a_server_without_model_lookup_is_registered_as_configured() -> None:
    facts = await described("openai-responses", PLAIN, [exchange("GET", "/models/gpt-5", status=404, json={"detail": "Not Found"})])
    assert facts.name == "gpt-5"


async def test_a_model_that_the_server_does_not_have_is_not_registered() -> None:
    missing = {"error": {"message": "no such model", "code": "model_not_found"}}
    with pytest.raises(AgentFault):
        await described("openai-responses", PLAIN, [exchange("GET", "/models/gpt-5", status=404, json=missing)])
