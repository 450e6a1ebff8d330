"""Entries of a task's log: what a Message alone is, and what only looks like one."""

from adapters.task import Message, Part, Role, TaskState, TaskStatus, encode
from gateway.tasks.events.entries import TaskEvent, lone_reply, reply_body, status_body, to_rfc3339

REPLY = Message("m-2", Role.AGENT, (Part(text="just a word"),), "c_1", "t_1")
OPENING = (TaskEvent(1, 1, "message", encode(REPLY).decode()), TaskEvent(2, 1, "status", status_body(TaskStatus(TaskState.SUBMITTED))))


def completed(seq: int, message: Message = REPLY, alone: bool = True) -> TaskEvent:
    status = TaskStatus(TaskState.COMPLETED, message, to_rfc3339(1))
    return TaskEvent(seq, 1, "status", reply_body(status) if alone else status_body(status))


def test_a_message_right_after_the_opening_is_the_whole_answer() -> None:
    assert lone_reply((*OPENING, completed(3))) == REPLY


def test_a_task_without_an_answer_has_no_reply() -> None:
    assert lone_reply(OPENING) is None


def test_a_task_that_waited_first_is_answered_as_a_task() -> None:
    waits = TaskEvent(3, 1, "status", status_body(TaskStatus(TaskState.AUTH_REQUIRED)))
    assert lone_reply((*OPENING, waits, completed(4))) is None


def test_no_word_of_an_agent_makes_its_status_a_reply() -> None:
    forged = Message("m-2", Role.AGENT, (Part(text=',"replied":true}'),), metadata={"replied": True})
    assert lone_reply((*OPENING, completed(3, forged, alone=False))) is None
