"""Nobody waits in vain: each write is kept or refused, whatever the writer is doing, and however it ends."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from gateway.storage.database import Batch, Database, ReadFailed, WriteFailed, engine_for
from gateway.storage.tables import processes
from gateway.storage.writer import BATCH_JOBS_MAX
from tests.fakes.outages import read_only
from tests.fakes.waiting import SECONDS, until


def add(name: str):  # type: ignore[no-untyped-def]  # a job of the writer
    return lambda batch: batch.add(processes, {"id": name, "started": 1, "seen": 1})


async def kept(database: Database) -> set[str]:
    return set(await database.read(lambda connection: connection.execute(select(processes.c.id)).scalars().all()))


async def _number(database: Database, expected: int) -> bool:
    return len(await kept(database)) == expected


def kept_in(url: str) -> int:
    engine = engine_for(url)
    with engine.connect() as connection:
        count = connection.execution_options(interlock_read=True).execute(select(func.count()).select_from(processes)).scalar_one()
    engine.dispose()
    return int(count)


async def test_every_one_of_many_writes_is_answered(database: Database) -> None:
    """More than fit into one commit, handed in from tasks that come and go."""
    names = [f"p{number}" for number in range(3 * BATCH_JOBS_MAX)]
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*(database.write(add(name)) for name in names))
    assert await kept(database) == set(names)


async def test_writes_in_a_row_never_wait_for_a_wake_up(database: Database) -> None:
    """Each is handed in just when the writer has gone to sleep or is about to."""
    async with asyncio.timeout(SECONDS):
        for number in range(200):
            await database.write(add(f"p{number}"))
    assert len(await kept(database)) == 200


async def _commits(database: Database, names: Iterable[str], pause: Callable[[], Awaitable[object]]) -> int:
    """How many commits it takes to write rows, of which the loop brings one after each pause."""
    writes = []
    for name in names:
        writes.append(asyncio.ensure_future(database.write(lambda batch, name=name: (add(name)(batch), batch)[1])))
        await pause()
    async with asyncio.timeout(SECONDS):
        return len(set(await asyncio.gather(*writes)))


async def test_writes_that_come_in_a_row_share_a_commit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as each iteration of the loop brings one; the time is not up before the last."""
    monkeypatch.setattr("gateway.storage.writer.COLLECT_SECONDS", SECONDS)
    assert await _commits(database, [f"p{number}" for number in range(50)], partial(asyncio.sleep, 0)) == 1


async def test_writes_that_do_not_stop_coming_are_committed_meanwhile(database: Database) -> None:
    first, more = asyncio.ensure_future(database.write(add("first"))), []
    while not first.done() and len(more) < 50_000:
        more.append(asyncio.ensure_future(database.write(add(f"p{len(more)}"))))
        await asyncio.sleep(0)
    assert first.done()
    await asyncio.gather(*more)


async def test_a_write_does_not_wait_for_others_where_the_loop_has_nothing_else_to_do(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.storage.writer.COLLECT_SECONDS", 10 * SECONDS)
    async with asyncio.timeout(SECONDS):
        await database.write(add("alone"))
    assert await kept(database) == {"alone"}


async def test_closing_while_busy_keeps_or_refuses_but_forgets_nobody(database_url: str) -> None:
    database = Database(engine_for(database_url))
    database.start()
    gate = threading.Event()

    def slow(batch: Batch) -> None:
        gate.wait(SECONDS)
        add("slow")(batch)

    writes = [asyncio.ensure_future(database.write(slow))]
    await asyncio.sleep(0)
    writes += [asyncio.ensure_future(database.write(add(f"p{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(asyncio.to_thread(database.close))
    await asyncio.sleep(0)
    late = [asyncio.ensure_future(database.write(add(f"late{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    gate.set()
    async with asyncio.timeout(SECONDS):
        outcomes = await asyncio.gather(*writes, *late, return_exceptions=True)
        await closing
    refused = [outcome for outcome in outcomes if isinstance(outcome, WriteFailed)]
    assert outcomes[:51] == [None] * 51
    assert len(refused) + outcomes.count(None) == 101
    assert kept_in(database_url) == 101 - len(refused)


async def test_a_closed_writer_refuses_at_once(database_url: str) -> None:
    database = Database(engine_for(database_url))
    with pytest.raises(WriteFailed):
        await database.write(add("too early"))
    database.start()
    database.close()
    database.close()
    with pytest.raises(WriteFailed):
        await database.write(add("too late"))


async def test_all_that_was_posted_is_kept_at_the_end(database_url: str) -> None:
    """However many they are, and whether or not a write comes with them."""
    database = Database(engine_for(database_url))
    database.start()
    for number in range(3 * BATCH_JOBS_MAX):
        database.post(add(f"p{number}"))
    await database.write(add("written"))
    for number in range(3 * BATCH_JOBS_MAX):
        database.post(add(f"q{number}"))
    await asyncio.to_thread(database.close)
    assert kept_in(database_url) == 6 * BATCH_JOBS_MAX + 1


async def test_what_was_posted_while_writes_were_refused_is_kept_when_they_are_not(database: Database) -> None:
    async with read_only(database):
        with pytest.raises(WriteFailed):
            await database.write(add("refused"))
        assert not database.is_writable
        for number in range(10):
            database.post(add(f"posted{number}"))
        with pytest.raises(WriteFailed):
            await database.write(add("refused too"))
    await database.write(add("written"))
    await until(lambda: _number(database, 11))
    assert await kept(database) == {"written", *(f"posted{number}" for number in range(10))}
    assert database.is_writable


async def test_a_posted_job_that_is_at_fault_itself_is_dropped(database: Database) -> None:
    """It may not come back for ever, nor take the others with it."""
    await database.write(add("taken"))
    database.post(add("taken"))
    database.post(add("innocent"))
    await database.write(add("written"))
    await until(lambda: _number(database, 3))
    assert await kept(database) == {"taken", "innocent", "written"}
    assert database.is_writable


async def test_a_caller_who_left_is_no_trouble_to_the_others(database: Database) -> None:
    gate = threading.Event()
    slow = asyncio.ensure_future(database.write(lambda _: gate.wait(SECONDS)))
    await asyncio.sleep(0)
    writes = [asyncio.ensure_future(database.write(add(f"p{number}"))) for number in range(10)]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    gate.set()
    await slow
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False] * 5


async def test_a_question_that_is_not_answered_is_no_accident(database: Database) -> None:
    with pytest.raises(ReadFailed):
        await database.read(lambda connection: connection.exec_driver_sql("SELECT * FROM nowhere").all())
    assert await kept(database) == set()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["write", "post", "fail", "duplicate", "leave"]), max_size=60))
def test_whatever_is_handed_in_each_caller_hears_of_it(sqlite_template: Path, tmp_path: Path, story: list[str]) -> None:
    for leftover in tmp_path.glob("story.db*"):
        leftover.unlink()
    (tmp_path / "story.db").write_bytes(sqlite_template.read_bytes())
    outcomes = asyncio.run(_told(Database(engine_for(f"sqlite:///{tmp_path / 'story.db'}")), story))
    expected = {"write": type(None), "fail": KeyError, "duplicate": "IntegrityError", "leave": asyncio.CancelledError}
    assert [type(outcome).__name__ for outcome in outcomes] == [
        getattr(expected[act], "__name__", expected[act]) for act in story if act != "post"
    ]
    assert kept_in(f"sqlite:///{tmp_path / 'story.db'}") == 1 + sum(act in ("write", "post", "leave") for act in story)


async def _told(database: Database, story: list[str]) -> list[object]:
    database.start()
    await database.write(add("taken"))
    waiting = []
    for number, act in enumerate(story):
        if act == "post":
            database.post(add(f"p{number}"))
            continue
        job = {"fail": lambda _: {}["no"], "duplicate": add("taken")}.get(act, add(f"p{number}"))
        waiting.append(asyncio.ensure_future(database.write(job)))
        await asyncio.sleep(0)
        if act == "leave":
            waiting[-1].cancel()
    async with asyncio.timeout(SECONDS):
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.to_thread(database.close)
    return list(outcomes)


async def test_the_wait_of_the_oldest_write_is_known_until_its_commit(database: Database) -> None:
    go = threading.Event()
    assert database.write_wait_seconds == 0.0
    writes = [asyncio.create_task(database.write(lambda _: go.wait(SECONDS)))]
    await until(lambda: database.write_wait_seconds > 0)
    waited = database.write_wait_seconds
    writes.append(asyncio.create_task(database.write(add("later"))))
    await until(lambda: database.write_wait_seconds > waited + 0.05)
    go.set()
    await asyncio.gather(*writes)
    await until(lambda: database.write_wait_seconds == 0.0)


async def test_no_write_waits_while_the_database_is_known_to_be_away(database: Database) -> None:
    go = threading.Event()
    async with read_only(database):
        with pytest.raises(WriteFailed):
            await database.write(add("refused"))
        write = asyncio.create_task(database.write(lambda _: go.wait(SECONDS)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not database.is_writable and database.write_wait_seconds == 0.0
        go.set()
        await asyncio.gather(write, return_exceptions=True)


async def test_without_the_writers_thread_every_write_is_refused(database_url: str) -> None:
    database = Database(engine_for(database_url))
    with pytest.raises(WriteFailed):
        await database.write(add("early"))
    database.start()
    await database.write(add("kept"))
    await asyncio.to_thread(database.close)
    with pytest.raises(WriteFailed):
        await database.write(add("late"))
    assert kept_in(database_url) == 1


async def test_what_waits_for_a_commit_is_called_once_at_its_end(database: Database) -> None:
    gate, seen, ended = threading.Event(), list[str](), asyncio.Event()

    def slow(batch: Batch) -> None:
        gate.wait(SECONDS)
        add("slow")(batch)

    def note() -> None:
        seen.append("commit ended")
        ended.set()

    writing = asyncio.ensure_future(database.write(slow))
    await asyncio.sleep(0)
    assert database.call_after_commit(note)
    assert database.call_after_commit(note)
    gate.set()
    async with asyncio.timeout(SECONDS):
        await ended.wait()
        await writing
        await database.write(add("next"))
    assert len(seen) == 1


async def test_nothing_waits_for_a_commit_where_no_caller_does(database: Database) -> None:
    await database.write(add("first"))
    called = list[int]()
    assert not database.call_after_commit(lambda: called.append(1))
    await database.write(add("second"))
    assert called == []
