"""Claims about work that nobody waits for."""

import asyncio

from structlog.testing import capture_logs

from gateway.concurrency.background import run_in_background


async def fail() -> None:
    raise ValueError("why")


async def test_what_it_fails_of_is_in_the_log_and_a_cancellation_is_no_failure() -> None:
    with capture_logs() as said:
        failing, waiting = run_in_background(fail(), "work_lost", task_id="t_1"), run_in_background(asyncio.sleep(60), "work_lost")
        waiting.cancel()
        await asyncio.wait([failing, waiting])
        await asyncio.sleep(0)
    assert [(each["event"], each["task_id"], type(each["exc_info"])) for each in said] == [("work_lost", "t_1", ValueError)]
