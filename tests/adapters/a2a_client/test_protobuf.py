"""A2A in protobuf: what goes out comes back, in both versions, and what protobuf can't carry is an error of its own."""

import math
from typing import Any

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2, proto_utils
from a2a.types import a2a_pb2
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given

from adapters.a2a_client.grpc import _build_send_request, _read_event, _read_task
from adapters.a2a_client.protobuf import NotCarried, reason_in, status_bytes, to_json, to_protobuf
from adapters.a2a_client.wire import v03_proto, v03_requests, v1
from adapters.a2a_client.wire.tolerant import PeerEvent, UnknownState
from adapters.a2a_client.wire.transport import A2APeer
from adapters.contract import UpstreamFault
from adapters.task import Message, Part, Role, StreamResponse, Task, TaskStatusUpdateEvent
from tests.strategies import messages, peer_events, plain, tasks

NEW, OLD = A2APeer("host:1", "acme", is_v03=False, can_stream=True), A2APeer("host:1", "", is_v03=True, can_stream=True)


def wrapped(event: PeerEvent) -> StreamResponse:
    match event:
        case Task():
            return StreamResponse(task=event)
        case Message():
            return StreamResponse(message=event)
        case TaskStatusUpdateEvent():
            return StreamResponse(status_update=event)
    return StreamResponse(artifact_update=event)


def through_bytes(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@given(peer_events)
def test_an_event_in_1_0_loses_nothing(event: PeerEvent) -> None:
    assert _read_event(NEW, through_bytes(to_protobuf(wrapped(event), a2a_pb2.StreamResponse))) == event


@given(tasks)
def test_a_task_in_1_0_loses_nothing(task: Task) -> None:
    assert _read_task(NEW, through_bytes(to_protobuf(task, a2a_pb2.Task))) == task


@given(messages)
def test_a_message_sent_in_1_0_loses_nothing(message: Message) -> None:
    request = through_bytes(_build_send_request(NEW, message, ("text/plain",)))
    read = v1.read_send_params(to_json(request))
    assert (read.message, read.configuration.accepted_output_modes, read.tenant) == (message, ("text/plain",), "acme")


@given(messages)
def test_a_message_sent_in_0_3_tells_what_0_3_has_no_place_for(message: Message) -> None:
    request = through_bytes(_build_send_request(OLD, message, ("text/plain",)))
    read = v03_requests.read_send_params(to_json(request))
    assert plain(read.message) == plain(message)
    assert (read.configuration.accepted_output_modes, read.configuration.return_immediately) == (("text/plain",), False)


@given(peer_events)
def test_an_event_in_0_3_tells_what_0_3_has_no_place_for(event: PeerEvent) -> None:
    sent = through_bytes(to_protobuf(v03_proto.event_json(event), a2a_v0_3_pb2.StreamResponse))
    assert plain(_read_event(OLD, sent)) == plain(event)


@given(messages)
def test_the_reference_implementation_reads_our_0_3(message: Message) -> None:
    read = proto_utils.FromProto.message(_build_send_request(OLD, message, ()).request)
    assert read.message_id == message.message_id
    assert len(read.parts) == len(message.parts)
    for ours, theirs in zip(message.parts, read.parts, strict=True):
        if isinstance(ours.text, str):
            assert theirs.root.text == ours.text
        elif isinstance(ours.raw, str):
            assert theirs.root.file.bytes == ours.raw


def data(value: Any) -> Message:
    return Message("m", Role.USER, (Part(data=value),))


def nested(depth: int) -> Any:
    return 1 if depth == 0 else {"a": nested(depth - 1)}


@pytest.mark.parametrize("value", [nested(31), 10**400, 2**53 + 1, -(2**53) - 1, {"deep": [2**64 - 1]}])
def test_what_protobuf_can_not_carry_is_refused(value: Any) -> None:
    with pytest.raises(NotCarried):
        _build_send_request(NEW, data(value), ())


def test_what_is_not_refused_can_be_read() -> None:
    read = v1.read_send_params(to_json(through_bytes(_build_send_request(NEW, data(nested(30)), ()))))
    assert read.message.parts[0].data == nested(30)


def test_whole_numbers_stay_whole() -> None:
    read = v1.read_send_params(to_json(through_bytes(_build_send_request(NEW, data([1, 2.5, 2**53]), ())))).message.parts[0].data
    assert [type(number) for number in read] == [int, float, int]


def test_a_number_that_json_does_not_know_is_not_an_answer() -> None:
    response = to_protobuf(StreamResponse(message=data(1)), a2a_pb2.StreamResponse)
    response.message.parts[0].data.number_value = math.nan
    with pytest.raises(UpstreamFault):
        _read_event(NEW, response)


@pytest.mark.parametrize(("peer", "kind"), [(NEW, a2a_pb2), (OLD, a2a_v0_3_pb2)])
@pytest.mark.parametrize("state", [0, 99])
def test_a_state_that_nobody_knows_is_asked_about(peer: A2APeer, kind: Any, state: int) -> None:
    response = kind.StreamResponse(task=kind.Task(id="t", context_id="c"))
    response.task.status.state = state
    with pytest.raises(UnknownState) as unknown:
        _read_event(peer, response)
    assert unknown.value.task_id == "t"


def test_file_bytes_that_are_not_base64_underneath_are_taken_as_they_are() -> None:
    response = a2a_v0_3_pb2.StreamResponse()
    part = response.msg.content.add()
    response.msg.message_id = "m"
    part.file.file_with_bytes = b"\xff\x00raw"
    read = _read_event(OLD, response)
    assert isinstance(read, Message)
    assert read.parts == (Part(raw="/wByYXc="),)


@pytest.mark.parametrize("name", ["t", "tasks/", "tasks/t/more", 5, None])
def test_a_task_is_named_as_0_3_names_it(name: Any) -> None:
    with pytest.raises(v1.BadMessage):
        v03_requests.read_task_params({"name": name})
    assert v03_requests.read_task_params({"name": "tasks/t", "history_length": 2}).history_length == 2


def test_0_3_is_read_under_the_names_of_its_proto_file_too() -> None:
    request = _build_send_request(OLD, Message("m", Role.USER, (Part(raw="aGk=", media_type="a/b"),), context_id="c"), ())
    read = v03_requests.read_send_params(json_format.MessageToDict(request, preserving_proto_field_name=True))
    assert read.message == Message("m", Role.USER, (Part(raw="aGk=", media_type="a/b"),), context_id="c")


def test_a_configuration_of_0_3_does_not_block_unless_it_says_so() -> None:
    message = v03_proto.message_json(data({}))
    assert not v03_requests.read_send_params({"message": message}).configuration.return_immediately
    assert v03_requests.read_send_params({"message": message, "configuration": {"history_length": 1}}).configuration.return_immediately


def test_details_are_those_of_google_rpc() -> None:
    violation = {"field": "message.parts", "description": "is empty"}
    given = [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TASK_NOT_FOUND", "domain": "a2a-protocol.org"},
        {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]},
        {"@type": "interlock/decision", "id": "d"},
    ]
    status = status_pb2.Status.FromString(status_bytes(5, "no such task", given))
    assert (status.code, status.message, len(status.details)) == (5, "no such task", 2)
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert (info.reason, info.domain) == ("TASK_NOT_FOUND", "a2a-protocol.org")
    assert request.field_violations[0].field == "message.parts"
    assert reason_in(status.SerializeToString()) == "TASK_NOT_FOUND"
    assert reason_in(b"\xff\xff garbage") == reason_in(b"") == ""


def test_when_to_come_again_is_carried() -> None:  # attack PRO-12
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]
    status = status_pb2.Status.FromString(status_bytes(8, "too fast", details))
    found = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(found) and found.retry_delay.seconds == 7
