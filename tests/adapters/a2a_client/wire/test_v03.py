"""The 0.3 wire loses nothing: what it has no place for stands in metadata."""

import json
import os
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import pytest
from a2a.compat.v0_3 import types as old_types
from hypothesis import given

from adapters.a2a_client.wire import tolerant, v03, v1
from adapters.task import (
    Artifact,
    Message,
    Part,
    PushConfig,
    Role,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
    encode,
)
from tests.strategies import messages, peer_events, plain

OLD = {
    "Task": old_types.Task,
    "Message": old_types.Message,
    "TaskStatusUpdateEvent": old_types.TaskStatusUpdateEvent,
    "TaskArtifactUpdateEvent": old_types.TaskArtifactUpdateEvent,
}


def on_the_wire(value: Any) -> Any:
    return json.loads(encode(value))


@given(messages)
def test_a_message_survives_a_journey_through_0_3(message: Message) -> None:
    assert plain(v03.read_send_params({"message": on_the_wire(v03.message_json(message))}).message) == plain(message)


@given(peer_events)
def test_every_event_survives_a_journey_through_0_3(event: Any) -> None:
    assert plain(tolerant.read_event(on_the_wire(v03.event_json(event)))) == plain(event)


@given(peer_events)
def test_the_reference_implementation_reads_our_0_3(event: Any) -> None:
    kind = OLD[type(event).__name__]
    assert isinstance(kind.model_validate(on_the_wire(v03.event_json(event))), kind)  # raises ValidationError for what 0.3 does not know


def test_a_message_is_worded_as_0_3_words_it() -> None:
    parts = (
        Part(text="hi", media_type="text/plain"),
        Part(raw="AAAA", media_type="image/png", filename="x.png"),
        Part(url="http://a.example/x"),
        Part(data={"a": 1}),
        Part(data=[1], metadata={"m": 1}),
    )
    written = v03.message_json(Message("m", Role.AGENT, parts, context_id="c", reference_task_ids=("t",)))
    assert written == {
        "kind": "message",
        "messageId": "m",
        "role": "agent",
        "contextId": "c",
        "referenceTaskIds": ("t",),
        "parts": [
            {"kind": "text", "text": "hi", "metadata": {v03.CARRIED_KEY: {"mediaType": "text/plain"}}},
            {"kind": "file", "file": {"bytes": "AAAA", "mimeType": "image/png", "name": "x.png"}},
            {"kind": "file", "file": {"uri": "http://a.example/x"}},
            {"kind": "data", "data": {"a": 1}},
            {"kind": "data", "data": {"value": [1]}, "metadata": {"m": 1, "data_part_compat": True}},
        ],
    }


@pytest.mark.parametrize("state", TaskState)
def test_a_stream_is_final_where_0_3_ends_it(state: TaskState) -> None:
    written = v03.event_json(TaskStatusUpdateEvent("t", "c", TaskStatus(state)))
    assert written["status"]["state"] == old_types.TaskState(written["status"]["state"]).value
    assert written["final"] is (state not in (TaskState.SUBMITTED, TaskState.WORKING))


@pytest.mark.parametrize(("blocking", "at_once"), [(True, False), (False, True), (None, False)])
def test_blocking_is_the_opposite_of_returning_immediately(blocking: bool | None, at_once: bool) -> None:
    message = {"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    configuration = {
        "blocking": blocking,
        "historyLength": 3,
        "acceptedOutputModes": ["text/plain"],
        "pushNotificationConfig": {"url": "u"},
    }
    read = v03.read_send_params({"message": message, "configuration": configuration}).configuration
    assert read == v1.Configuration(("text/plain",), 3, at_once, PushConfig("u"))


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (None, "params"),
        ({}, "message"),
        ({"message": 5}, "message"),
        ({"message": {"role": "user", "parts": [{"kind": "text", "text": "x"}]}}, "message.messageId"),
        ({"message": {"messageId": "m", "role": "boss", "parts": [{"kind": "text", "text": "x"}]}}, "message.role"),
        ({"message": {"messageId": "m", "role": "user", "parts": [{"kind": "text"}]}}, "message.parts[0]"),
        ({"message": {"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": 5}]}}, "message.parts[0].text"),
        ({"message": {"messageId": "m", "role": "user", "parts": [{"kind": "file", "file": {}}]}}, "message.parts[0]"),
        ({"message": {"messageId": "m", "role": "user", "parts": [{"kind": ["x"]}]}}, "message.parts[0]"),
        ({"message": {"messageId": "m", "role": ["user"], "parts": [{"kind": "text", "text": "x"}]}}, "message.role"),
        (
            {"message": {"messageId": "m", "role": "user", "parts": [{"text": "x"}]}, "configuration": {"blocking": "no"}},
            "configuration.blocking",
        ),
        ({"message": {"messageId": "m", "role": "user", "parts": [{"text": "x"}]}, "configuration": 1}, "configuration"),
    ],
)
def test_what_is_invalid_in_0_3_is_refused_by_the_name_of_its_field(bad: Any, field: str) -> None:
    with pytest.raises(v1.BadMessage) as refused:
        v03.read_send_params(bad)
    assert refused.value.field == field


def test_a_piece_says_how_it_joins() -> None:
    written = v03.event_json(TaskArtifactUpdateEvent("t", "c", Artifact("a", (Part(text="x"),)), append=True))
    assert (written["append"], written["lastChunk"], written["kind"]) == (True, False, "artifact-update")
