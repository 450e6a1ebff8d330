"""What is particular to llama-agents."""

import json
from typing import Any

import pytest

from adapters.contract import Answer, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, RefLearned, VendorRef
from adapters.vendors.llama_agents import WorkflowReader
from adapters.vendors.sdk.agent import CancelOutcome, parse_events
from adapters.vendors.sdk.frames import End, Head, JsonBody, SseFrame
from tests.adapters.hand_written import asked, canceled, described, exchange, polled
from tests.adapters.replay import outcome, recorded

UPSTREAM = {"workflow": "echo"}
REF = VendorRef("", "h-1")
RUN = exchange("POST", "/workflows/echo/run-nowait", {"start_event": {"message": "hello"}}, json={"handler_id": "h-1", "status": "running"})
EVENTS = "/events/h-1?sse=true&after_sequence=-1"


def event(name: str, value: Any, *types: str) -> dict[str, Any]:
    return {"type": name, "value": value, "types": list(types) or None}


def read(*events: dict[str, Any], pieces: dict[str, str] | None = None, after: int = -1) -> list[Event]:
    frames = [SseFrame("message", json.dumps(each), str(number)) for number, each in enumerate(events)]
    return list(parse_events(WorkflowReader(pieces, after), [Head({}), *frames, End(True)]))


def test_what_the_recorded_stream_says_once_it_was_answered_is_the_answer() -> None:
    raw = 'id: 8\ndata: {"value":{"reply":"approved=True ok"},"type":"Done","types":["StopEvent"]}\n\n'
    data = raw.splitlines()[1].removeprefix("data: ")
    events = list(parse_events(WorkflowReader({}, 4), [Head({}), SseFrame("message", data, "8"), End(True)]))
    assert outcome(events) == {"state": "COMPLETED", "artifacts": [{"text": "approved=True ok"}]}


@pytest.mark.parametrize("seq", [0, 1, 3])
async def test_recorded_refusals_tell_nothing(seq: int) -> None:
    refused = next(each for each in recorded("llama_agents", "errors") if each["seq"] == seq)
    talk = [{**refused, "request": {**refused["request"], "path": "/workflows/echo/run-nowait", "json": {}}}]
    ending = (await asked("llama-agents", UPSTREAM, talk))[-1]
    assert isinstance(ending, Failed) and ending.kind == "UPSTREAM"
    assert "pydantic" not in ending.reason


@pytest.mark.parametrize(
    ("name", "ending"),
    [("WorkflowFailedEvent", Failed), ("WorkflowTimedOutEvent", Failed), ("WorkflowCancelledEvent", Canceled), ("StopEvent", Done)],
)
def test_an_end_that_is_none_is_told_by_its_class(name: str, ending: type[Event]) -> None:
    assert isinstance(read(event(name, {"step_name": "work"}, "StopEvent"))[-1], ending)


@pytest.mark.parametrize(
    ("value", "artifacts"),
    [
        ({"result": "yes"}, [{"text": "yes"}]),
        ({"result": {"total": 42}}, [{"parts": [{"data": {"total": 42}}]}]),
        ({"reply": "yes"}, [{"text": "yes"}]),
        ({"reply": "yes", "total": 42}, [{"parts": [{"data": {"reply": "yes", "total": 42}}]}]),
        ({"total": 42}, [{"parts": [{"data": {"total": 42}}]}]),
        ({"result": None}, []),
        ({}, []),
    ],
)
def test_a_result_is_a_text_or_an_object(value: Any, artifacts: Any) -> None:
    assert outcome(read(event("Done", value, "StopEvent")))["artifacts"] == artifacts


def test_pieces_of_the_answer_are_shown_as_they_come_and_not_twice() -> None:
    events = read(
        event("Token", {"delta": "ye"}), event("Token", {"delta": "s"}), event("StopEvent", {"result": "yes"}), pieces={"Token": "delta"}
    )
    assert outcome(events)["artifacts"] == [{"text": "yes"}]
    assert len([each for each in events if isinstance(each, ArtifactPiece)]) == 2


def test_what_was_read_before_is_not_asked_again() -> None:
    asks = event("Ask", {"prefix": "Name?"}, "InputRequiredEvent")
    assert isinstance(read(asks)[-1], Ask)
    assert isinstance(read(asks, event("StopEvent", {"result": "x"}), after=0)[-1], Done)


async def test_a_question_of_a_plain_class_is_answered_by_a_plain_response() -> None:
    asks = exchange("GET", EVENTS, sse=[event("InputRequiredEvent", {"prefix": "Name?"})])
    classes = exchange("GET", "/workflows/echo/events", json={"events": [{"title": "HumanResponseEvent", "type": "object"}]})
    ending = (await asked("llama-agents", UPSTREAM, [RUN, asks, classes]))[-1]
    assert isinstance(ending, Ask)
    prompt = ending.prompts[0]
    assert (prompt.text, prompt.schema, prompt.token) == ("Name?", None, {"after": -1, "type": "HumanResponseEvent"})
    said = {"event": {"type": "HumanResponseEvent", "value": {"response": "Ada"}}}
    talk = [
        exchange("POST", "/events/h-1", said, json={"status": "sent"}),
        exchange("GET", EVENTS, sse=[event("StopEvent", {"result": "Ada!"})]),
    ]
    assert isinstance((await asked("llama-agents", UPSTREAM, talk, ref=REF, answers=(Answer(prompt, "Ada"),)))[-1], Done)


async def test_an_answer_that_comes_too_late_finds_out_how_the_run_ended() -> None:
    prompt = Prompt("InputRequiredEvent-4", token={"after": 4, "type": "HumanResponseEvent"})
    late = exchange("POST", "/events/h-1", status=409, json={"detail": "Workflow already completed"})
    over = exchange("GET", "/events/h-1?sse=true&after_sequence=4", status=204)
    failed = exchange("GET", "/handlers/h-1", status=500, json={"status": "failed", "error": "timed out in /srv"})
    ending = (await asked("llama-agents", UPSTREAM, [late, over, failed], ref=REF, answers=(Answer(prompt, "x"),)))[-1]
    assert isinstance(ending, Failed) and "/srv" not in ending.reason


async def test_objects_are_members_of_the_start_event() -> None:
    begun = exchange("POST", "/workflows/echo/run-nowait", {"start_event": {"amount": 42, "query": "refund"}}, json={"handler_id": "h-1"})
    ends = exchange("GET", EVENTS, sse=[event("StopEvent", {"result": "ok"})])
    send = {"parts": [{"data": {"amount": 42}}, {"text": "refund"}]}
    events = await asked("llama-agents", {**UPSTREAM, "text": "query"}, [begun, ends], send=send)
    assert [each.ref.task_id for each in events if isinstance(each, RefLearned)] == ["h-1"]


async def test_a_stream_that_ends_while_the_run_goes_on_is_no_answer() -> None:
    talk = [RUN, exchange("GET", EVENTS, sse=[]), exchange("GET", "/handlers/h-1", status=202, json={"status": "running"})]
    assert isinstance((await asked("llama-agents", UPSTREAM, talk))[-1], Failed)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("cancelled", CancelOutcome.CANCELED),
        ("completed", CancelOutcome.TOO_LATE),
        ("failed", CancelOutcome.TOO_LATE),
        ("running", CancelOutcome.UNKNOWN),
    ],
)
async def test_a_cancellation_tells_how_the_run_stands(status: str, told: CancelOutcome) -> None:
    talk = [
        exchange("POST", "/handlers/h-1/cancel", json={"status": "cancelled"}),
        exchange("GET", "/handlers/h-1", json={"status": status}),
    ]
    assert await canceled("llama-agents", UPSTREAM, talk, REF) is told


async def test_a_run_that_is_over_is_not_canceled() -> None:
    gone = exchange("POST", "/handlers/h-1/cancel", status=404, json={"detail": "Handler not found"})
    assert await canceled("llama-agents", UPSTREAM, [gone], REF) is CancelOutcome.TOO_LATE


async def test_a_run_that_waits_is_watched_without_a_word_until_it_ends() -> None:
    running = exchange("GET", "/handlers/h-1", status=202, json={"status": "running"})
    assert await polled("llama-agents", UPSTREAM, [running], REF) == []
    ended = exchange("GET", "/handlers/h-1", status=500, json={"status": "failed", "error": "timed out"})
    assert [type(each) for each in await polled("llama-agents", UPSTREAM, [ended], REF)] == [Failed]


async def test_what_a_workflow_takes_is_on_its_card() -> None:
    schema = {"type": "object", "properties": {"message": {"type": "string"}}}
    facts = await described("llama-agents", UPSTREAM, [exchange("GET", "/workflows/echo/schema", json={"start": schema, "stop": {}})])
    assert facts.skills[0].schema == schema


def test_a_result_that_nobody_can_read_is_a_failure() -> None:
    state = {"status": "completed", "result": None, "result_unreadable": True}
    assert isinstance(list(parse_events(WorkflowReader(), [Head({}), JsonBody(state), End(True)]))[-1], Failed)
