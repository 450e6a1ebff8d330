"""Turns and calls under way in one process: how they are given up, handed over, and counted."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.tasks.turns.in_flight import CHILD_TASKS_MAX, InFlight, ShuttingDown, TooManyTasks, TurnAbandoned
from tests.fakes.a2a_calls import GRANT


class Call:
    """What a turn runs by."""

    grant = GRANT
    deadline = 7.0


class Share:
    """Part of a limit, which says whether it is free again."""

    freed = 0

    def free(self) -> None:
        self.freed += 1


async def forever() -> None:
    await asyncio.Event().wait()


async def began(work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """The task of some work, which now waits."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    return task


async def run(in_flight: InFlight, task_id: str, turn: Coroutine[Any, Any, Any]) -> Any:
    """Runs a turn that can be cancelled."""
    try:
        with in_flight.cancellable(task_id, Call()):
            return await turn
    finally:
        turn.close()


async def test_a_turn_returns_what_its_agent_gave() -> None:
    async def turn() -> str:
        return "done"

    assert await run(InFlight(), "t", turn()) == "done"


async def test_a_turn_that_runs_shows_its_grant_and_its_deadline() -> None:
    in_flight = InFlight()
    task = await began(run(in_flight, "t", forever()))
    assert (in_flight.turn_grants, in_flight.deadline_of("t")) == ({"t": GRANT}, 7.0)
    in_flight.abandon_turn("t")
    with pytest.raises(TurnAbandoned):
        await task
    assert (in_flight.turn_grants, in_flight.deadline_of("t")) == ({}, math.inf)


async def test_a_client_that_cancels_its_request_is_not_taken_for_a_turn_given_up() -> None:
    task = await began(run(InFlight(), "t", forever()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_turn_that_is_handed_over_names_the_task_to_ask_for() -> None:
    in_flight = InFlight()
    task = await began(run(in_flight, "t_7", forever()))
    assert in_flight.hand_over() == 1
    with pytest.raises(ShuttingDown, match="t_7"):
        await task


async def test_no_turn_begins_after_the_hand_over() -> None:
    in_flight = InFlight()
    in_flight.hand_over()
    with pytest.raises(ShuttingDown):
        await run(in_flight, "t", forever())


async def test_a_call_that_is_given_up_raises_the_reason() -> None:
    in_flight, reason = InFlight(), LookupError("killed")

    async def call() -> None:
        waiting = in_flight.begin_call(Call.grant)
        try:
            await forever()
        except asyncio.CancelledError:
            in_flight.raise_if_abandoned(waiting)
            raise
        finally:
            in_flight.end_call(waiting)

    task = await began(call())
    assert list(in_flight.call_grants.values()) == [GRANT]
    in_flight.abandon_call(task, reason)
    with pytest.raises(LookupError, match="killed"):
        await task
    assert not in_flight.call_grants


async def test_a_hand_over_counts_turns_and_calls() -> None:
    in_flight = InFlight()

    async def call() -> None:
        in_flight.begin_call(Call.grant)
        await forever()

    tasks = [await began(run(in_flight, "t", forever())), await began(call())]
    assert in_flight.hand_over() == 2
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_task_causes_only_so_many_tasks_at_once() -> None:
    in_flight = InFlight()
    for number in range(CHILD_TASKS_MAX):
        in_flight.add_turn(f"t{number}", "parent")
    with pytest.raises(TooManyTasks):
        in_flight.add_turn("one more", "parent")
    in_flight.remove_turn("t0", "parent")
    in_flight.add_turn("one more", "parent")


def test_tasks_that_no_task_caused_are_not_counted() -> None:
    in_flight = InFlight()
    for number in range(CHILD_TASKS_MAX + 1):
        in_flight.add_turn(f"t{number}", "")
    assert f"t{CHILD_TASKS_MAX}" in in_flight


def test_shares_are_free_after_the_last_turn_of_their_task() -> None:
    in_flight, share = InFlight(), Share()
    in_flight.add_turn("t", "")
    in_flight.add_turn("t", "")
    in_flight.hold_shares("t", [share])
    in_flight.remove_turn("t", "")
    assert (share.freed, "t" in in_flight) == (0, True)
    in_flight.remove_turn("t", "")
    assert (share.freed, "t" in in_flight) == (1, False)
