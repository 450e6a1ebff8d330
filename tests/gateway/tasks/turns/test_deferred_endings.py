"""What could not be kept in time: a task is looked after until all of it is kept."""

import asyncio

from gateway.tasks.turns.deferred_endings import STOP_ENDING, TURN_ENDING, DeferredEndings
from tests.fakes.waiting import until


async def at_once(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_a_task_is_looked_after_until_all_that_is_late_is_kept() -> None:
    late, turned, stopped = DeferredEndings(at_once), asyncio.Event(), asyncio.Event()
    late.retry_until_written("t_1", TURN_ENDING, turned.wait)
    late.retry_until_written("t_1", STOP_ENDING, stopped.wait)
    turned.set()
    await until(lambda: len(late) == 1)
    assert "t_1" in late
    stopped.set()
    await until(lambda: "t_1" not in late)


async def test_who_stops_a_task_again_and_again_adds_nothing_to_what_is_tried() -> None:
    late, gate, tries = DeferredEndings(at_once), asyncio.Event(), 0

    async def act() -> None:
        nonlocal tries
        tries += 1
        await gate.wait()

    for _ in range(3):
        late.retry_until_written("t_1", STOP_ENDING, act)
    await until(lambda: tries > 0)
    assert len(late) == 1
    gate.set()
    await until(lambda: "t_1" not in late)
    assert tries == 1
