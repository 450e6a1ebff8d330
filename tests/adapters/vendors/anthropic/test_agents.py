"""What is particular to Anthropic's managed agents."""

import json
from typing import Any

import pytest

from adapters.contract import Answer, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, PromptKind, RefLearned, VendorRef
from adapters.vendors.anthropic.managed_session import AnthropicSessionReader
from adapters.vendors.sdk.agent import CancelOutcome, parse_events
from adapters.vendors.sdk.frames import End, Head, SseFrame
from tests.adapters.hand_written import asked, canceled, exchange
from tests.adapters.replay import ReplayEgress, outcome

UPSTREAM = {"agent": "agent_1", "environment": "env_1"}
REF = VendorRef("sesn_1", "sesn_1")
STREAM = "/v1/sessions/sesn_1/events/stream?event_deltas%5B%5D=agent.message"
SENT = "/v1/sessions/sesn_1/events"
DONE = {"type": "session.status_idle", "id": "e-9", "stop_reason": {"type": "end_turn"}}


def read(*events: dict[str, Any]) -> list[Event]:
    return list(
        parse_events(AnthropicSessionReader(), [Head({}), *(SseFrame(str(each["type"]), json.dumps(each)) for each in events), End(True)])
    )


def message(text: str, name: str = "m-1", **members: Any) -> dict[str, Any]:
    return {"type": "agent.message", "id": name, "content": [{"type": "text", "text": text}], **members}


def delta(text: str, name: str = "m-1") -> dict[str, Any]:
    content = {"type": "text", "text": text}
    return {"type": "event_delta", "event_id": name, "delta": {"type": "content_delta", "index": 0, "content": content}}


def idle(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": "session.status_idle", "id": "e-8", "stop_reason": {"type": kind, **members}}


def call(kind: str = "agent.tool_use", **members: Any) -> dict[str, Any]:
    return {"type": kind, "id": "c-1", "name": "bash", "input": {"command": "ls"}, **members}


def test_what_came_in_pieces_is_not_said_twice_and_the_whole_counts() -> None:
    events = read(delta("Ada "), delta("pays"), message("Ada pays"), DONE)
    assert [event.append for event in events if isinstance(event, ArtifactPiece)] == [False, True]
    assert outcome(events)["artifacts"] == [{"text": "Ada pays"}]
    assert outcome(read(delta("Ada "), message("Ada pays"), DONE))["artifacts"] == [{"text": "Ada pays"}]


def test_thoughts_tools_and_the_persons_own_words_are_no_answer() -> None:
    thought = {"type": "agent.thinking", "id": "t", "content": [{"type": "text", "text": "hm"}]}
    said = {"type": "user.message", "id": "u", "content": [{"type": "text", "text": "me"}]}
    result = {"type": "agent.tool_result", "id": "r", "content": [{"type": "text", "text": "secret.txt"}]}
    assert outcome(read(said, thought, call(), result, message("you"), DONE))["artifacts"] == [{"text": "you"}]


@pytest.mark.parametrize(
    ("event", "ending"),
    [
        (idle("end_turn"), Done),
        (idle("retries_exhausted"), Failed),
        (idle("budget_reached"), Failed),
        (idle("refusal"), Failed),
        ({"type": "session.deleted", "id": "d"}, Failed),
        ({"type": "session.status_terminated", "id": "t"}, Failed),
        (
            {"type": "session.error", "id": "x", "error": {"type": "model", "message": "in /srv", "retry_status": {"type": "exhausted"}}},
            Failed,
        ),
        ({"type": "session.error", "id": "x", "error": {"type": "billing_error", "retry_status": {"type": "terminal"}}}, Failed),
        ({"type": "session.error", "id": "x", "error": {"message": "?"}}, Failed),
    ],
)
def test_a_turn_ends_for_its_reason(event: dict[str, Any], ending: type[Event]) -> None:
    last = read(message("so far"), event)[-1]
    assert isinstance(last, ending)
    assert not isinstance(last, Failed) or "/srv" not in last.reason


async def test_a_deleted_session_is_over_so_that_the_next_message_begins_another() -> None:
    talk = [exchange("GET", STREAM, sse=[{"type": "session.deleted", "id": "d"}]), exchange("POST", SENT, json={})]
    events = await asked("anthropic-agents", UPSTREAM, talk, ref=REF)
    assert [event.ref.over for event in events if isinstance(event, RefLearned)] == [False, True]


def test_an_error_after_which_the_agent_tries_again_is_none() -> None:
    retrying = {"type": "session.error", "id": "x", "error": {"message": "overloaded", "retry_status": {"type": "retrying"}}}
    assert isinstance(read(retrying, {"type": "session.status_rescheduled", "id": "s"}, message("well"), DONE)[-1], Done)


async def test_an_idleness_without_a_known_reason_or_call_is_no_answer() -> None:
    for reason in ({"type": "requires_action", "event_ids": ["nobody"]}, {"type": "requires_action"}, {"type": "bored"}, None):
        talk = [exchange("GET", STREAM, sse=[{**DONE, "stop_reason": reason}]), exchange("POST", SENT, json={})]
        event = (await asked("anthropic-agents", UPSTREAM, talk, ref=REF))[-1]
        assert isinstance(event, Failed) and event.kind == "INVALID_AGENT_RESPONSE", reason


@pytest.mark.parametrize("nested", [True, False])
def test_a_call_that_waits_is_asked_about(nested: bool) -> None:
    names = {"event_ids": ["c-1"]}
    ending = read(call(evaluated_permission="ask"), idle("requires_action", **({"requires_action": names} if nested else names)))[-1]
    assert isinstance(ending, Ask)
    (prompt,) = ending.prompts
    assert (prompt.id, prompt.kind, prompt.data) == ("c-1", PromptKind.APPROVAL, {"call": "bash", "args": {"command": "ls"}})


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (PromptKind.APPROVAL, True, {"type": "user.tool_confirmation", "tool_use_id": "c-1", "result": "allow"}),
        (PromptKind.APPROVAL, False, {"type": "user.tool_confirmation", "tool_use_id": "c-1", "result": "deny"}),
        (
            PromptKind.INPUT,
            {"a": 1},
            {"type": "user.custom_tool_result", "custom_tool_use_id": "c-1", "content": [{"type": "text", "text": '{"a":1}'}]},
        ),
    ],
)
async def test_an_answer_goes_to_the_call_that_asked(kind: PromptKind, value: Any, said: dict[str, Any]) -> None:
    talk = [exchange("GET", STREAM, sse=[message("thanks"), DONE]), exchange("POST", SENT, {"events": [said]}, json={})]
    events = await asked("anthropic-agents", UPSTREAM, talk, ref=REF, answers=(Answer(Prompt("c-1", kind=kind), value),))
    assert isinstance(events[-1], Done)


async def test_files_and_data_go_as_blocks() -> None:
    send = {"parts": [{"text": "see"}, {"data": {"a": 1}}, {"raw": "AAAA", "mediaType": "image/png"}, {"url": "https://a.example/x.pdf"}]}
    content = [
        {"type": "text", "text": "see"},
        {"type": "text", "text": '{"a":1}'},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "document", "source": {"type": "url", "url": "https://a.example/x.pdf"}},
    ]
    body = {"events": [{"type": "user.message", "content": content}]}
    talk = [exchange("GET", STREAM.partition("?")[0], sse=[message("seen"), DONE]), exchange("POST", SENT, body, json={})]
    assert isinstance((await asked("anthropic-agents", UPSTREAM, talk, ref=REF, send=send, stream=False))[-1], Done)


async def test_the_gateway_listens_before_it_says_anything_and_names_the_version() -> None:
    egress = ReplayEgress((exchange("GET", STREAM, sse=[DONE]), exchange("POST", SENT, json={})), {})
    await asked("anthropic-agents", UPSTREAM, egress, ref=REF)
    assert [("accept" in headers, headers["anthropic-beta"]) for headers in egress.request_headers] == [
        (True, "managed-agents-2026-04-01")
    ] * 2
    assert egress.request_headers[0]["accept"].startswith("text/event-stream") and egress.problems == []


async def test_who_the_person_is_comes_from_the_token_and_never_from_the_message() -> None:
    egress = ReplayEgress((exchange("POST", "/v1/sessions", {"metadata": {"user": "admin"}}, json={"id": "s"}),), {})
    await asked("anthropic-agents", UPSTREAM, egress, send={"data": {"user": "admin"}})
    assert any(".metadata.user is 'u-" in problem for problem in egress.problems)


async def test_a_version_and_vaults_are_the_operators() -> None:
    agent = {"type": "agent", "id": "agent_1", "version": 3}
    body = {"agent": agent, "environment_id": "env_1", "vault_ids": ["vlt_1"]}
    talk = [
        exchange("POST", "/v1/sessions", body, json={"id": "sesn_1"}),
        exchange("GET", STREAM, sse=[DONE]),
        exchange("POST", SENT, json={}),
    ]
    events = await asked("anthropic-agents", {**UPSTREAM, "version": 3, "vaults": ["vlt_1"]}, talk)
    assert isinstance(events[-1], Done)


def status(word: str) -> dict[str, Any]:
    return exchange("GET", "/v1/sessions/sesn_1", json={"id": "sesn_1", "status": word})


INTERRUPT = exchange("POST", SENT, {"events": [{"type": "user.interrupt"}]}, json={})


@pytest.mark.parametrize(
    ("talk", "found"),
    [
        ([status("idle")], CancelOutcome.TOO_LATE),
        ([status("running"), INTERRUPT, status("running"), status("idle")], CancelOutcome.CANCELED),
        ([status("rescheduling"), INTERRUPT, status("terminated")], CancelOutcome.TOO_LATE),
    ],
)
async def test_a_cancellation_is_told_as_it_is(talk: list[dict[str, Any]], found: CancelOutcome) -> None:
    assert await canceled("anthropic-agents", UPSTREAM, talk, REF) is found


async def test_a_session_that_waits_is_not_interrupted() -> None:
    waiting = VendorRef("sesn_1", "sesn_1", prompts=(Prompt("c-1"),))
    assert await canceled("anthropic-agents", UPSTREAM, [], waiting) is CancelOutcome.UNSUPPORTED


def test_a_turn_that_was_interrupted_was_canceled() -> None:
    interrupt = {"type": "user.interrupt", "id": "i", "processed_at": "2026-11-21T10:00:00Z"}
    assert isinstance(read(message("so far"), interrupt, DONE)[-1], Canceled)


def test_an_event_that_is_told_again_counts_once() -> None:
    spent = {"type": "span.model_request_end", "id": "s", "model_usage": {"input_tokens": 3, "output_tokens": 4}}
    events = read(spent, message("so"), spent, message("so"), DONE)
    assert outcome(events)["metadata"] == {"urn:interlock:a2a:usage": {"input_tokens": 3, "output_tokens": 4}}
    assert sum(isinstance(event, ArtifactPiece) for event in events) == 1
