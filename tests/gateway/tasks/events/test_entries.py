"""Entries of a task's log: what a Message alone is, what only looks like one, and their JSON on streams."""

import pytest

from adapters.task import Artifact, Message, Part, Role, TaskState, TaskStatus, encode
from gateway.tasks.events.entries import (
    WITHHELD,
    TaskEvent,
    TaskRow,
    artifact_event,
    encoded_response,
    lone_reply,
    reply_event,
    status_event,
    stream_response,
    to_rfc3339,
)

REPLY = Message("m-2", Role.AGENT, (Part(text="just a word"),), "c_1", "t_1")
OPENING = (TaskEvent(1, 1, "message", encode(REPLY).decode()), status_event(2, 1, TaskStatus(TaskState.SUBMITTED)))


def completed(seq: int, message: Message = REPLY, alone: bool = True) -> TaskEvent:
    status = TaskStatus(TaskState.COMPLETED, message, to_rfc3339(1))
    return reply_event(seq, 1, status) if alone else status_event(seq, 1, status)


def test_a_message_right_after_the_opening_is_the_whole_answer() -> None:
    assert lone_reply((*OPENING, completed(3))) == REPLY


def test_a_task_without_an_answer_has_no_reply() -> None:
    assert lone_reply(OPENING) is None


def test_a_task_that_waited_first_is_answered_as_a_task() -> None:
    waits = status_event(3, 1, TaskStatus(TaskState.AUTH_REQUIRED))
    assert lone_reply((*OPENING, waits, completed(4))) is None


def test_no_word_of_an_agent_makes_its_status_a_reply() -> None:
    forged = Message("m-2", Role.AGENT, (Part(text=',"replied":true}'),), metadata={"replied": True})
    assert lone_reply((*OPENING, completed(3, forged, alone=False))) is None


@pytest.mark.parametrize(
    "event",
    [
        status_event(3, 1, TaskStatus(TaskState.WORKING, Message("m", Role.AGENT, (Part(text='"\u2028\n'),)), "2026-11-01T00:00:00Z")),
        status_event(3, 1, TaskStatus(TaskState.COMPLETED), {"cost": {"usd": 1.5}}),
        artifact_event(3, 1, Artifact("a", (Part(data={"x": [1, None]}),)), append=False, last_chunk=False),
        artifact_event(3, 1, Artifact("a", (Part(text="é"),)), append=True, last_chunk=True, metadata={"n": 1}),
        artifact_event(3, 1, Artifact("a", (Part(text="x"),)), append=False, last_chunk=True, metadata={}),
        TaskEvent(3, 1, "message", encode(Message("m", Role.AGENT, (Part(text="hi"),))).decode()),
        TaskEvent(3, 1, "message", encode(Message("m", Role.USER, (Part(text="hi"),))).decode()),
        TaskEvent(3, 1, WITHHELD, encode(Artifact("a", (Part(text="x"),))).decode()),
        TaskEvent(3, 1, "status", '{"state":"TASK_STATE_WORKING"}', metadata_json="{}"),
    ],
    ids=["message", "metadata", "artifact", "append", "last", "agent's", "user's", "withheld", "no-metadata"],
)
def test_a_spliced_event_is_the_encoded_one(event: TaskEvent) -> None:
    row = TaskRow("default", "t_1", "o", 'c"1', "sales", TaskState.WORKING, "", "", "", "", 1, 1)
    response = stream_response(row, event)
    assert encoded_response(row, event) == (None if response is None else encode(response))
    assert encoded_response(row, event) is encoded_response(row, event)
