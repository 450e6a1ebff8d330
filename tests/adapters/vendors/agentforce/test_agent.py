"""What is particular to Salesforce Agentforce."""

import json
from typing import Any
from uuid import UUID

import pytest
from msgspec import UNSET, structs

from adapters.contract import Answer, ArtifactPiece, Ask, Done, Event, Failed, Progress, Prompt, PromptKind, RefLearned, VendorRef
from adapters.task import text_of
from adapters.vendors.agentforce.reader import AgentforceReader
from adapters.vendors.sdk.agent import BadOptions, CancelOutcome, parse_events, parse_options
from adapters.vendors.sdk.answers import NOTHING_SAID_TEXT
from adapters.vendors.sdk.frames import End, Head, JsonBody, SseFrame
from tests.adapters.hand_written import SESSION, asked, canceled, exchange
from tests.adapters.replay import ReplayEgress, outcome, vendor_of

UPSTREAM = {"agent": "0Xx1", "domain": "https://corp.my.salesforce.com"}
REF = VendorRef("s-1", kept={"sequence": 7})
END = {"type": "EndOfTurn"}


def read(*messages: dict[str, Any]) -> list[Event]:
    frames = [SseFrame("x", json.dumps({"message": each})) for each in messages]
    return list(parse_events(AgentforceReader(), [Head({}), *frames, End(True)]))


def chunk(text: str) -> dict[str, Any]:
    return {"type": "TextChunk", "message": text}


def inform(text: str) -> dict[str, Any]:
    return {"type": "Inform", "message": text}


def reply(*messages: dict[str, Any], said: Any = None) -> dict[str, Any]:
    return exchange("POST", "/sessions/s-1/messages", said, json={"messages": list(messages)})


async def test_numbers_of_messages_rise_over_the_turns_of_a_session() -> None:
    talk = [reply(inform("ok"), said={"message": {"sequenceId": 8, "text": "hello"}})]
    events = await asked("agentforce", UPSTREAM, talk, ref=REF, stream=False)
    assert next(event.ref for event in events if isinstance(event, RefLearned)).kept == {"sequence": 8}


async def test_the_operator_sets_bypass_user_and_the_gateway_names_the_session() -> None:
    for told in (False, True):
        body = {"externalSessionKey": SESSION, "bypassUser": told, "variables": [{"name": "$Context.X", "type": "Text", "value": "en"}]}
        begun = exchange("POST", "/agents/0Xx1/sessions", body, json={"sessionId": "s-1", "messages": [inform("Hi, I am new")]})
        upstream = {**UPSTREAM, "bypass_user": told, "variables": [{"name": "$Context.X", "value": "en"}]}
        events = await asked("agentforce", upstream, [begun, reply(inform("ok"))], stream=False)
        assert outcome(events)["artifacts"] == [{"text": "ok"}]


async def test_data_is_said_as_text_and_a_file_is_refused_before_anything_is_sent() -> None:
    talk = [reply(inform("ok"), said={"message": {"text": 'see\n{"a":1}'}})]
    assert isinstance(
        (await asked("agentforce", UPSTREAM, talk, ref=REF, stream=False, send={"parts": [{"text": "see"}, {"data": {"a": 1}}]}))[-1], Done
    )
    (event,) = await asked("agentforce", UPSTREAM, [], send={"parts": [{"raw": "AAAA"}]})
    assert isinstance(event, Failed) and "no files" in event.reason


def test_an_inform_that_says_the_same_says_nothing_new_and_another_replaces_it() -> None:
    events = read(chunk("a"), chunk("b"), inform("ab"), END)
    assert outcome(events)["artifacts"] == [{"text": "ab"}]
    assert sum(isinstance(event, ArtifactPiece) for event in events) == 2
    assert outcome(read(chunk("a"), inform("other"), inform("more"), END))["artifacts"] == [{"text": "other"}, {"text": "more"}]


@pytest.mark.parametrize("after", [[], [inform("better")], [chunk("better")]])
def test_what_is_taken_back_is_not_said(after: list[dict[str, Any]]) -> None:
    found = outcome(read(chunk("wrong"), {"type": "ValidationFailureChunk", "reason": "toxic"}, *after, END))
    if after:
        assert (found["state"], found["artifacts"]) == ("COMPLETED", [{"text": "better"}])
    else:
        assert (found["state"], found["reason"]) == ("FAILED", "The agent withdrew its answer")


@pytest.mark.parametrize(
    ("message", "ending"),
    [
        ({"type": "Error", "error": "X", "message": "in /srv"}, Failed),
        ({"type": "Failure", "code": "ACTION_FAILED"}, Failed),
        ({"type": "Escalate", "targets": []}, Failed),
        ({"type": "Escalation"}, Failed),
        ({"type": "SessionEnded", "reason": "InfiniteLoopDetected"}, Failed),
        ({"type": "SessionEnded", "reason": "Action"}, Done),
        ({"type": "Inquire", "id": "q", "message": "Which?"}, Ask),
    ],
)
def test_a_turn_ends_as_its_messages_say(message: dict[str, Any], ending: type[Event]) -> None:
    event = read(inform("so"), message, END)[-1]
    assert isinstance(event, ending)
    assert not isinstance(event, Failed) or "/srv" not in event.reason


def test_nothing_at_all_is_no_answer() -> None:
    events = list(parse_events(AgentforceReader(), [Head({}), JsonBody({"messages": []}), End(True)]))
    assert isinstance(events[-1], Failed) and events[-1].kind == "INVALID_AGENT_RESPONSE"


def test_progress_is_told_meanwhile() -> None:
    events = read({"type": "ProgressIndicator", "message": "Looking"}, inform("found"), END)
    assert [event.message.parts[0].text for event in events if isinstance(event, Progress) and event.message] == ["Looking"]


@pytest.mark.parametrize(("value", "text"), [(True, "Yes"), (False, "No"), ("blue", "blue")])
async def test_an_answer_names_the_question(value: Any, text: str) -> None:
    said = {"message": {"sequenceId": 8, "type": "Text", "text": text, "inReplyToMessageId": "q-1"}}
    answers = (Answer(Prompt("q-1", kind=PromptKind.INPUT), value),)
    events = await asked("agentforce", UPSTREAM, [reply(inform("ok"), said=said)], ref=REF, stream=False, answers=answers)
    assert isinstance(events[-1], Done)


async def test_a_turn_is_not_said_to_be_stopped() -> None:
    assert await canceled("agentforce", UPSTREAM, [], REF) is CancelOutcome.UNSUPPORTED
    assert VendorRef().kept is UNSET


@pytest.mark.parametrize("domain", ["http://corp.my.salesforce.com", "https://corp.example/path", "corp"])
def test_a_domain_is_an_origin(domain: str) -> None:
    with pytest.raises(BadOptions, match=r"upstream\.domain"):
        parse_options(vendor_of("agentforce"), {**UPSTREAM, "domain": domain})


async def test_a_session_ended_without_an_answer_fails_as_lost_and_is_over() -> None:
    events = await asked("agentforce", UPSTREAM, [reply({"type": "SessionEnded", "reason": "Timeout"})], ref=REF, stream=False)
    assert isinstance(events[-1], Failed) and (events[-1].kind, events[-1].retryable) == ("SESSION_LOST", False)
    assert [event.ref.over for event in events if isinstance(event, RefLearned)] == [False, True]


async def test_an_unknown_session_fails_with_its_reason_and_is_given_up() -> None:
    gone = exchange("POST", "/sessions/s-1/messages", status=404, json={"message": "no such session"})
    events = await asked("agentforce", UPSTREAM, [gone], ref=REF, stream=False)
    assert isinstance(events[-1], Failed) and events[-1].kind == "SESSION_LOST"
    assert [event.ref.over for event in events if isinstance(event, RefLearned)] == [False, True]


@pytest.mark.parametrize(("reason", "replaced"), [("Expiration", True), ("Timeout", True), ("Transfer", False)])
async def test_only_an_expired_session_without_messages_is_replaced(reason: str, replaced: bool) -> None:
    ended = reply({"type": "SessionEnded", "reason": reason}, said={"message": {"sequenceId": 8}})
    egress = ReplayEgress((ended, begun("s-2"), answered("s-2", inform("ok"), {"message": {"sequenceId": 1}})), {})
    events = await asked("agentforce", UPSTREAM, egress, ref=structs.replace(REF, is_unused=True), stream=False)
    assert (isinstance(events[-1], Done), egress.problems) == (replaced, [])
    assert any(event.ref.over for event in events if isinstance(event, RefLearned)) != replaced
    assert len(egress.remaining) == (0 if replaced else 2)


async def test_the_session_in_place_of_a_lost_one_has_a_key_of_its_own() -> None:
    keys = list[str]()

    class Keys(ReplayEgress):
        def _compare_body(self, request: dict[str, Any], body: bytes | None) -> None:
            keys.extend([json.loads(body)["externalSessionKey"]] if body and b"externalSessionKey" in body else [])

    gone = exchange("POST", "/sessions/s-1/messages", status=404, json={})
    talk = Keys((gone, begun("s-2"), answered("s-2", inform("ok"))), {})
    events = await asked("agentforce", UPSTREAM, talk, ref=structs.replace(REF, is_unused=True), stream=False)
    assert isinstance(events[-1], Done)
    assert len(keys) == 1 and UUID(keys[0]) != UUID(SESSION)


def begun(session: str) -> dict[str, Any]:
    return exchange("POST", "/agents/0Xx1/sessions", json={"sessionId": session, "messages": []})


def answered(session: str, message: dict[str, Any], said: Any = None) -> dict[str, Any]:
    return exchange("POST", f"/sessions/{session}/messages", said, json={"messages": [message]})


async def test_a_turn_that_completes_without_a_word_says_so() -> None:
    events = await asked("agentforce", UPSTREAM, [exchange("POST", "/sessions/s-1/messages/stream", sse=[{"message": END}])], ref=REF)
    assert isinstance(events[-1], Done) and events[-1].message is not None
    assert text_of(events[-1].message.parts) == NOTHING_SAID_TEXT
