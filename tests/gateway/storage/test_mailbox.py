"""Mail: the first letter wins, whoever waits gets it, in this process or another."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select
from structlog.testing import capture_logs

from gateway.storage.database import Database, ReadFailed, engine_for
from gateway.storage.mailbox import ProcessMailbox
from gateway.storage.tables import mail
from tests.fakes.clock import Clock


@pytest.fixture
def other(database_url: str) -> Iterator[Database]:
    """Another process's view of the same database."""
    opened = Database(engine_for(database_url))
    yield opened
    opened.close()


async def test_whoever_waits_gets_the_first_letter_and_so_does_whoever_comes_later(database: Database) -> None:
    box = ProcessMailbox(database, lambda: 0)
    waiting = [asyncio.create_task(box.wait_for("a", 5)) for _ in range(2)]
    await asyncio.sleep(0)
    await box.send("a", b'"first"', 60)
    await box.send("a", b'"second"', 60)
    assert await asyncio.gather(*waiting) == [b'"first"', b'"first"']
    assert await box.wait_for("a", 5) == b'"first"'
    assert box._waiters == {}


async def test_a_letter_that_does_not_come_is_not_waited_for_for_ever(database: Database) -> None:
    box = ProcessMailbox(database, lambda: 0)
    with pytest.raises(TimeoutError):
        await box.wait_for("nothing", 0.01)
    assert box._waiters == {}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_letters_reach_other_processes_before_and_after_they_wait(database: Database, other: Database) -> None:
    other.start()
    here, there = ProcessMailbox(database, lambda: 0), ProcessMailbox(other, lambda: 0)
    waiting = asyncio.create_task(there.wait_for("late", 5))
    await here.send("early", b"1", 60)
    assert await there.wait_for("early", 5) == b"1"
    await here.send("late", b"2", 60)
    assert await waiting == b"2"


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize(("error", "event"), [(ReadFailed("busy"), "mail_not_read"), (ValueError("odd"), "mail_poll_failed")])
async def test_a_look_that_fails_is_in_the_log_and_the_next_one_finds_the_letter(
    database: Database, error: Exception, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, read, failing = ProcessMailbox(database, lambda: 0), database.read, asyncio.Event()

    async def once(work: Any) -> Any:
        if not failing.is_set():
            failing.set()
            raise error
        return await read(work)

    monkeypatch.setattr(database, "read", once)
    with capture_logs() as said:
        waiting = asyncio.create_task(box.wait_for("a", 60))
        await asyncio.wait_for(failing.wait(), 60)
        await box.send("b", b"1", 60)
        assert await box.wait_for("b", 60) == b"1"  # whoever waits next looks again
        await box.send("a", b"2", 60)
        assert await waiting == b"2"
    assert event in [each["event"] for each in said]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_letters_are_thrown_away_when_their_time_is_over(database: Database) -> None:
    clock = Clock()
    box = ProcessMailbox(database, lambda: int(clock.now * 1e6))
    await box.send("a", b"1", 10)
    clock.now += 5
    await box.sweep()
    assert await box.wait_for("a", 5) == b"1"
    clock.now += 6
    await box.sweep()
    assert await database.read(lambda connection: connection.execute(select(func.count()).select_from(mail)).scalar()) == 0
    with pytest.raises(TimeoutError):
        await box.wait_for("a", 0.01)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_one_process_alone_keeps_no_letter_that_nobody_waits_for(database: Database) -> None:  # attack PRO-12
    box = ProcessMailbox(database, lambda: 0)
    await box.send("nobody", b"1" * 1000, 60)
    assert len(box._cache) == 0
