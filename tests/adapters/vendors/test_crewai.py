"""What is particular to CrewAI AMP."""

from typing import Any

import pytest

from adapters.contract import Answer, ArtifactPiece, Ask, Done, Failed, Progress, PromptKind, VendorRef
from adapters.vendors.sdk.agent import CancelOutcome
from tests.adapters.hand_written import asked, canceled, described, exchange
from tests.adapters.replay import ReplayEgress, outcome

UPSTREAM = {"text": "topic", "every": 0.02, "inputs": {"language": "en"}}
DONE = {"status": "completed", "result": {"output": "ok"}}


def kicked(inputs: Any, *states: Any) -> list[dict[str, Any]]:
    begun = exchange("POST", "/kickoff", {"inputs": inputs}, json={"kickoff_id": "k 1"})
    return [begun, *(exchange("GET", "/status/k%201", json=each) for each in states)]


async def test_data_becomes_inputs_as_texts_and_what_the_operator_fixed_stays() -> None:
    said = {"parts": [{"text": "news"}, {"data": {"count": 3, "tags": ["a"], "name": "ada", "language": "xx"}}]}
    inputs = {"topic": "news", "count": "3", "tags": '["a"]', "name": "ada", "language": "en"}
    assert isinstance((await asked("crewai", UPSTREAM, kicked(inputs, DONE), send=said))[-1], Done)


async def test_a_file_is_refused_before_anything_is_sent() -> None:
    (event,) = await asked("crewai", UPSTREAM, [], send={"parts": [{"raw": "AAAA"}]})
    assert isinstance(event, Failed) and "no files" in event.reason


async def test_what_the_crew_is_at_is_told_once() -> None:
    busy = {"status": "running", "current_task": "research"}
    events = await asked("crewai", UPSTREAM, kicked({}, busy, busy, {**busy, "current_task": "writing"}, DONE))
    words = [event.message.parts[0].text for event in events if isinstance(event, Progress) and event.message]
    assert words == ["research", "writing"]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"status": "completed", "error": "late", "result": {"output": "x"}}, ""),
        ({"status": "error"}, ""),
        ({"status": "completed", "result": {}}, "INVALID_AGENT_RESPONSE"),
        ({"status": "completed"}, "INVALID_AGENT_RESPONSE"),
        ({"status": "dreaming"}, "INVALID_AGENT_RESPONSE"),
        ([], "INVALID_AGENT_RESPONSE"),
    ],
)
async def test_a_status_alone_is_believed_by_nobody(told: Any, kind: str) -> None:
    event = (await asked("crewai", UPSTREAM, kicked({}, told)))[-1]
    assert isinstance(event, Failed) and event.kind == kind


async def test_structured_output_comes_beside_the_text() -> None:
    told = {"status": "completed", "result": {"output": "Ada pays", "json_dict": {"pays": True}, "tasks": [{"output": "on the way"}]}}
    found = outcome(await asked("crewai", UPSTREAM, kicked({}, told)))
    assert found["artifacts"] == [{"text": "Ada pays", "parts": [{"data": {"pays": True}}]}]


@pytest.mark.parametrize(
    ("value", "feedback"), [({"approve": True}, "Approved."), ({"approve": False, "feedback": "Too short"}, "Too short")]
)
async def test_a_task_that_waits_is_asked_about_and_goes_on(value: Any, feedback: str) -> None:
    waits = {"status": "Pending Human Input", "current_task": "research", "task_output": "draft"}
    events = await asked("crewai", UPSTREAM, kicked({}, waits))
    ending = events[-1]
    assert isinstance(ending, Ask)
    (prompt,) = ending.prompts
    assert (prompt.kind, prompt.data, prompt.token) == (PromptKind.APPROVAL, "draft", {"task": "research"})
    decided = {"execution_id": "k 1", "task_id": "research", "is_approve": value["approve"], "human_feedback": feedback}
    talk = [exchange("POST", "/resume", decided, json={"status": "resumed"}), exchange("GET", "/status/k%201", json=DONE)]
    again = await asked("crewai", UPSTREAM, talk, ref=VendorRef("", "k 1"), answers=(Answer(prompt, value),))
    assert isinstance(again[-1], Done) and any(isinstance(event, ArtifactPiece) for event in again)


async def test_who_the_person_is_comes_from_the_token_and_never_from_the_message() -> None:
    egress = ReplayEgress((exchange("POST", "/kickoff", {"meta": {"user": "admin"}}, json={"kickoff_id": "k"}),), {})
    await asked("crewai", UPSTREAM, egress, send={"data": {"user": "admin", "meta": "admin"}})
    assert any(".meta.user is 'u-" in problem for problem in egress.problems)


async def test_a_crew_tells_what_it_takes() -> None:
    told = await described("crewai", UPSTREAM, [exchange("GET", "/inputs", json={"inputs": ["topic", "language"]})])
    assert told.skills[0].schema == {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}


async def test_a_kickoff_is_not_said_to_be_stopped() -> None:
    assert await canceled("crewai", UPSTREAM, [], VendorRef("", "k")) is CancelOutcome.UNSUPPORTED
