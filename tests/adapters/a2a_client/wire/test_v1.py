"""The 1.0 wire: what callers may say, and the name of the field when they may not."""

import json
import os
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import msgspec
import pytest
from a2a import types
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from adapters.a2a_client.wire import v1
from adapters.task import Message, Part, Role, StreamResponse, Task, TaskState, TaskStatus, encode
from policies.strict_json import parse
from tests.strategies import messages, peer_events, tasks

MESSAGE = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}


def params(**changes: Any) -> dict[str, Any]:
    return {"message": {**MESSAGE, **changes}}


@given(messages)
def test_a_message_crosses_the_wire_unchanged(message: Message) -> None:
    assert v1.read_send_params({"message": json.loads(encode(message))}).message == message


@given(tasks)
def test_a_task_crosses_the_wire_unchanged(task: Task) -> None:
    read = msgspec.json.decode(encode(v1.send_result(task)), type=StreamResponse)
    assert read.task == task
    assert v1.clean_member(read) == task


def test_a_response_with_two_members_or_none_is_not_clean() -> None:
    message = Message("m1", Role.AGENT, (Part(text="hi"),))
    both = StreamResponse(message=message, task=Task("t", "c", TaskStatus(TaskState.WORKING)))
    assert [v1.clean_member(each) for each in (StreamResponse(), both, StreamResponse(message=message))] == [None, None, message]


@given(peer_events)
def test_the_reference_implementation_reads_what_we_write(event: Any) -> None:
    kind = {"Task": types.Task, "Message": types.Message}.get(type(event).__name__) or getattr(types, type(event).__name__)
    read = ParseDict(json.loads(encode(event)), kind())  # raises ParseError for unknown fields, unknown enum values and bad times
    assert {field.json_name for field, _ in read.ListFields()} <= json.loads(encode(event)).keys()


def test_all_of_a_send_request_is_read() -> None:
    configuration = {"acceptedOutputModes": ["text/plain"], "historyLength": 0, "returnImmediately": True}
    read = v1.read_send_params({"message": MESSAGE, "configuration": configuration, "metadata": {"a": None}, "tenant": "t", "later": 1})
    assert read.message == Message("m1", Role.USER, (Part(text="hi"),))
    assert (read.configuration.accepted_output_modes, read.configuration.history_length) == (("text/plain",), 0)
    assert (read.configuration.return_immediately, read.metadata, read.tenant) == (True, {"a": None}, "t")


def test_without_configuration_the_call_blocks_and_the_history_is_whole() -> None:
    read = v1.read_send_params(params())
    assert (read.configuration.return_immediately, read.configuration.history_length) == (False, None)


def test_null_means_absent_but_null_data_is_data() -> None:
    part = {"text": None, "data": None, "metadata": {"kept": None}}
    read = v1.read_send_params({"message": {**MESSAGE, "contextId": None, "parts": [part]}, "configuration": None})
    assert read.message.parts == (Part(data=None, metadata={"kept": None}),)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ([], "params"),
        ({}, "message"),
        ({"message": "hi"}, "message"),
        ({"message": {"role": "ROLE_USER", "parts": [{"text": "hi"}]}}, "message.messageId"),
        (params(messageId=""), "message.messageId"),
        (params(messageId="m" * 257), "message.messageId"),
        (params(messageId=5), "message.messageId"),
        (params(contextId="c" * 257), "message.contextId"),
        (params(taskId=["t"]), "message.taskId"),
        ({"message": {"messageId": "m1", "parts": [{"text": "hi"}]}}, "message.role"),
        (params(role="user"), "message.role"),
        (params(role="ROLE_UNSPECIFIED"), "message.role"),
        (params(parts=[]), "message.parts"),
        (params(parts={"text": "hi"}), "message.parts"),
        (params(parts=[{"text": "hi"}] * 1001), "message.parts"),
        (params(parts=[{"text": "hi"}, {}]), "message.parts[1]"),
        (params(parts=[{"mediaType": "text/plain"}]), "message.parts[0]"),
        (params(parts=[{"text": "hi", "url": "http://a.example"}]), "message.parts[0]"),
        (params(parts=[{"raw": "not base64!"}]), "message.parts[0]"),
        (params(parts=[{"text": 5}]), "message.parts[0].text"),
        (params(parts=["hi"]), "message.parts[0]"),
        (params(metadata=[]), "message.metadata"),
        ({"message": MESSAGE, "configuration": {"historyLength": -1}}, "configuration.historyLength"),
        ({"message": MESSAGE, "configuration": {"historyLength": "1"}}, "configuration.historyLength"),
        ({"message": MESSAGE, "configuration": {"returnImmediately": 1}}, "configuration.returnImmediately"),
        ({"message": MESSAGE, "tenant": 1}, "tenant"),
    ],
)
def test_what_is_invalid_is_refused_by_the_name_of_its_field(bad: Any, field: str) -> None:
    with pytest.raises(v1.BadMessage) as refused:
        v1.read_send_params(bad)
    assert refused.value.field == field
    assert refused.value.problem


@pytest.mark.parametrize("secret", ["hunter2", {"hunter2": 1}, ["hunter2"]])
@pytest.mark.parametrize("field", ["role", "messageId", "parts", "metadata", "extensions"])
def test_a_refusal_never_quotes_the_value(field: str, secret: Any) -> None:
    try:
        v1.read_send_params(params(**{field: secret}))
    except v1.BadMessage as refused:
        assert "hunter2" not in str(refused)


def test_task_parameters_need_an_id() -> None:
    read = v1.read_task_params({"id": "task_1", "historyLength": 2})
    assert (read.id, read.history_length) == ("task_1", 2)
    for bad, field in (
        ({}, "id"),
        ({"id": ""}, "id"),
        ({"id": None}, "id"),
        ({"id": "t", "historyLength": -2}, "historyLength"),
        (None, "params"),
    ):
        with pytest.raises(v1.BadMessage) as refused:
            v1.read_task_params(bad)
        assert refused.value.field == field


def test_answers_carry_the_callers_id_whatever_it_is() -> None:
    assert v1.result_bytes("a\n", {"x": 1}) == b'{"jsonrpc":"2.0","id":"a\\n","result":{"x":1}}'
    assert (
        v1.error_bytes(None, -32600, 'say "please"') == b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"say \\"please\\""}}'
    )
    assert json.loads(v1.error_bytes(7, -32602, "no", [{"@type": "x"}]))["error"]["data"] == [{"@type": "x"}]


@given(st.integers(0, 200))
def test_nesting_is_bounded(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    assert v1.is_bounded(value) is (depth <= v1.DEPTH_LIMIT)


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_does_not_have_are_found(number: float) -> None:
    assert not v1.is_bounded({"a": [number]})


@pytest.mark.parametrize("text", [b"2.0", b"2", b"-0.0", b"9007199254740993"])
def test_a_number_in_data_is_handed_on_as_it_was_written(text: bytes) -> None:
    given = parse(b'{"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": {"n": %s}}]}}' % text)
    assert b'{"n":%s}' % text in encode(v1.read_send_params(given).message)
