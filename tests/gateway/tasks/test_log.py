"""The TaskLog: one ending for each task, and every event once and in order for each who follows, in whichever process."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from adapters.task import Artifact, Message, Part, Role, TaskState, TaskStatus, encode
from gateway.storage.database import Batch, Database, engine_for
from gateway.storage.tables import processes
from gateway.tasks.events.chunks import SEPARATE_PARTS_MAX
from gateway.tasks.events.entries import artifact_event
from gateway.tasks.log import (
    BATCH_SIZE,
    RECENTLY_MOVED_US,
    TaskEvent,
    TaskLeft,
    TaskLog,
    TaskMoved,
    TaskRow,
    UnknownTask,
    events_one_by_one,
    stream_response,
    task_from_events,
    to_rfc3339,
)
from tests.fakes.clock import Clock
from tests.fakes.looks import looking
from tests.fakes.outages import Shaky
from tests.fakes.waiting import SECONDS, until

replace = msgspec.structs.replace
T = TypeVar("T")


def row(name: str = "t_1", state: TaskState = TaskState.SUBMITTED, **more: Any) -> TaskRow:
    given = {"tenant": "default", "owner": "default|dev|alice", "context_id": "c_1", "agent": "sales", "parent_id": "", "txn": "x_1"}
    return TaskRow(**{**given, "id": name, "state": state, "decision_id": "d_1", "grant_id": "g_1", "created": 1, "updated": 1, **more})


def said(text: str, role: Role = Role.USER) -> Message:
    return Message(message_id="m_1", role=role, parts=(Part(text=text),))


def status(seq: int, state: TaskState) -> TaskEvent:
    return TaskEvent(seq, seq, "status", encode(TaskStatus(state=state, timestamp=to_rfc3339(seq))).decode())


def piece(seq: int, text: str, append: bool = True, artifact: str = "a_1") -> TaskEvent:
    return artifact_event(seq, seq, Artifact(artifact_id=artifact, parts=(Part(text=text),)), append=append, last_chunk=False)


async def opened(database: Database, log: TaskLog, **more: Any) -> TaskRow:
    new, events = log.opening_events(row(**more), said("hello"))
    await database.write(lambda batch: log.open(batch, new, events))
    return new


async def advanced(database: Database, log: TaskLog, old: TaskRow, state: TaskState = TaskState.WORKING, *events: TaskEvent) -> TaskRow:
    new = replace(old, state=state, last_seq=old.last_seq + len(events), updated=old.updated + 1)
    await database.write(lambda batch: log.advance(batch, old, new, events))
    log.publish(new, events)
    return new


@pytest.fixture
def log(database: Database) -> TaskLog:
    return TaskLog(database, Clock().us, "p_1")


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[tuple[Database, TaskLog]]:
    """Another process on the same database."""
    other = Database(engine_for(database_url))
    other.start()
    yield other, TaskLog(other, Clock().us, "p_2")
    other.close()


async def test_a_task_is_what_was_opened_and_its_log_begins_with_the_question(database: Database, log: TaskLog) -> None:
    new = await opened(database, log, idempotency_key="k", request_digest="0")
    record = await log.read_record(new.tenant, new.owner, new.id)
    assert record.row == new
    assert [(event.seq, event.kind) for event in record.events] == [(1, "message"), (2, "status")]
    assert record.to_task().history[0].parts[0].text == "hello"


@pytest.mark.parametrize("owner", ["default|dev|bob", "other|dev|alice", ""])
async def test_anothers_task_is_unknown(database: Database, log: TaskLog, owner: str) -> None:
    new = await opened(database, log)
    for asking in (log.find, log.read_record):
        with pytest.raises(UnknownTask):
            await asking(new.tenant, owner, new.id)


async def test_of_two_who_move_a_task_on_one_is_too_late(database: Database, log: TaskLog, elsewhere: tuple[Database, TaskLog]) -> None:
    other, others = elsewhere
    new = await opened(database, log)
    outcomes = await asyncio.gather(
        advanced(database, log, new, TaskState.COMPLETED, status(3, TaskState.COMPLETED)),
        advanced(other, others, new, TaskState.CANCELED, status(3, TaskState.CANCELED)),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["TaskMoved", "TaskRow"]
    record = await log.read_record(new.tenant, new.owner, new.id)
    assert [event.seq for event in record.events] == [1, 2, 3]
    assert record.to_task().status.state is record.row.state


async def test_within_one_commit_too_only_one_moves_a_task_on(database: Database, log: TaskLog) -> None:
    new = await opened(database, log)
    acts = [advanced(database, log, new, TaskState.COMPLETED, status(3, TaskState.COMPLETED)) for _ in range(20)]
    outcomes = await asyncio.gather(*acts, return_exceptions=True)
    assert sum(isinstance(outcome, TaskRow) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, TaskMoved) for outcome in outcomes) == 19
    assert len((await log.read_record(new.tenant, new.owner, new.id)).events) == 3


@pytest.mark.parametrize("state", [TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED])
async def test_nothing_follows_an_ending(database: Database, log: TaskLog, state: TaskState) -> None:
    done = await advanced(database, log, await opened(database, log), state, status(3, state))
    for after in TaskState:
        with pytest.raises(TaskMoved):
            await advanced(database, log, done, after, status(4, after))
    assert (await log.read_record(done.tenant, done.owner, done.id)).row.state is state


async def _followed(log: TaskLog, task: TaskRow, after: int) -> list[int]:
    async with asyncio.timeout(SECONDS):
        return [event.seq async for event in events_one_by_one(log.follow(task, after))]


async def test_each_follower_sees_every_event_once_and_in_order_in_any_process(
    database: Database, log: TaskLog, elsewhere: tuple[Database, TaskLog]
) -> None:
    """From any number on, in the process that writes and in another, begun before, while and after it is written."""
    _, others = elsewhere
    async with looking(log, others):
        await _followed_by(database, log, [log, others])


async def test_each_follower_sees_every_event_once_and_in_order(database: Database, log: TaskLog) -> None:
    await _followed_by(database, log, [log])


async def _followed_by(database: Database, log: TaskLog, readers: list[TaskLog]) -> None:
    task = await opened(database, log)
    starts = [0, 1, 2] * len(readers)
    early = [asyncio.ensure_future(_followed(reader, task, after)) for reader in readers for after in (0, 1, 2)]
    moving = task
    for number in range(3, 103):
        moving = await advanced(database, log, moving, TaskState.WORKING, piece(number, str(number)))
        if number % 10 == 0:
            starts += [number - 5] * len(readers)
            early += [asyncio.ensure_future(_followed(reader, task, number - 5)) for reader in readers]
    await advanced(database, log, moving, TaskState.COMPLETED, status(103, TaskState.COMPLETED))
    assert await asyncio.gather(*early) == [list(range(after + 1, 104)) for after in starts]
    for after in range(104):
        assert await _followed(readers[-1], task, after) == list(range(after + 1, 104))
    assert [len(reader._live_events) for reader in readers] == [0] * len(readers)


async def test_a_follower_is_handed_a_large_task_in_small_batches(database: Database, log: TaskLog) -> None:  # attack AVL-04
    """From the database, where nobody holds the task's tail, and from the tail."""
    task = await opened(database, log)
    pieces = [piece(number, "x" * (BATCH_SIZE // 3)) for number in range(3, 43)]
    task = await advanced(database, log, task, TaskState.WORKING, *pieces)
    task = await advanced(database, log, task, TaskState.COMPLETED, status(43, TaskState.COMPLETED))
    for held in (None, log.live_events(task)):
        batches = [batch async for batch in log.follow(task, 0)]
        assert [event.seq for batch in batches for event in batch] == list(range(1, 44)), held
        assert max(sum(len(event.body) for event in batch) for batch in batches) <= BATCH_SIZE


class Counting(Shaky):
    """Counts the questions."""

    questions = 0

    async def read(self, work: Callable[[Connection], T]) -> T:
        self.questions += 1
        return await super().read(work)


async def test_who_follows_what_is_kept_here_asks_the_database_for_nothing(database: Database) -> None:
    counting = Counting(database)
    log = TaskLog(counting, Clock().us, "p_1")  # type: ignore[arg-type]  # it does what the log needs
    held = log.live_events(row())
    task = await opened(database, log)
    log.publish(task, ())
    following = [asyncio.ensure_future(_followed(log, task, 2)) for _ in range(3)]
    for number in range(3, 33):
        task = await advanced(database, log, task, TaskState.WORKING, piece(number, "x"))
    await advanced(database, log, task, TaskState.COMPLETED, status(33, TaskState.COMPLETED))
    assert await asyncio.gather(*following) == [list(range(3, 34))] * 3
    assert counting.questions == 0 and held.events_after(33)


@pytest.mark.parametrize("state", [TaskState.INPUT_REQUIRED, TaskState.WORKING])  # working without a runner: a run that is suspended
async def test_the_drain_ends_the_streams_of_tasks_that_no_turn_here_works_on(database: Database, log: TaskLog, state: TaskState) -> None:
    task = await opened(database, log)
    waiting = replace(task, state=state, last_seq=3, runner="")
    await database.write(lambda batch: log.advance(batch, task, waiting, (status(3, state),)))
    following = asyncio.ensure_future(anext(log.follow(waiting, 3, until_end=True, until_drain=True)))
    await until(lambda: len(list(log._live_events.awaited_rows())) == 1)
    await log.begin_drain()
    with pytest.raises(TaskLeft):
        await asyncio.wait_for(following, SECONDS)


async def test_a_stream_of_a_turn_that_runs_here_ends_with_the_turn_in_a_drain(database: Database, log: TaskLog) -> None:
    task = await opened(database, log)
    events = log.follow(task, 2, until_end=True, until_drain=True)
    following = asyncio.ensure_future(anext(events))
    await log.begin_drain()
    waiting = replace(task, state=TaskState.INPUT_REQUIRED, last_seq=3, runner="")
    await database.write(lambda batch: log.advance(batch, task, waiting, (status(3, TaskState.INPUT_REQUIRED),)))
    log.publish(waiting, (status(3, TaskState.INPUT_REQUIRED),))
    assert [event.seq for event in await following] == [3]
    with pytest.raises(TaskLeft):
        await asyncio.wait_for(anext(events), SECONDS)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_one_question_tells_of_all_tasks_that_moved_elsewhere(database: Database, elsewhere: tuple[Database, TaskLog]) -> None:
    other, others = elsewhere
    counting = Counting(database)
    log = TaskLog(counting, Clock().us, "p_1")  # type: ignore[arg-type]  # it does what the log needs
    tasks = [await opened(database, log, name=f"t_{number}") for number in range(30)]
    following = [asyncio.ensure_future(_followed(log, task, 2)) for task in tasks]
    await until(lambda: len(list(log._live_events.awaited_rows())) == 30)
    counting.questions = 0
    await log.poll_other_processes()
    assert counting.questions == 1
    for task in tasks[:10]:
        await advanced(other, others, task, TaskState.COMPLETED, status(3, TaskState.COMPLETED))
    await log.poll_other_processes()
    assert await asyncio.gather(*following[:10]) == [[3]] * 10
    assert counting.questions == 1 + 1 + 10
    assert not any(each.done() for each in following[10:])
    for each in following:
        each.cancel()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_one_process_alone_does_not_look_for_what_others_did(database: Database) -> None:
    counting = Counting(database)
    log = TaskLog(counting, Clock().us, "p_1")  # type: ignore[arg-type]  # it does what the log needs
    following = asyncio.ensure_future(_followed(log, await opened(database, log), 2))
    await until(lambda: len(list(log._live_events.awaited_rows())) == 1)
    counting.questions = 0
    await log.poll_other_processes()
    assert counting.questions == 0
    following.cancel()


async def test_followers_in_the_same_process_never_miss_a_wake_up(database: Database, log: TaskLog) -> None:
    """Also when others who followed leave in between. Nobody looks."""
    task = await opened(database, log)
    staying = [asyncio.ensure_future(_followed(log, task, 2)) for _ in range(3)]
    for number in range(3, 33):
        leaving = asyncio.ensure_future(_followed(log, task, 2))
        await asyncio.sleep(0)
        task = await advanced(database, log, task, TaskState.WORKING, piece(number, "x"))
        leaving.cancel()
    await advanced(database, log, task, TaskState.COMPLETED, status(33, TaskState.COMPLETED))
    assert await asyncio.gather(*staying) == [list(range(3, 34))] * 3


@pytest.mark.parametrize("state", [TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED])
async def test_a_stream_ends_when_the_task_waits_for_somebody(database: Database, log: TaskLog, state: TaskState) -> None:
    task = await opened(database, log)
    following = asyncio.ensure_future(_followed(log, task, 2))
    await advanced(database, log, task, state, status(3, state))
    assert await following == [3]


async def test_a_stream_outlives_an_outage_of_the_database(database: Database) -> None:
    shaky = Shaky(database)
    log = TaskLog(shaky, Clock().us, "p_1")  # type: ignore[arg-type]  # it does what the log needs
    task = await opened(database, log)
    shaky.reads = 2
    following = asyncio.ensure_future(_followed(log, task, 0))
    await until(lambda: shaky.reads < 2)
    await advanced(database, log, task, TaskState.COMPLETED, status(3, TaskState.COMPLETED))
    assert await following == [1, 2, 3]
    assert shaky.reads == 0


async def test_tasks_of_dead_processes_are_orphans_and_tasks_of_live_ones_are_not(
    database: Database, elsewhere: tuple[Database, TaskLog]
) -> None:
    other, others = elsewhere
    clock = Clock()
    log = TaskLog(database, clock.us, "p_1")

    def living(batch: Batch) -> None:
        for name in ("p_1", "p_2"):
            batch.add(processes, {"id": name, "started": 1, "seen": 1})

    await database.write(living)
    now = clock.us()
    gone = TaskLog(database, clock.us, "p_0")
    await opened(database, gone, name="t_gone", updated=now)
    await opened(other, others, name="t_elsewhere", updated=now - 10 * RECENTLY_MOVED_US)
    await opened(database, log, name="t_fresh", updated=now)
    await opened(database, log, name="t_long", updated=now - RECENTLY_MOVED_US - 1)
    waiting = await opened(database, gone, name="t_waits", updated=now)
    asks = replace(waiting, runner="", state=TaskState.INPUT_REQUIRED, last_seq=3)
    await database.write(lambda batch: gone.advance(batch, waiting, asks, [status(3, TaskState.INPUT_REQUIRED)]))
    assert {task.id for task in await log.find_orphans()} == {"t_gone", "t_long"}


TEXT = st.text(max_size=8)
PIECES = st.lists(st.tuples(st.sampled_from(["a_1", "a_2"]), TEXT, st.booleans()), max_size=12)


@given(PIECES, st.lists(TEXT, max_size=5), st.none() | st.integers(0, 7))
def test_a_log_folds_into_its_artifacts_and_the_last_of_its_messages(
    pieces: list[tuple[str, str, bool]], messages: list[str], length: int | None
) -> None:
    numbers = itertools.count(1)
    events = [TaskEvent(next(numbers), 1, "message", encode(said(text)).decode()) for text in messages]
    events += [piece(next(numbers), text, append, artifact) for artifact, text, append in pieces]
    events.append(status(next(numbers), TaskState.COMPLETED))
    expected: dict[str, list[str]] = {}
    for artifact, text, append in pieces:
        expected[artifact] = [*(expected.get(artifact, []) if append else []), text]
    task = task_from_events(row(), events, length)
    assert {one.artifact_id: [part.text for part in one.parts] for one in task.artifacts} == expected
    kept = messages if length is None else messages[max(len(messages) - length, 0) :]
    assert [message.parts[0].text for message in task.history] == kept
    assert task.status.state is TaskState.COMPLETED


def test_appended_text_beyond_the_first_hundred_parts_continues_the_last_one() -> None:
    task = task_from_events(row(), [piece(number, f"{number} ", append=True) for number in range(SEPARATE_PARTS_MAX + 50)])
    texts = [str(part.text) for part in task.artifacts[0].parts]
    assert len(texts) == SEPARATE_PARTS_MAX and texts[:2] == ["0 ", "1 "]
    assert "".join(texts) == "".join(f"{number} " for number in range(SEPARATE_PARTS_MAX + 50))


@given(st.text(max_size=60), st.booleans(), st.booleans(), st.sampled_from([None, {"a": 1}]))
def test_no_artifact_can_pretend_how_it_joins_the_ones_before(text: str, append: bool, last: bool, noted: dict[str, int] | None) -> None:
    for disguise in (text, '","lastChunk":true,"append":true}', 'x"append":true}', '{"updateMetadata":{"a":2},'):
        artifact = Artifact(disguise, (Part(text=disguise),), name=disguise, metadata={"updateMetadata": disguise})
        metadata = noted and {**noted, "lastChunk": disguise}
        event = stream_response(row(), artifact_event(3, 3, artifact, append=append, last_chunk=last, metadata=metadata))
        assert event is not None and event.artifact_update
        assert (event.artifact_update.append, event.artifact_update.last_chunk) == (append, last)
        assert event.artifact_update.artifact == artifact
        assert (event.artifact_update.metadata or None) == (noted and {**noted, "lastChunk": disguise})
