"""The A2A adapter against scripted peers: which version, which method, what of a conversation, and every way to answer wrongly."""

from collections.abc import Callable
from typing import Any

import pytest

from adapters.a2a_client.agent import A2AAgent
from adapters.contract import (
    AnswerRefused,
    Ask,
    Call,
    Canceled,
    CannotCancel,
    Done,
    Event,
    Failed,
    Progress,
    RefLearned,
    Replied,
    Turn,
    Unreachable,
    UpstreamFault,
    VendorRef,
)
from adapters.task import Message, Part, Role, text_of
from adapters.upstream.guarded import GuardedAdapter
from tests.fakes.a2a_calls import ScriptedEgress, answers, call_to, refuses, said, sends, streams, turn
from tests.fakes.recordings import exchanges

URL = "http://agent.example/"
REFUND = "Agent requires input:\n- approval: {'question': 'Refund?', 'input': {'amount': 42}}"


def task(state: str, task_id: str = "t", **members: Any) -> dict[str, Any]:
    return {"id": task_id, "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}, **members}


def update(state: str) -> dict[str, Any]:
    return {"statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}}}


def agent(egress: ScriptedEgress) -> tuple[A2AAgent, list[float]]:
    """The adapter, and the pauses it made, which take no time here."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    return A2AAgent(egress, pause), pauses  # type: ignore[arg-type]  # what an Egress does is all that is needed of one


async def run(egress: ScriptedEgress, asked: Turn | None = None, call: Call | None = None) -> list[Event]:
    guarded = GuardedAdapter(agent(egress)[0])
    return [event async for event in guarded.run(asked or turn("hi"), call or call_to(URL))]


async def test_a_blocking_call_is_one_request_in_1_0() -> None:
    egress = ScriptedEgress(answers({"task": task("COMPLETED", artifacts=[{"artifactId": "a", "parts": [{"text": "hello"}]}])}))
    events = await run(egress, call=call_to(URL, tenant="acme"))
    assert events[0] == RefLearned(VendorRef("c", "t"))
    assert said(events) == "hello"
    assert events[-1] == Done()
    message = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    assert egress.requests == [{"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message, "tenant": "acme"}}]
    assert egress.headers[0] == {
        "Authorization": "Bearer hop",
        "A2A-Version": "1.0",
        "Content-Type": "application/json",
        "Accept": "application/json",
    }


async def test_a_blocking_call_is_one_request_in_0_3() -> None:
    egress = ScriptedEgress(answers({"kind": "message", "messageId": "r", "role": "agent", "parts": [{"kind": "text", "text": "hello"}]}))
    events = await run(egress, call=call_to(URL, version="0.3.0"))
    assert events == [Replied(Message("r", Role.AGENT, (Part(text="hello"),)))]
    message = {"kind": "message", "messageId": "m-1", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    assert egress.requests[0]["method"] == "message/send"
    assert egress.requests[0]["params"] == {"message": message, "configuration": {"blocking": True}}
    assert "A2A-Version" not in egress.headers[0]


async def test_only_the_agents_own_ids_reach_it() -> None:
    egress = ScriptedEgress(answers({"task": task("COMPLETED")}))
    await run(egress, turn("yes", VendorRef("c", "t")))
    sent = egress.requests[0]["params"]["message"]
    assert (sent["contextId"], sent["taskId"], sent["messageId"]) == ("c", "t", "m-1")
    assert "ours" not in str(egress.requests)


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_accepted_output_modes_are_handed_on(version: str) -> None:
    egress = ScriptedEgress(answers({"task": task("COMPLETED")}))
    asked = turn("hi")
    await run(egress, Turn(asked.message, accepted_output_modes=("text/plain",)), call_to(URL, version=version))
    assert egress.requests[0]["params"]["configuration"]["acceptedOutputModes"] == ["text/plain"]


async def test_an_answer_before_the_end_is_asked_for_again_and_less_and_less_often() -> None:
    working = answers(task("WORKING"))
    egress = ScriptedEgress(answers({"task": task("SUBMITTED")}), *[working] * 12, answers(task("COMPLETED")))
    adapter, pauses = agent(egress)
    events = [event async for event in adapter.run(turn("hi"), call_to(URL, tenant="acme"))]
    assert events == [RefLearned(VendorRef("c", "t")), Progress(), Done()]
    assert egress.methods == ["SendMessage", *["GetTask"] * 13]
    assert egress.requests[1]["params"] == {"id": "t", "tenant": "acme"}
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= 2


async def test_a_peer_that_refuses_1_0_methods_is_spoken_to_in_0_3_from_then_on() -> None:
    recorded = exchanges("strands_a2a03/v1_client")[0]["response"]["json"]["error"]
    done = answers(exchanges("strands_a2a03/send")[0]["response"]["json"]["result"])
    egress = ScriptedEgress(refuses(recorded["code"]), done, done, answers({"kind": "task", **task("CANCELED")}))
    adapter, _ = agent(egress)
    for _ in range(2):
        events = [event async for event in adapter.run(turn("hi"), call_to(URL))]
        assert isinstance(events[-1], Done)
    assert await adapter.cancel(VendorRef("c", "t"), call_to(URL))
    assert egress.methods == ["SendMessage", "message/send", "message/send", "tasks/cancel"]


async def test_a_peer_that_knows_neither_version_is_tried_anew_next_time() -> None:
    egress = ScriptedEgress(refuses(-32601), refuses(-32601), answers({"task": task("COMPLETED")}))
    adapter, _ = agent(egress)
    guarded = GuardedAdapter(adapter)
    events = [event async for event in guarded.run(turn("hi"), call_to(URL))]
    assert isinstance(events[-1], Failed)
    assert "-32601" in events[-1].reason
    assert [event async for event in guarded.run(turn("hi"), call_to(URL))][-1] == Done()
    assert egress.methods == ["SendMessage", "message/send", "SendMessage"]


@pytest.mark.parametrize(
    ("answer", "confirmed"),
    [
        (answers(task("CANCELED")), True),
        (answers(task("WORKING")), False),  # it is being canceled: nobody waits for that
        (answers(task("COMPLETED")), False),
        *[(refuses(code), False) for code in (-32001, -32002, -32004)],
    ],
)
async def test_a_stop_is_one_request(answer: Callable[..., Any], confirmed: bool) -> None:
    egress = ScriptedEgress(answer)
    assert await agent(egress)[0].stop(VendorRef("c", "t"), call_to(URL)) is confirmed
    assert egress.methods == ["CancelTask"]


async def test_a_task_without_a_name_is_not_stopped_and_a_broken_answer_is_a_fault() -> None:
    egress = ScriptedEgress(refuses(-32603))
    assert not await agent(egress)[0].stop(VendorRef("c"), call_to(URL))
    with pytest.raises(UpstreamFault):
        await agent(egress)[0].stop(VendorRef("c", "t"), call_to(URL))


async def test_an_older_peer_is_found_out_by_a_cancellation_too() -> None:
    egress = ScriptedEgress(refuses(-32601), answers({"kind": "task", **task("CANCELED")}))
    assert await agent(egress)[0].cancel(VendorRef("c", "t"), call_to(URL))
    assert egress.methods == ["CancelTask", "tasks/cancel"]


async def test_a_watched_turn_streams_when_the_card_says_so() -> None:
    piece = {"artifactUpdate": {"taskId": "t", "contextId": "c", "artifact": {"artifactId": "a", "parts": [{"text": "x"}]}}}
    egress = ScriptedEgress(streams({"task": task("SUBMITTED")}, update("WORKING"), piece, update("COMPLETED"), update("FAILED")))
    events = await run(egress, turn("hi", stream=True))
    assert [type(event).__name__ for event in events] == ["RefLearned", "Progress", "ArtifactPiece", "Done"]
    assert egress.methods == ["SendStreamingMessage"]
    assert egress.headers[0]["Accept"] == "text/event-stream"


async def test_a_watched_turn_is_a_plain_request_when_the_card_says_nothing_of_streams() -> None:
    egress = ScriptedEgress(answers({"task": task("COMPLETED")}))
    assert (await run(egress, turn("hi", stream=True), call_to(URL, streaming=False)))[-1] == Done()
    assert egress.methods == ["SendMessage"]


@pytest.mark.parametrize(
    ("refusals", "methods"),
    [
        ([-32004], ["SendStreamingMessage", "SendMessage"]),
        ([-32601], ["SendStreamingMessage", "message/stream"]),
        ([-32601, -32601], ["SendStreamingMessage", "message/stream", "message/send"]),
        ([-32601, -32004], ["SendStreamingMessage", "message/stream", "message/send"]),
    ],
)
async def test_a_peer_that_refuses_to_stream_is_asked_plainly(refusals: list[int], methods: list[str]) -> None:
    egress = ScriptedEgress(*[refuses(code) for code in refusals], answers({"task": task("COMPLETED")}))
    assert (await run(egress, turn("hi", stream=True)))[-1] == Done()
    assert egress.methods == methods


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED"])
async def test_a_stream_without_end_is_followed_by_a_question_about_the_task(ending: str) -> None:
    egress = ScriptedEgress(streams({"task": task("WORKING")}), answers(task("WORKING")), answers(task(ending)))
    events = await run(egress, turn("hi", stream=True))
    assert isinstance(events[-1], Done if ending == "COMPLETED" else Failed)
    assert egress.methods == ["SendStreamingMessage", "GetTask", "GetTask"]


async def test_a_stream_without_any_event_has_failed() -> None:
    assert isinstance((await run(ScriptedEgress(streams()), turn("hi", stream=True)))[-1], Failed)


async def test_an_error_inside_a_stream_fails_the_turn() -> None:
    def broken(request: dict[str, Any]) -> tuple[int, str, list[bytes]]:
        status, kind, chunks = streams({"task": task("WORKING")})(request)
        return status, kind, [*chunks, b'data: {"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"hunter2"}}\n\n']

    events = await run(ScriptedEgress(broken), turn("hi", stream=True))
    assert isinstance(events[-1], Failed)
    assert "-32603" in events[-1].reason
    assert "hunter2" not in events[-1].reason


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_state_is_asked_about_once_and_never_taken_for_completed(stream: bool) -> None:
    strange = {"task": task("PAUSED")}
    sent = streams(strange) if stream else answers(strange)
    events = await run(ScriptedEgress(sent, answers(task("COMPLETED"))), turn("hi", stream=stream))
    assert events == [RefLearned(VendorRef("c", "t")), Done()]
    events = await run(ScriptedEgress(sent, answers(task("PAUSED"))), turn("hi", stream=stream))
    assert events[0] == RefLearned(VendorRef("c", "t"))
    assert isinstance(events[-1], Failed)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "body", "told"),
    [
        (200, "text/html", b"<html>hunter2</html>", "JSON"),
        (502, "text/html", b"<html>hunter2</html>", "HTTP 502"),
        (302, "text/html", b"", "HTTP 302"),
        (401, "application/json", b'{"detail":"hunter2"}', "credential"),
        (200, "application/json", b'{"jsonrpc":"2.0","id":99,"result":{"message":{}}}', "another request"),
        (200, "application/json", b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"hunter2"}}', "-32603"),
        (200, "application/json", b'{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"t"', "JSON"),
        (200, "application/json", b'{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"t"}}}', "A2A"),
    ],
)
async def test_a_wrong_answer_fails_the_turn_with_a_reason_of_ours(stream: bool, status: int, kind: str, body: bytes, told: str) -> None:
    egress = ScriptedEgress(sends(status, kind, body))
    events = await run(egress, turn("hi", stream=stream))
    assert isinstance(events[-1], Failed)
    assert told in events[-1].reason
    assert "hunter2" not in events[-1].reason
    assert len(egress.requests) == 1


async def test_a_poll_answered_about_another_task_fails_the_turn() -> None:
    egress = ScriptedEgress(answers({"task": task("SUBMITTED")}), answers(task("COMPLETED", task_id="another")))
    assert isinstance((await run(egress))[-1], Failed)


@pytest.mark.parametrize(
    ("replies", "confirmed"),
    [
        ([answers(task("CANCELED"))], True),
        ([answers(task("WORKING")), answers(task("CANCELED"))], True),
        ([answers(task("WORKING")), answers(task("COMPLETED"))], False),
        ([answers({**exchanges("pydantic_fasta2a/cancel")[1]["response"]["json"]["result"], "id": "t"})], False),
        ([refuses(-32002), answers(task("WORKING"))], False),
        ([refuses(-32002), answers(task("CANCELED"))], True),
        ([refuses(-32002), refuses(-32001)], False),
        ([refuses(-32001)], False),
    ],
)
async def test_a_cancellation_is_true_only_when_the_agent_confirmed_it(replies: list[Callable[..., Any]], confirmed: bool) -> None:
    egress = ScriptedEgress(*replies)
    assert await GuardedAdapter(agent(egress)[0]).cancel(VendorRef("c", "t"), call_to(URL)) is confirmed
    assert egress.methods[0] == "CancelTask"


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        ([answers(task("CANCELED", task_id="another"))], UpstreamFault),
        ([sends(500, "text/plain", b"")], UpstreamFault),
        ([refuses(-32603)], UpstreamFault),
        ([refuses(-32004)], CannotCancel),
        ([answers(task("INPUT_REQUIRED"))], CannotCancel),
        ([refuses(-32002), answers(task("INPUT_REQUIRED"))], CannotCancel),
        ([refuses(-32601), refuses(-32601)], CannotCancel),
    ],
)
async def test_no_answer_of_a_kind_is_neither_yes_nor_no_to_a_cancellation(
    replies: list[Callable[..., Any]], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await GuardedAdapter(agent(ScriptedEgress(*replies))[0]).cancel(VendorRef("c", "t"), call_to(URL))


async def test_an_agent_without_a_task_has_nothing_to_cancel() -> None:
    egress = ScriptedEgress()
    assert not await agent(egress)[0].cancel(VendorRef("c"), call_to(URL))
    assert egress.requests == []


def _result(name: str, seq: int) -> Any:
    return exchanges(name)[seq]["response"]["json"].get("result")


@pytest.mark.parametrize(
    ("name", "seqs", "version", "ending", "text"),
    [
        ("pydantic_fasta2a/send_get", [0, 1], "1.0", Done, "echo: hello "),
        ("pydantic_fasta2a/failure", [0, 1], "1.0", Failed, ""),
        ("strands_a2a03/send", [0], "0.3", Done, "echo: \nhello \n"),
        ("strands_a2a03/failure", [0], "0.3", Failed, ""),
        (
            "strands_a2a03/interrupt_resume",
            [0],
            "0.3",
            Ask,
            "Agent requires input:\n- approval: {'question': 'Refund?', 'input': {'amount': 42}}",
        ),
        ("crewai_a2a03/send", [0], "0.3", Done, "echo: hello"),
        ("langgraph/native_a2a", [1], "1.0", Done, "echo: hello v1"),
        ("langgraph/native_a2a", [7], "0.3", Failed, ""),
        ("adk/native_a2a", [0], "1.0", Done, "echo: hello"),
        ("adk/native_a2a", [6], "1.0", Failed, ""),
    ],
)
async def test_recorded_agents_are_understood(name: str, seqs: list[int], version: str, ending: type[Event], text: str) -> None:
    egress = ScriptedEgress(*[answers(_result(name, seq)) for seq in seqs])
    events = await run(egress, call=call_to(URL, version=version))
    assert isinstance(events[-1], ending)
    assert said(events) == text


async def test_a_question_recorded_as_an_artifact_is_asked() -> None:
    events = await run(ScriptedEgress(answers(_result("langgraph/native_a2a", 3))), call=call_to(URL, version="0.3"))
    assert isinstance(events[-1], Ask)
    assert events[-1].message is not None
    assert "Refund 42 EUR?" in str(events[-1].message.parts[0].data)


async def test_a_failing_crew_is_told_by_its_code_alone() -> None:
    error = exchanges("crewai_a2a03/failure")[0]["response"]["json"]["error"]
    events = await run(ScriptedEgress(refuses(error["code"], error["message"])), call=call_to(URL, version="0.3"))
    assert events == [Failed("The agent answered with JSON-RPC error -32603 (internal error)", detail=str(error)[:500], kind="UPSTREAM")]


async def test_an_agent_may_report_that_it_was_canceled() -> None:
    assert (await run(ScriptedEgress(answers({"task": task("CANCELED")}))))[-1] == Canceled()


async def test_what_the_agent_says_with_its_failure_is_its_message() -> None:
    message = {"messageId": "r", "role": "ROLE_AGENT", "parts": [{"text": "out of stock"}], "contextId": "c", "taskId": "t"}
    failed = {**task("FAILED"), "status": {"state": "TASK_STATE_FAILED", "message": message}}
    ending = (await run(ScriptedEgress(answers({"task": failed}))))[-1]
    assert isinstance(ending, Failed)
    assert ending.message is not None
    assert (text_of(ending.message.parts), ending.message.context_id, ending.message.task_id) == ("out of stock", "", "")


def away(request: dict[str, Any]) -> tuple[int, str, list[bytes]]:
    raise UpstreamFault("the upstream can't be reached")


async def test_an_agent_that_is_away_for_a_moment_is_asked_again() -> None:
    egress = ScriptedEgress(answers({"task": task("WORKING")}), away, away, away, answers(task("COMPLETED")))
    assert (await run(egress))[-1] == Done()
    gone = ScriptedEgress(answers({"task": task("WORKING")}), away, away, away, away)
    failed = (await run(gone))[-1]
    assert isinstance(failed, Failed) and failed.kind == "UPSTREAM"


@pytest.mark.parametrize("code", [-32004, -32602, -32600])
async def test_an_answer_that_comes_too_late_finds_out_what_the_agent_did_without_it(code: int) -> None:
    asked = turn("XL", VendorRef("c", "t"))
    egress = ScriptedEgress(refuses(code), answers(task("WORKING")), answers(task("COMPLETED")))
    assert (await run(egress, asked))[-1] == Done()
    assert egress.methods == ["SendMessage", "GetTask", "GetTask"]
    waiting = ScriptedEgress(refuses(code), answers(task("INPUT_REQUIRED")))
    refused = (await run(waiting, asked))[-1]
    assert isinstance(refused, AnswerRefused) and str(code) in refused.detail


async def test_only_an_answer_that_was_not_sent_leaves_the_task_waiting() -> None:
    unsent = Unreachable("the upstream can't be reached")
    unsent.is_unsent = True

    def refuses_connections(request: dict[str, Any]) -> tuple[int, str, list[bytes]]:
        raise unsent

    assert isinstance((await run(ScriptedEgress(*[refuses_connections] * 2), turn("XL", VendorRef("c", "t"))))[-1], AnswerRefused)
    assert isinstance((await run(ScriptedEgress(*[refuses_connections] * 2), turn("XL", VendorRef("c"))))[-1], Failed)  # a new task
    taken = ScriptedEgress(answers({"task": task("WORKING")}), *[refuses_connections] * 4)
    assert isinstance((await run(taken, turn("XL", VendorRef("c", "t"))))[-1], Failed)


async def test_a_task_that_waits_is_watched_less_and_less_often_until_its_agent_moves_it() -> None:
    states = [*["AUTH_REQUIRED"] * 12, "WORKING", "WORKING", "COMPLETED"]
    adapter, pauses = agent(ScriptedEgress(*[answers(task(state)) for state in states]))
    assert [event async for event in adapter.watch(VendorRef("c", "t"), call_to(URL))] == [Progress(), Done()]
    assert pauses[:12] == sorted(pauses[:12]) and (pauses[0], pauses[12]) == (1.0, 30.0)
    assert max(pauses[13:]) < 0.2
