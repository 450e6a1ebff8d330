"""A2A as agents of vendors speak it: every recorded exchange is asked for as it was recorded, and comes to what it should."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from adapters.a2a_client.agent import A2AAgent
from adapters.a2a_client.wire import rpc
from adapters.a2a_client.wire.reading import A2ATurnReader
from adapters.contract import Ask, Done, Turn, VendorRef
from adapters.task import Task, TaskState
from adapters.upstream.guarded import GuardedAdapter
from adapters.upstream.sse import SseReader
from registry.cards.reader import choose_interface, read_card
from tests.adapters.replay import build_message, outcome
from tests.fakes.a2a_calls import ScriptedEgress, call_to
from tests.fakes.recordings import FOLDER, every_exchange, exchanges

URL = "http://agent.example/"
EXPECTED: list[dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text())


def those(member: str) -> Any:
    found = [each for each in EXPECTED if member in each]
    return pytest.mark.parametrize("expected", found, ids=[f"{each['recording']}:{','.join(map(str, each['seqs']))}" for each in found])


def recorded(expected: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in exchanges(expected["recording"]) if each["seq"] in expected["seqs"]]


def played(exchange: dict[str, Any]) -> Callable[[dict[str, Any]], tuple[int, str, list[bytes]]]:
    """The recorded answer, to the id of the request."""

    def answer(request: dict[str, Any]) -> tuple[int, str, list[bytes]]:
        response = exchange["response"]
        if "json" in response:
            return response["status"], "application/json", [json.dumps({**response["json"], "id": request["id"]}).encode()]
        sse = SseReader()
        events = [json.loads(each.data) for each in sse.feed(response["stream_raw"].encode())]
        return 200, "text/event-stream", [f"data: {json.dumps({**event, 'id': request['id']})}\r\n\r\n".encode() for event in events]

    return answer


def ref_of(expected: dict[str, Any]) -> VendorRef | None:
    """Ids of a conversation that goes on; `result`: those of the recorded answer."""
    ref = expected.get("ref")
    if ref == "result":
        result = recorded(expected)[0]["response"]["json"]["result"]
        return VendorRef(result["contextId"], result["id"])
    return VendorRef(*ref) if ref else None


def speaking(expected: dict[str, Any]) -> tuple[GuardedAdapter, ScriptedEgress]:
    async def pause(seconds: float) -> None: ...

    still = [each for each in exchanges(expected["recording"]) if each["seq"] == expected.get("still")]  # what the task is asked about
    egress = ScriptedEgress(*map(played, [*recorded(expected), *still]))
    return GuardedAdapter(A2AAgent(egress, pause)), egress  # type: ignore[arg-type]  # what an Egress does is all that is needed of one


def said(request: dict[str, Any]) -> Any:
    """What of a request is the caller's: the recordings' own ids and the adapter's differ."""
    message = request.get("params", {}).get("message", {})
    return request["method"], message.get("parts"), message.get("taskId"), message.get("contextId")


def test_every_recorded_exchange_is_expected() -> None:
    covered = {f"{each['recording']}:{seq}" for each in EXPECTED for seq in each["seqs"]}
    assert covered == {name for name, _ in every_exchange()}


@those("state")
async def test_a_recorded_turn_comes_out_as_expected(expected: dict[str, Any]) -> None:
    agent, egress = speaking(expected)
    turn = Turn(build_message(expected["send"]), ref_of(expected), expected.get("stream", False))
    events = [event async for event in agent.run(turn, call_to(URL, version=expected["version"]))]
    found = outcome(events)
    assert {name: found.get(name) for name in ("state", "artifacts", "message") if name in expected} == {
        name: expected[name] for name in ("state", "artifacts", "message") if name in expected
    }
    asked = [said(each["request"]["json"]) for each in recorded(expected)]
    assert [each[:2] for each in map(said, egress.requests[: len(asked)])] == [each[:2] for each in asked]
    assert [each["method"] for each in egress.requests[len(asked) :]] == (["tasks/get"] if "still" in expected else [])
    if "ref" in expected:
        assert said(egress.requests[0]) == asked[0]


@those("asks")
async def test_a_recorded_question_keeps_what_is_needed_to_answer_it(expected: dict[str, Any]) -> None:
    agent, _ = speaking(expected)
    turn = Turn(build_message(expected["send"]), ref_of(expected))
    ending = [event async for event in agent.run(turn, call_to(URL, version=expected["version"]))][-1]
    assert isinstance(ending, Ask) and ending.message is not None
    assert [part.data for part in ending.message.parts if isinstance(part.data, dict)] == expected["asks"]


@those("cancels")
async def test_a_recorded_cancellation_tells_the_truth(expected: dict[str, Any]) -> None:
    agent, egress = speaking(expected)
    ref = ref_of(expected)
    assert ref is not None
    assert await agent.cancel(ref, call_to(URL, version=expected["version"])) is expected["cancels"]
    asked = recorded(expected)[0]["request"]["json"]
    looked = [("tasks/get", ref.task_id)] if "still" in expected else []  # whether a task that can't be canceled waits for an answer
    assert [(each["method"], each["params"]["id"]) for each in egress.requests] == [(asked["method"], asked["params"]["id"]), *looked]


@those("reads")
def test_a_recorded_task_is_read(expected: dict[str, Any]) -> None:
    answer = recorded(expected)[0]["response"]["json"]
    task = rpc.read_event(json.dumps(answer).encode(), answer["id"])
    assert isinstance(task, Task) and task.status.state is TaskState[expected["reads"]]


@those("refused")
def test_a_recorded_refusal_is_told_by_its_code(expected: dict[str, Any]) -> None:
    answer = recorded(expected)[0]["response"]["json"]
    with pytest.raises(rpc.PeerError) as refused:
        rpc.read_event(json.dumps(answer).encode(), answer["id"])
    assert refused.value.code == expected["refused"]


@those("card")
def test_a_recorded_card_says_which_version_to_speak(expected: dict[str, Any]) -> None:
    card = read_card(recorded(expected)[0]["response"]["json"])
    interface = choose_interface(card)
    assert {"name": card.name, "version": interface.version, "streaming": card.streaming} == expected["card"]


def test_a_stream_of_one_whole_task_is_an_answer() -> None:
    body = (FOLDER / "crewai_a2a03" / "cancel_stream.txt").read_bytes()
    reading, events = A2ATurnReader(None), []
    for sent in SseReader().feed(body):
        events += reading.events(rpc.read_event(sent.data, 1))
    assert isinstance(events[-1], Done)
    assert outcome(events)["artifacts"] == [{"text": "echo: slow one"}]
