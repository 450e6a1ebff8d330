"""That no wrong reply of any workload passes for a right one."""

import json

from tests.bench.answers import EVENTS, get_task_fault, send_0_3_fault, send_fault, stream_fault, tool_fault
from tests.bench.echo import answer_request

STREAM = "".join(
    f'id: {number}\ndata: {{"jsonrpc":"2.0","id":7,"result":{result}}}\n\n'
    for number, result in enumerate(
        (
            '{"task":{"id":"t","status":{"state":"TASK_STATE_SUBMITTED"}}}',
            *(f'{{"artifactUpdate":{{"artifact":{{"parts":[{{"text":"{letter}"}}]}}}}}}' for letter in "abcdefghijklmnopqr"),
            '{"statusUpdate":{"status":{"state":"TASK_STATE_COMPLETED"}}}',
        ),
        start=2,
    )
).encode()


def test_every_way_to_stream_wrongly_is_a_fault() -> None:
    text = "abcdefghijklmnopqr"
    assert STREAM.count(b"data: ") == EVENTS
    assert stream_fault(STREAM, 7, text) == ""
    for changed in (
        (b'"id":7', b'"id":8'),
        (b'"text":"b"', b'"text":"c"'),
        (b"COMPLETED", b"FAILED"),
        (b'{"task":', b'{"message":'),
        (b"id: 5\n", b"id: 5\n\n"),
        (b'"text":"b"', b'"text":"\xff"'),
        (STREAM.split(b"\n\n")[3] + b"\n\n", b""),
    ):
        assert stream_fault(STREAM.replace(*changed), 7, text), changed


def test_another_task_or_state_than_the_one_asked_for_is_a_fault() -> None:
    good = b'{"jsonrpc":"2.0","id":7,"result":{"id":"t_1","status":{"state":"TASK_STATE_COMPLETED"}}}'
    assert get_task_fault(good, 7, "t_1") == ""
    for changed in ((b'"id":7', b'"id":8'), (b"t_1", b"t_2"), (b"COMPLETED", b"WORKING"), (b"status", b"was")):
        assert get_task_fault(good.replace(*changed), 7, "t_1"), changed


def test_a_task_of_0_3_that_is_not_the_completed_echo_is_a_fault() -> None:
    message = {"jsonrpc": "2.0", "id": 7, "method": "message/send", "params": {"message": {"parts": [{"kind": "text", "text": "t"}]}}}
    status, good = answer_request("/older", {}, json.dumps(message).encode())
    assert (status, send_0_3_fault(good, 7, "t")) == (200, "")
    for changed in ((b'"id":7', b'"id":8'), (b'"t"', b'"u"'), (b"completed", b"failed"), (b'"task"', b'"message"')):
        assert send_0_3_fault(good.replace(*changed), 7, "t"), changed


def test_every_way_to_answer_wrongly_is_a_fault() -> None:
    result = {"resultType": "complete", "content": [{"type": "text", "text": "t"}], "isError": False}
    good = json.dumps({"jsonrpc": "2.0", "id": 7, "result": result}).encode()
    assert tool_fault(good, 7, "t") == ""
    for changed in (
        (b"7", b"8"),
        (b'"t"', b'"u"'),
        (b"false", b"true"),
        (b"complete", b"input_required"),
        (b"}}", b"}"),
        (b'"t"', b'"\xff"'),
    ):
        assert tool_fault(good.replace(*changed), 7, "t"), changed


def test_a_task_that_is_not_the_completed_echo_is_a_fault() -> None:
    message = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"parts": [{"text": "t"}]}}}
    status, good = answer_request("/a2a", {b"a2a-version": b"1.0"}, json.dumps(message).encode())
    assert (status, send_fault(good, 7, "t")) == (200, "")
    for changed in ((b'"id":7', b'"id":8'), (b'"t"', b'"u"'), (b"COMPLETED", b"FAILED"), (b"artifacts", b"history")):
        assert send_fault(good.replace(*changed), 7, "t"), changed
