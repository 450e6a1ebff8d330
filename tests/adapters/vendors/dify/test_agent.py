"""What is particular to Dify, from its documentation."""

import json
from typing import Any

import pytest

from adapters.contract import Answer, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, PromptKind, RefLearned, VendorRef
from adapters.task import Part
from adapters.vendors.dify.reader import DifyReader
from adapters.vendors.sdk.agent import CancelOutcome, parse_events
from adapters.vendors.sdk.connection import encode_multipart
from adapters.vendors.sdk.frames import End, Head, SseFrame
from tests.adapters.hand_written import asked, canceled, exchange, polled
from tests.adapters.replay import ReplayEgress, outcome

REF = VendorRef("conv-1", "task-1", {"run": "run-1"})


def read(*events: dict[str, Any], ref: VendorRef | None = None) -> list[Event]:
    frames = [SseFrame("message", json.dumps(each)) for each in events]
    return list(parse_events(DifyReader(ref or VendorRef()), [Head({}), *frames, End(True)]))


def run(event: str, **data: Any) -> dict[str, Any]:
    return {"event": event, "task_id": "task-1", "workflow_run_id": "run-1", "data": data}


def form(**more: Any) -> dict[str, Any]:
    return run(
        "human_input_required", form_id="f", form_content="Sure?", actions=[{"id": "yes"}, {"id": "no"}], inputs=[], form_token="t", **more
    )


PAUSED = run("workflow_paused", status="paused")


def test_a_flow_that_chats_is_over_when_its_run_is() -> None:
    told = [run("workflow_started"), {"event": "message", "answer": "half"}, {"event": "message_end", "metadata": {}}]
    assert isinstance(read(*told, run("workflow_finished", status="failed", error="exploded"))[-1], Failed)
    assert isinstance(read(*told, run("workflow_finished", status="stopped"))[-1], Canceled)
    assert isinstance(read(*told, run("workflow_finished", status="partial-succeeded"))[-1], Done)
    assert isinstance(read(*told)[-1], Done)  # the answer is complete, whatever its run had left to do


def test_a_replaced_answer_is_the_answer() -> None:
    told = [{"event": "message", "answer": "rude"}, {"event": "message_replace", "answer": "nice"}, {"event": "message_end"}]
    assert outcome(read(*told))["artifacts"] == [{"text": "nice"}]


def test_files_of_the_agent_are_parts_and_those_of_the_person_are_not() -> None:
    theirs = {"event": "message_file", "id": "f-1", "belongs_to": "assistant", "url": "https://files.example/a.png"}
    ours = {"event": "message_file", "id": "f-2", "belongs_to": "user", "url": "https://files.example/b.png"}
    pieces = [each for each in read(theirs, ours, {"event": "message_end"}) if isinstance(each, ArtifactPiece)]
    assert [each.artifact.parts[0].url for each in pieces] == ["https://files.example/a.png"]


@pytest.mark.parametrize(
    ("outputs", "artifacts"),
    [
        ({"text": "yes"}, [{"text": "yes"}]),
        ({"total": 3}, [{"parts": [{"data": {"total": 3}}]}]),
        ({"text": "yes", "total": 3}, [{"parts": [{"data": {"text": "yes", "total": 3}}]}]),
        ({}, []),
        (None, []),
    ],
)
def test_outputs_are_a_text_or_an_object(outputs: Any, artifacts: Any) -> None:
    assert outcome(read(run("workflow_finished", status="succeeded", outputs=outputs)))["artifacts"] == artifacts


def test_outputs_that_say_what_was_streamed_are_not_said_twice() -> None:
    told = outcome(
        read(run("text_chunk", text="ye"), run("text_chunk", text="s"), run("workflow_finished", status="succeeded", outputs={"a": "yes"}))
    )
    assert told["artifacts"] == [{"text": "yes"}]


def test_a_form_without_inputs_is_a_choice_whose_token_nobody_sees() -> None:
    ending = read(form(), PAUSED)[-1]
    assert isinstance(ending, Ask)
    (prompt,) = ending.prompts
    assert (prompt.kind, prompt.schema, prompt.token) == (PromptKind.APPROVAL, {"type": "string", "enum": ["yes", "no"]}, "t")
    assert '"t"' not in json.dumps([prompt.text, prompt.data])


def test_a_form_that_goes_by_e_mail_is_answered_by_nobody_here() -> None:
    ending = read(run("human_input_required", form_id="f", form_token=None, actions=[{"id": "yes"}], inputs=[]), PAUSED)[-1]
    assert isinstance(ending, Ask)
    assert ending.prompts[0].schema == {"type": "string", "enum": []}


def test_a_pause_for_another_reason_is_no_question() -> None:
    assert isinstance(read(PAUSED)[-1], Failed)


async def test_a_form_that_was_filled_in_already_tells_how_the_run_went_on() -> None:
    talk = [
        exchange("POST", "/form/human_input/t", {"action": "yes", "inputs": {}}, status=412, json={"code": "human_input_form_submitted"}),
        exchange("GET", "/workflow/run-1/{events}", sse=[run("workflow_finished", status="succeeded", outputs={"a": "by others"})]),
    ]
    events = await asked("dify", {}, talk, ref=REF, answers=(Answer(Prompt("f", token="t"), "yes"),), ours=("{events}",))
    assert outcome(events)["artifacts"] == [{"text": "by others"}]


async def test_who_the_person_is_comes_from_the_token_and_never_from_the_message() -> None:
    egress = ReplayEgress((exchange("POST", "/chat-messages", {"user": "admin"}, sse=[{"event": "message_end"}]),), {})
    await asked("dify", {}, egress, send={"parts": [{"data": {"user": "admin"}}, {"text": "hi"}]})
    assert len(egress.problems) == 1 and ".user is 'u-" in egress.problems[0]


async def test_files_go_by_their_address_or_are_uploaded_as_the_persons() -> None:
    link = {"type": "document", "transfer_method": "remote_url", "url": "https://a.example/x.pdf"}
    talk = [exchange("POST", "/chat-messages", {"query": "look", "files": [link]}, sse=[{"event": "message_end"}])]
    parts = [{"text": "look"}, {"url": "https://a.example/x.pdf", "mediaType": "application/pdf"}]
    assert isinstance((await asked("dify", {}, talk, send={"parts": parts}))[-1], Done)


def test_a_form_with_a_file_can_not_be_broken_by_its_name() -> None:
    kind, body = encode_multipart(
        {"user": "u-1"}, Part(raw="aGk=", media_type='text/plain"\r\nX: 1', filename='a"\r\nX-Evil: 1\r\n\r\n.txt')
    )
    border = kind.partition("boundary=")[2]
    assert body.count(f"--{border}".encode()) == 3 and body.endswith(f"--{border}--\r\n".encode())
    head = body.split(b"\r\n\r\n")[1]
    assert b"\r\nX" not in body and b"hi\r\n" in body and head


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("stopped", CancelOutcome.CANCELED),
        ("succeeded", CancelOutcome.TOO_LATE),
        ("running", CancelOutcome.UNKNOWN),
        ("paused", CancelOutcome.UNKNOWN),
    ],
)
async def test_a_cancellation_of_a_run_tells_how_it_stands(status: str, told: CancelOutcome) -> None:
    stop = exchange("POST", "/workflows/tasks/task-1/stop", {"user": "u-1"}, json={"result": "success"})
    assert (
        await canceled("dify", {"mode": "workflow"}, [stop, exchange("GET", "/workflows/run/run-1", json={"status": status})], REF) is told
    )


async def test_whether_a_chat_stopped_is_not_known() -> None:
    stop = exchange("POST", "/chat-messages/task-1/stop", json={"result": "success"})
    assert await canceled("dify", {}, [stop], VendorRef("conv-1", "task-1")) is CancelOutcome.UNKNOWN


async def test_a_run_that_waits_is_watched_without_a_word_until_it_ends() -> None:
    assert await polled("dify", {}, [exchange("GET", "/workflows/run/run-1", json={"status": "paused"})], REF) == []
    ended = exchange("GET", "/workflows/run/run-1", json={"status": "succeeded", "outputs": {"a": "x"}, "total_tokens": 3})
    assert [type(each) for each in await polled("dify", {}, [ended], REF)] == [ArtifactPiece, Done]


def test_a_run_can_be_followed_and_its_task_be_stopped_as_soon_as_they_are_named() -> None:
    refs = [
        each.ref
        for each in read(run("workflow_started"), {"event": "message", "conversation_id": "c", "answer": "x"})
        if isinstance(each, RefLearned)
    ]
    assert refs == [VendorRef("", "task-1", {"run": "run-1"}), VendorRef("c", "task-1", {"run": "run-1"})]
