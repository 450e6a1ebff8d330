"""A peer's answer is read by its shape, repaired where that is safe, and never guessed at."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.a2a_client.wire import tolerant
from adapters.contract import UpstreamFault
from adapters.task import Artifact, Message, Part, Role, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus, TaskStatusUpdateEvent
from tests.strategies import json_values


def task_in(state: Any, **members: Any) -> dict[str, Any]:
    return {"id": "t", "contextId": "c", "status": {"state": state}, **members}


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("TASK_STATE_COMPLETED", TaskState.COMPLETED),
        ("completed", TaskState.COMPLETED),
        ("COMPLETED", TaskState.COMPLETED),
        ("input-required", TaskState.INPUT_REQUIRED),
        ("INPUT_REQUIRED", TaskState.INPUT_REQUIRED),
        ("auth-required", TaskState.AUTH_REQUIRED),
        ("cancelled", TaskState.CANCELED),
        ("rejected", TaskState.REJECTED),
    ],
)
def test_a_state_is_known_in_either_spelling(word: str, state: TaskState) -> None:
    assert tolerant.read_task({"kind": "task", **task_in(word)}).status.state is state
    assert tolerant.read_task({"task": task_in(word)}).status.state is state


@pytest.mark.parametrize("word", ["unknown", "TASK_STATE_UNSPECIFIED", "done", "", None, 3, ["completed"]])
def test_an_unknown_state_is_a_fault_that_tells_the_ids(word: Any) -> None:
    with pytest.raises(tolerant.UnknownState) as unknown:
        tolerant.read_event({"task": task_in(word)})
    assert (unknown.value.context_id, unknown.value.task_id) == ("c", "t")
    with pytest.raises(tolerant.UnknownState) as unknown:
        tolerant.read_event({"taskId": "t", "status": {"state": word}})
    assert (unknown.value.context_id, unknown.value.task_id) == ("", "t")


STATUS = TaskStatus(TaskState.WORKING)
PIECE = Artifact("a", (Part(text="x"),))


@pytest.mark.parametrize(
    ("shape", "event"),
    [
        ({"statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": "working"}}}, TaskStatusUpdateEvent("t", "c", STATUS)),
        (
            {"kind": "status-update", "taskId": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}, "final": False},
            TaskStatusUpdateEvent("t", "c", STATUS),
        ),
        ({"taskId": "t", "status": {"state": "working"}}, TaskStatusUpdateEvent("t", "", STATUS)),
        (
            {
                "artifactUpdate": {
                    "taskId": "t",
                    "contextId": "c",
                    "artifact": {"artifactId": "a", "parts": [{"text": "x"}]},
                    "lastChunk": True,
                }
            },
            TaskArtifactUpdateEvent("t", "c", PIECE, last_chunk=True),
        ),
        (
            {"taskId": "t", "append": True, "artifact": {"artifactId": "a", "parts": [{"kind": "text", "text": "x"}]}},
            TaskArtifactUpdateEvent("t", "", PIECE, append=True),
        ),
        ({"message": {"messageId": "m", "role": "agent", "parts": [{"text": "x"}]}}, Message("m", Role.AGENT, (Part(text="x"),))),
        (
            {"kind": "message", "messageId": "m", "role": "ROLE_AGENT", "parts": [{"type": "text", "text": "x"}]},
            Message("m", Role.AGENT, (Part(text="x"),)),
        ),
        (task_in("working", artifacts=None, history=None, metadata=None), Task("t", "c", STATUS)),
    ],
)
def test_wrapped_or_flat_it_is_the_same_event(shape: dict[str, Any], event: Any) -> None:
    assert tolerant.read_event(shape) == event


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        (
            {"kind": "file", "file": {"bytes": "AAAA", "mimeType": "image/png", "name": "x"}},
            Part(raw="AAAA", media_type="image/png", filename="x"),
        ),
        (
            {"file": {"fileWithUri": "http://a.example", "mimeType": "image/png"}, "kind": "file"},
            Part(url="http://a.example", media_type="image/png"),
        ),
        ({"raw": "AAAA", "mediaType": "image/png"}, Part(raw="AAAA", media_type="image/png")),
        ({"kind": "file", "url": "http://a.example"}, Part(url="http://a.example")),
        ({"kind": "data", "data": {"a": None}}, Part(data={"a": None})),
        ({"data": None}, Part(data=None)),
        ({"kind": "text", "text": "x", "data": None, "file": None, "metadata": None}, Part(text="x")),
        ({"text": "", "metadata": {"a": 1}}, Part(text="", metadata={"a": 1})),
    ],
)
def test_parts_are_read_in_either_version(shape: dict[str, Any], part: Part) -> None:
    read = tolerant.read_event({"kind": "message", "messageId": "m", "role": "agent", "parts": [shape]})
    assert isinstance(read, Message)
    assert read.parts == (part,)


@pytest.mark.parametrize(
    ("given_time", "kept"),
    [
        ("2026-11-21T01:43:52.149026", "2026-11-21T01:43:52.149026Z"),
        ("2026-11-21T03:43:52+02:00", "2026-11-21T01:43:52Z"),
        ("2026-11-21T01:43:52Z", "2026-11-21T01:43:52Z"),
        ("yesterday", ""),
        (1700000000, ""),
        (None, ""),
        ("0001-01-01T00:00:00+23:59", ""),
    ],
)
def test_times_become_utc_with_z_or_nothing(given_time: Any, kept: str) -> None:
    read = tolerant.read_task({"id": "t", "status": {"state": "working", "timestamp": given_time}})
    assert read.status.timestamp == kept


def test_missing_ids_and_parts_are_made_up_the_same_each_time() -> None:
    shape = {"taskId": "t", "artifact": {"parts": []}, "lastChunk": True}
    first, second = tolerant.read_event(shape), tolerant.read_event(shape)
    assert first == second
    assert isinstance(first, TaskArtifactUpdateEvent)
    assert first.artifact.artifact_id
    assert first.artifact.parts == (Part(text=""),)


@pytest.mark.parametrize(
    "shape",
    [
        None,
        [],
        {},
        "completed",
        {"kind": "surprise"},
        {"task": {}},
        {"task": {"id": "", "status": {"state": "completed"}}},
        {"task": {"id": 5, "status": {"state": "completed"}}},
        {"task": {"id": "t"}},
        {"task": {"id": "t", "status": "completed"}},
        task_in("completed", artifacts={"a": 1}),
        task_in("completed", artifacts=["a"]),
        task_in("completed", artifacts=[{"artifactId": "a", "parts": [{}]}]),
        task_in("completed", artifacts=[{"artifactId": "a", "parts": [{"text": "x", "url": "y"}]}]),
        task_in("completed", artifacts=[{"artifactId": "a", "parts": [{"text": 5}]}]),
        task_in("completed", artifacts=[{"artifactId": "a", "parts": "x"}]),
        task_in("completed", history=["hi"]),
        {"kind": "artifact-update", "taskId": "t"},
        {"kind": "status-update", "status": {"state": "working"}},
    ],
)
def test_what_is_not_a2a_is_a_fault(shape: Any) -> None:
    with pytest.raises(UpstreamFault):
        tolerant.read_event(shape)


shapes = st.recursive(
    json_values | st.sampled_from(["completed", "task", "agent"]),
    lambda inner: (
        st.dictionaries(
            st.sampled_from(
                ["kind", "task", "message", "statusUpdate", "artifact", "status", "state", "id", "taskId", "parts", "text", "file", "role"]
            ),
            inner,
            max_size=5,
        )
        | st.lists(inner, max_size=2)
    ),
    max_leaves=12,
)


@given(shapes)
def test_whatever_comes_it_is_an_event_or_a_fault(shape: Any) -> None:
    try:
        tolerant.read_event(shape)
    except UpstreamFault as fault:
        assert fault.public
