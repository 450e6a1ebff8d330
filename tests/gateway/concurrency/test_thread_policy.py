"""The policy of a thread that does not interrupt the event loop while that costs it little time."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from gateway.concurrency.thread_policy import LONG_SECONDS, PREEMPTING_SECONDS, BatchScheduling
from gateway.storage.database import Database, engine_for

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the operating system has no policy for batch threads")
SHORT = LONG_SECONDS / 2
LONG = LONG_SECONDS * 2


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def policies_after(*steps: Callable[[BatchScheduling], object], clock: Clock) -> list[int]:
    """The policy of a fresh thread after each step."""
    policies = []

    def run() -> None:
        thread = BatchScheduling(clock)
        for step in steps:
            step(thread)
            policies.append(os.sched_getscheduler(0))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()
    return policies


def test_a_thread_of_batch_scheduling_waits_when_it_wakes() -> None:
    assert policies_after(BatchScheduling.begin, lambda thread: thread.adapt(SHORT), clock=Clock()) == [os.SCHED_BATCH, os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_thread_whose_work_took_long_interrupts_others_for_a_while() -> None:
    clock = Clock()

    def work_later(thread: BatchScheduling, seconds: float) -> None:
        clock.now += seconds
        thread.adapt(SHORT)

    steps: list[Callable[[BatchScheduling], object]] = [
        BatchScheduling.begin,
        lambda thread: thread.adapt(LONG),
        lambda thread: work_later(thread, PREEMPTING_SECONDS / 2),
        lambda thread: work_later(thread, PREEMPTING_SECONDS / 2),
    ]
    assert policies_after(*steps, clock=clock) == [os.SCHED_BATCH, os.SCHED_OTHER, os.SCHED_OTHER, os.SCHED_BATCH]


def test_a_system_that_forbids_the_policy_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    assert policies_after(BatchScheduling.begin, clock=Clock()) == [os.SCHED_OTHER]


async def test_the_database_writer_has_batch_scheduling(database_url: str) -> None:
    database = Database(engine_for(database_url))
    database.start()
    try:
        assert await database.write(lambda batch: os.sched_getscheduler(0)) == os.SCHED_BATCH
    finally:
        database.close()


async def test_a_slow_commit_ends_the_patience_of_the_database_writer(database_url: str) -> None:
    database = Database(engine_for(database_url))
    database.start()

    never = Event()

    def write_slowly(batch: object) -> None:
        never.wait(LONG)

    try:
        await database.write(write_slowly)
        assert await database.write(lambda batch: os.sched_getscheduler(0)) == os.SCHED_OTHER
    finally:
        database.close()
