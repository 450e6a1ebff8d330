"""The policy of a thread with which it does not interrupt the event loop."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.concurrency.thread_policy import avoid_preemption
from gateway.storage.database import Database, engine_for

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the operating system has no policy for batch threads")


def test_a_thread_that_avoids_preemption_is_scheduled_as_batch() -> None:
    with ThreadPoolExecutor(1, initializer=avoid_preemption) as pool:
        assert pool.submit(os.sched_getscheduler, 0).result() == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_system_that_forbids_the_policy_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    with ThreadPoolExecutor(1, initializer=avoid_preemption) as pool:
        assert pool.submit(lambda: "runs").result() == "runs"


async def test_threads_of_the_database_do_not_interrupt_the_event_loop(database_url: str) -> None:
    database = Database(engine_for(database_url))
    database.start()
    try:
        assert await database.write(lambda batch: os.sched_getscheduler(0)) == os.SCHED_BATCH
        assert await database.read(lambda connection: os.sched_getscheduler(0)) == os.SCHED_BATCH
    finally:
        database.close()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
