"""Answers of agents, read from bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.a2a_client.wire import rpc, v03
from adapters.contract import UpstreamFault
from adapters.task import Message, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState, encode
from tests.fakes.recordings import every_exchange
from tests.strategies import peer_events, plain, tasks

STREAMED = {"Task": "task", "Message": "message", "TaskStatusUpdateEvent": "status_update", "TaskArtifactUpdateEvent": "artifact_update"}
RECORDED = [
    (name, exchange["response"]["json"]) for name, exchange in every_exchange() if (exchange["response"].get("json") or {}).get("result")
]


def answer(result: Any, request_id: Any = 7) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result})


@given(peer_events)
def test_1_0_is_read_as_it_was_written(event: Any) -> None:
    wrapped = StreamResponse(**{STREAMED[type(event).__name__]: event})
    assert rpc.read_event(answer(wrapped), 7) == event


@given(tasks)
def test_a_task_is_read_from_either_version(task: Task) -> None:
    assert rpc.read_task(answer(task), 7) == task
    assert plain(rpc.read_task(answer(v03.task_json(task)), 7)) == plain(task)


@pytest.mark.parametrize(("name", "recorded"), RECORDED, ids=[name for name, _ in RECORDED])
def test_what_real_agents_answered_is_read(name: str, recorded: dict[str, Any]) -> None:
    read = rpc.read_event(json.dumps(recorded).encode(), recorded["id"])
    assert isinstance(read, Task)
    words = json.dumps(recorded).upper().replace("-", "_")
    assert read.status.state.removeprefix("TASK_STATE_") in words
    assert read.status.timestamp.endswith("Z") or not read.status.timestamp


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"id":7}',
        b'{"id":7,"result":null}',
        b'{"id":7,"result":{"task":null}}',
        b"\xff\xfe",
        b'{"id":7,"result":{"task":',
        b"[" * 100_000,
        b'{"id":7,"result":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"id":7,"id":7,"result":{"parts":[]}}',
        b'{"id":7,"result":{"message":{"messageId":"m","role":"ROLE_AGENT","parts":[{"data":1e400}]}}}',
        b'{"id":7,"result":{"message":{"messageId":"m","role":"ROLE_AGENT","parts":[{"data":' + b"[" * 100 + b"]" * 100 + b"}]}}}",
        b'{"id":7,"result":{"message":{"messageId":"m","role":"ROLE_AGENT","parts":[{"text":"\\ud800"}]}}}',
        answer({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x"}]}}, 8),
        answer({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x"}]}}, None),
        answer({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x"}]}}, True),
    ],
)
def test_what_is_no_answer_to_us_is_a_fault(body: bytes) -> None:
    with pytest.raises(UpstreamFault):
        rpc.read_event(body, 7)
    with pytest.raises(UpstreamFault):
        rpc.read_task(body, 7)


def test_an_id_given_back_as_a_string_is_still_ours() -> None:
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x"}]}
    assert isinstance(rpc.read_event(answer({"message": message}, "7"), 7), Message)


@pytest.mark.parametrize("error", [{"code": -32001, "message": "hunter2"}, {"code": "hunter2"}, "hunter2", {"code": True}])
def test_an_error_tells_its_code_and_never_its_text(error: Any) -> None:
    for body in (encode({"id": 7, "error": error}), encode({"id": None, "error": error, "result": None})):
        with pytest.raises(rpc.PeerError) as refused:
            rpc.read_event(body, 7)
        assert "hunter2" not in refused.value.public
        assert refused.value.code == (error["code"] if isinstance(error, dict) and type(error["code"]) is int else -32603)


@pytest.mark.parametrize(
    ("status", "body", "public"),
    [
        (502, b"<html>hunter2", "The agent answered with HTTP 502"),
        (401, b"", "The agent refused the gateway's credential (HTTP 401)"),
        (400, b'{"error":{"code":-32601,"message":"hunter2"}}', "The agent answered with JSON-RPC error -32601 (unknown method)"),
        (500, b'{"error":{"code":"x"}}', "The agent answered with HTTP 500"),
        (500, b"[1]", "The agent answered with HTTP 500"),
    ],
)
def test_an_http_error_tells_its_status_and_never_its_text(status: int, body: bytes, public: str) -> None:
    assert rpc.http_fault(status, body).public == public


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_a_fault(body: bytes) -> None:
    with pytest.raises(UpstreamFault):
        rpc.read_event(body, 7)


@given(st.data(), peer_events)
def test_a_cut_answer_is_a_fault(data: st.DataObject, event: Any) -> None:
    whole = answer(v03.event_json(event))
    with pytest.raises(UpstreamFault):
        rpc.read_event(whole[: data.draw(st.integers(0, len(whole) - 1))], 7)


def test_a_flat_file_of_the_older_version_is_not_taken_for_an_empty_part() -> None:
    artifact = {"artifactId": "a", "parts": [{"kind": "file", "file": {"uri": "http://a.example"}}]}
    read = rpc.read_event(answer({"artifactUpdate": {"taskId": "t", "contextId": "c", "artifact": artifact}}), 7)
    assert isinstance(read, TaskArtifactUpdateEvent)
    assert read.artifact.parts[0].url == "http://a.example"


def test_a_task_may_come_wrapped_where_it_should_be_flat() -> None:
    task = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_CANCELED"}}
    assert rpc.read_task(answer({"task": task}), 7).status.state is TaskState.CANCELED
