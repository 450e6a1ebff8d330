"""What is particular to AG-UI."""

import json
from typing import Any

import pytest

from adapters.contract import Ask, Canceled, Done, Event, Failed, PromptKind, RefLearned, VendorRef
from adapters.vendors.ag_ui.reader import AgUiReader
from adapters.vendors.sdk.agent import CancelOutcome, parse_events
from adapters.vendors.sdk.chat_content import recent_messages
from adapters.vendors.sdk.faults import NOT_ACCEPTED_TEXT
from adapters.vendors.sdk.frames import End, Head, SseFrame
from tests.adapters.hand_written import SESSION, asked, canceled, described, exchange
from tests.adapters.replay import outcome, recorded

FINISHED = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}
TOOLS = {"tools": [{"name": "ask_human", "description": "Asks."}]}


def read(*events: dict[str, Any], tools: tuple[str, ...] = (), known: tuple[str, ...] = ()) -> list[Event]:
    frames = [SseFrame("message", json.dumps(each)) for each in events]
    return list(parse_events(AgUiReader(tools, known), [Head({}), *frames, End(True)]))


def text(delta: str, name: str = "a", **more: Any) -> dict[str, Any]:
    return {"type": "TEXT_MESSAGE_CONTENT", "messageId": name, "delta": delta, **more}


def call(name: str, args: str) -> list[dict[str, Any]]:
    begun = {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": name}
    return [begun, {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": args}, {"type": "TOOL_CALL_END", "toolCallId": "c"}]


@pytest.mark.parametrize("seq", [0, 1])
async def test_recorded_refusals_tell_nothing(seq: int) -> None:
    refused = next(each for each in recorded("ag_ui", "errors") if each["seq"] == seq)
    events = await asked("ag-ui", {"path": "/agui"}, [{**refused, "request": {"method": "POST", "path": "/agui", "json": {}}}])
    assert isinstance(events[-1], Failed)
    assert (events[-1].reason, events[-1].retryable) == (NOT_ACCEPTED_TEXT, False)


def test_a_run_that_was_canceled_is_not_completed() -> None:
    assert isinstance(read(text("half"), {**FINISHED, "outcome": {"type": "cancelled"}})[-1], Canceled)


def test_what_parts_of_an_agent_say_is_no_answer() -> None:
    told = outcome(
        read(
            text("to myself", "s", subagentRunId="sub-1"),
            {"type": "TEXT_MESSAGE_START", "messageId": "d", "role": "developer"},
            text("be nice", "d"),
            {"type": "REASONING_MESSAGE_CONTENT", "messageId": "r", "delta": "hm"},
            {"type": "TEXT_MESSAGE_CHUNK", "messageId": "a", "delta": "yes"},
            {"type": "TEXT_MESSAGE_CHUNK", "delta": ", sir"},
            FINISHED,
        )
    )
    assert told == {"state": "COMPLETED", "artifacts": [{"text": "yes, sir"}]}


def test_a_snapshot_is_the_answer_of_a_run_that_says_all_at_once_but_not_twice() -> None:
    messages = [
        {"id": "a-1", "role": "assistant", "content": "before"},
        {"id": "m", "role": "user", "content": "hello"},
        {"id": "a-2", "role": "assistant", "content": "now"},
    ]
    snapshot = {"type": "MESSAGES_SNAPSHOT", "messages": messages}
    assert outcome(read(snapshot, FINISHED))["artifacts"] == [{"text": "now"}]
    assert outcome(read(snapshot, FINISHED, known=("a-2",)))["artifacts"] == []
    assert outcome(read(text("now"), snapshot, FINISHED))["artifacts"] == [{"text": "now"}]


def test_results_state_and_usage_are_kept_and_a_patched_state_is_none() -> None:
    state = {"type": "STATE_SNAPSHOT", "snapshot": {"step": 1}}
    used = [{"model": "m", "inputTokens": 3, "outputTokens": 2, "totalTokens": 5}, {"model": "n", "inputTokens": 1}]
    told = outcome(read(text("done"), state, {**FINISHED, "result": {"total": 42}, "usage": used}))
    assert told["artifacts"] == [{"text": "done"}, {"parts": [{"data": {"total": 42}}]}, {"parts": [{"data": {"step": 1}}]}]
    assert told["metadata"] == {"urn:interlock:a2a:usage": {"model": "m", "input_tokens": 4, "output_tokens": 2, "total_tokens": 5}}
    patched = [state, {"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/x", "value": 1}]}]
    assert outcome(read(text("done"), *patched, {**FINISHED, "result": "done"}))["artifacts"] == [{"text": "done"}]


def test_a_call_waits_where_people_answer_it_or_the_agent_says_so() -> None:
    asking = call("ask_human", '{"question":"Sure?"}')
    assert isinstance(read(*asking, FINISHED)[-1], Done)  # a tool of the agent itself
    assert isinstance(read(*asking, FINISHED, tools=("ask_human",))[-1], Ask)
    named = {**FINISHED, "outcome": {"type": "success", "pendingToolCallIds": ["c"]}}
    assert isinstance(read(*asking, named)[-1], Ask)
    answered = {"type": "TOOL_CALL_RESULT", "toolCallId": "c", "messageId": "x", "content": "yes"}
    assert isinstance(read(*asking, answered, FINISHED, tools=("ask_human",))[-1], Done)


def test_arguments_that_are_no_json_are_shown_as_they_are() -> None:
    ending = read(*call("ask_human", '{"question":'), FINISHED, tools=("ask_human",))[-1]
    assert isinstance(ending, Ask)
    assert ending.prompts[0].data == {"call": "ask_human", "args": '{"question":'}


def test_an_interrupt_without_a_call_is_a_question() -> None:
    ending = read({**FINISHED, "outcome": {"type": "interrupt", "interrupts": [{"id": "i", "reason": "input", "message": "Who?"}]}})[-1]
    assert isinstance(ending, Ask)
    assert (ending.prompts[0].kind, ending.prompts[0].text) == (PromptKind.INPUT, "Who?")


async def test_files_and_objects_reach_the_agent() -> None:
    parts = [
        {"text": "look"},
        {"raw": "aGk=", "mediaType": "image/png"},
        {"url": "https://a.example/x.pdf", "mediaType": "application/pdf"},
    ]
    content = [
        {"type": "text", "text": "look"},
        {"type": "image", "source": {"type": "data", "value": "aGk=", "mimeType": "image/png"}},
        {"type": "document", "source": {"type": "url", "value": "https://a.example/x.pdf", "mimeType": "application/pdf"}},
        {"type": "text", "text": '{"amount":42}'},
    ]
    wanted = {"threadId": SESSION, "messages": [{"role": "user", "content": content}]}
    events = await asked(
        "ag-ui", {}, [exchange("POST", "", wanted, sse=[text("ok"), FINISHED])], send={"parts": [*parts, {"data": {"amount": 42}}]}
    )
    assert isinstance(events[-1], Done)
    kept = [event.ref.kept for event in events if isinstance(event, RefLearned)][-1]
    assert isinstance(kept, dict) and "aGk=" not in json.dumps(kept)


async def test_a_run_that_failed_leaves_the_conversation_as_it_was() -> None:
    before = {"messages": [{"id": "m-0", "role": "user", "content": "earlier"}]}
    failing = [exchange("POST", "", sse=[{"type": "RUN_ERROR", "message": "exploded"}])]
    events = await asked("ag-ui", {}, failing, ref=VendorRef(SESSION, kept=before))
    assert [event.ref.kept for event in events if isinstance(event, RefLearned)] == [before]


def test_a_conversation_is_cut_where_somebody_says_something() -> None:
    said = [{"id": str(number), "role": ("user", "assistant")[number % 2], "content": "x" * 100} for number in range(10)]
    size = len(json.dumps(said[0], separators=(",", ":")))
    assert [each["id"] for each in recent_messages(said, 3 * size + 10)] == ["8", "9"]
    assert [each["id"] for each in recent_messages(said, 100_000)] == [str(number) for number in range(10)]
    assert recent_messages(said, 10) == []


async def test_an_agent_is_there_when_it_answers_at_all() -> None:
    facts = await described("ag-ui", {"title": "Clerk", "about": "Files things."}, [exchange("HEAD", "", status=405)])
    assert (facts.name, facts.description) == ("Clerk", "Files things.")


async def test_a_run_is_not_said_to_be_stopped() -> None:
    assert await canceled("ag-ui", {}, [], VendorRef("t", "r")) is CancelOutcome.UNSUPPORTED


async def test_a_server_that_knows_no_head_is_registered() -> None:
    facts = await described("ag-ui", {"title": "Clerk", "about": "Files things."}, [exchange("HEAD", "", status=404)])
    assert facts.name == "Clerk"
