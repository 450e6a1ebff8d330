"""Ended tasks are answered from memory, for their owners only, within bounds."""

from msgspec.structs import replace

from adapters.task import TaskState
from gateway.tasks.ended_tasks import BYTES_MAX, RECORD_BYTES_MAX, EndedTasks
from gateway.tasks.events.entries import TaskEvent, TaskRecord, TaskRow

ROW = TaskRow("default", "t_1", "o", "c_1", "sales", TaskState.COMPLETED, "", "x", "d", "g", 1, 1, last_seq=2)


def record_of(task_id: str, size: int = 10, state: TaskState = TaskState.COMPLETED) -> TaskRecord:
    return TaskRecord(replace(ROW, id=task_id, state=state), (TaskEvent(1, 1, "message", "x" * size),))


def test_a_task_is_found_by_its_owner_in_its_tenant_only() -> None:
    known = EndedTasks()
    known.keep(record_of("t_1"), known.generation)
    assert known.find("default", "o", "t_1") is not None
    assert [known.find(*who) for who in (("other", "o", "t_1"), ("default", "p", "t_1"), ("default", "o", "t_2"))] == [None] * 3


def test_a_task_that_has_not_ended_is_not_kept() -> None:
    known = EndedTasks()
    for state in (TaskState.SUBMITTED, TaskState.WORKING, TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED):
        known.keep(record_of("t_1", state=state), known.generation)
        assert known.find("default", "o", "t_1") is None


def test_a_large_task_is_read_each_time() -> None:
    known = EndedTasks()
    known.keep(record_of("t_1", RECORD_BYTES_MAX), known.generation)
    assert known.find("default", "o", "t_1") is None


def test_the_task_that_was_not_asked_for_longest_gives_way() -> None:
    known, size = EndedTasks(), RECORD_BYTES_MAX // 8
    count = BYTES_MAX // (5 * size)
    for number in range(count - 1):
        known.keep(record_of(f"t_{number}", size), known.generation)
    assert known.find("default", "o", "t_0") is not None
    for number in range(count, count + 3):
        known.keep(record_of(f"t_{number}", size), known.generation)
    assert known.find("default", "o", "t_0") is not None
    assert known.find("default", "o", "t_1") is None
