"""Entries of a task's log: what a Message alone is, and what only looks like one."""

from adapters.task import Message, Part, Role, TaskState, TaskStatus, encode
from gateway.tasks.events.entries import TaskEvent, lone_reply, reply_event, status_event, to_rfc3339

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
