"""Laws of the wires: what goes through one, or through one after another, comes out the same; what makes no sense is refused as such."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.a2a_client.wire import lists, push, rpc, tolerant, v03, v03_proto, v03_requests, v1
from adapters.contract import UpstreamFault
from adapters.task import Message, Part, Role, StreamResponse, Task, TaskArtifactUpdateEvent, encode
from tests.strategies import json_values, messages, objects, peer_events, plain


def on_the_wire(value: Any) -> Any:
    return json.loads(encode(value))


def wrapped(event: Any) -> StreamResponse:
    if isinstance(event, Task | Message):
        return v1.send_result(event)
    return StreamResponse(artifact_update=event) if isinstance(event, TaskArtifactUpdateEvent) else StreamResponse(status_update=event)


WIRES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {  # how each writes an event, and reads it
    "1.0": (wrapped, tolerant.read_event),
    "0.3": (v03.event_json, tolerant.read_event),
    "0.3 in protobuf": (v03_proto.event_json, lambda value: tolerant.read_event(v03_proto.lift_event(value))),
}
each_wire = pytest.mark.parametrize("wire", WIRES)


def through(wire: str, event: Any) -> Any:
    write, read = WIRES[wire]
    return read(on_the_wire(write(event)))


@given(peer_events)
def test_1_0_is_read_as_it_was_written_whichever_way_it_is_read(event: Any) -> None:
    body = b'{"jsonrpc":"2.0","id":7,"result":%s}' % encode(wrapped(event))
    assert rpc.read_event(body, 7) == through("1.0", event) == event


@each_wire
@pytest.mark.parametrize("other", WIRES)
@given(event=peer_events)
def test_one_wire_after_another_loses_nothing(wire: str, other: str, event: Any) -> None:
    assert plain(through(other, through(wire, event))) == plain(event)


@each_wire
@given(event=peer_events)
def test_what_was_read_is_written_again_as_it_was(wire: str, event: Any) -> None:
    write, read = WIRES[wire]
    first = on_the_wire(write(plain(event)))
    assert on_the_wire(write(read(first))) == first


@given(st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple), st.sampled_from(["", "text/html"]), st.sampled_from(["", "x.html"]))
def test_metadata_tell_what_0_3_has_no_place_for_and_nothing_else(references: tuple[str, ...], kind: str, name: str) -> None:
    message = Message("m", Role.USER, (Part(text="hi", media_type=kind, filename=name),), reference_task_ids=references)
    told = {**({"mediaType": kind} if kind else {}), **({"filename": name} if name else {})}
    for written, parts in ((v03.message_json(message), "parts"), (v03_proto.message_json(message), "content")):
        assert written[parts][0].get("metadata", {}) == ({v03.CARRIED_KEY: told} if told else {})
    assert "metadata" not in v03.message_json(message)
    carried = on_the_wire(v03_proto.message_json(message)).get("metadata", {})
    assert carried == ({v03.CARRIED_KEY: {"referenceTaskIds": list(references)}} if references else {})


@pytest.mark.parametrize("told", [1, {"mediaType": 5}, {"text": "other"}, {"parts": []}, {"filename": None}, {"filename": ["x"]}])
def test_metadata_that_tell_nonsense_change_no_content(told: Any) -> None:
    part = {"kind": "text", "text": "hi", "metadata": {v03.CARRIED_KEY: told, "own": 1}}
    read = v03.read_send_params({"message": {"messageId": "m", "role": "user", "parts": [part]}}).message.parts
    assert read == (Part(text="hi", metadata={"own": 1}),) or told == 1


@st.composite
def spoilt(draw: st.DrawFn, written: Any) -> Any:
    """JSON that was good, with one of its values replaced, left out, or given another name."""
    if isinstance(written, dict) and written and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(written)))
        rest = {key: value for key, value in written.items() if key != name}
        match draw(st.integers(0, 2)):
            case 0:
                return rest
            case 1:
                return {**rest, draw(st.sampled_from(["kind", "status", "parts", "id", "taskId", "message"])): written[name]}
        return {**rest, name: draw(spoilt(written[name]))}
    if isinstance(written, list) and written and draw(st.booleans()):
        place = draw(st.integers(0, len(written) - 1))
        return [draw(spoilt(each)) if index == place else each for index, each in enumerate(written)]
    return draw(json_values)


@each_wire
@given(data=st.data(), event=peer_events)
def test_a_spoilt_answer_is_an_event_or_a_fault(wire: str, data: st.DataObject, event: Any) -> None:
    write, read = WIRES[wire]
    bad = data.draw(spoilt(on_the_wire(write(event))))
    for reads in (read, lambda value: rpc.read_event(encode({"id": 7, "result": value}), 7)):
        try:
            reads(bad)
        except UpstreamFault as fault:
            assert fault.public


SENDING: dict[str, tuple[Callable[[Message], Any], Callable[[Any], Any]]] = {
    "1.0": (lambda message: message, v1.read_send_params),
    "0.3": (v03.message_json, v03.read_send_params),
    "0.3 in protobuf": (v03_proto.message_json, v03_requests.read_send_params),
}


@pytest.mark.parametrize("wire", SENDING)
@given(data=st.data(), message=messages)
def test_a_spoilt_message_is_one_or_is_refused(wire: str, data: st.DataObject, message: Message) -> None:
    write, read = SENDING[wire]
    hook = {"url": "https://a.example", "authentication": {"scheme": "Bearer", "schemes": ["Bearer"]}, "token": "t"}
    configuration = {"historyLength": 1, "blocking": True, "pushNotificationConfig": hook, "taskPushNotificationConfig": hook}
    whole = {"message": on_the_wire(write(message)), "configuration": configuration, "metadata": {}, "tenant": "t"}
    try:
        read(data.draw(spoilt(whole)))
    except v1.BadMessage as bad:
        assert bad.field and bad.problem


READERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "task": (v1.read_task_params, {"id": "t", "historyLength": 1, "tenant": "a"}),
    "task in protobuf": (v03_requests.read_task_params, {"name": "tasks/t", "historyLength": 1}),
    "list": (lists.read_list_params, {"contextId": "c", "status": "TASK_STATE_WORKING", "pageSize": 5, "pageToken": "x"}),
    "config": (push.read_push_config, {"taskId": "t", "id": "c", "url": "u", "authentication": {"scheme": "Bearer"}}),
    "config of 0.3": (
        push.read_push_config_0_3,
        {"taskId": "t", "pushNotificationConfig": {"url": "u", "authentication": {"schemes": ["B"]}}},
    ),
    "config in protobuf": (
        v03_requests.read_push_config,
        {"parent": "tasks/t", "configId": "c", "config": {"pushNotificationConfig": {"url": "u"}}},
    ),
    "one config": (push.read_push_params, {"taskId": "t", "id": "c"}),
    "one config of 0.3": (push.read_push_params_0_3, {"id": "t", "pushNotificationConfigId": "c"}),
    "one config in protobuf": (v03_requests.read_push_params, {"name": "tasks/t/pushNotificationConfigs/c"}),
    "configs": (push.read_push_list_params, {"taskId": "t", "pageSize": 5, "pageToken": "x"}),
    "configs in protobuf": (v03_requests.read_push_list_params, {"parent": "tasks/t", "pageSize": 5}),
}


@pytest.mark.parametrize("reader", READERS)
@given(data=st.data())
def test_a_spoilt_request_is_one_or_is_refused(reader: str, data: st.DataObject) -> None:
    read, good = READERS[reader]
    read(good)
    try:
        read(data.draw(spoilt(good)))
    except v1.BadMessage as bad:
        assert bad.field and bad.problem


@pytest.mark.parametrize(
    ("worded", "read"),
    [
        (lambda *given: rpc.V1.send_params(given[0], (), "t", "", given[1]), v1.read_send_params),
        (lambda *given: rpc.V03.send_params(given[0], (), "", "", given[1]), v03.read_send_params),
        (lambda *given: v03_proto.build_send_params(given[0], (), "", given[1]), v03_requests.read_send_params),
    ],
    ids=SENDING,
)
@given(message=messages, noted=objects)
def test_a_request_keeps_what_is_noted_about_it(worded: Any, read: Any, message: Message, noted: dict[str, Any]) -> None:
    asked = read(on_the_wire(worded(message, noted)))
    assert (plain(asked.message), asked.metadata or {}) == (plain(message), noted)
