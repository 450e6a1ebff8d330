"""Rounds that callers ask for: none that is asked for is forgotten, and two never run at once."""

import asyncio

from gateway.concurrency.rounds import RequestedRounds
from tests.fakes.waiting import until


async def test_what_is_asked_for_during_a_round_has_a_round_after_it() -> None:
    may_end, begun = asyncio.Event(), list[int]()

    async def work() -> None:
        begun.append(len(begun))
        await may_end.wait()

    rounds = RequestedRounds(work, "rounds_failed")
    rounds.ask()
    await until(lambda: len(begun) == 1)
    rounds.ask()
    rounds.ask()
    assert len(begun) == 1
    may_end.set()
    await until(lambda: len(begun) == 2)


async def test_a_round_that_failed_is_followed_by_the_next_request() -> None:
    outcomes = list[str]()

    async def work() -> None:
        outcomes.append("begun")
        raise LookupError

    rounds = RequestedRounds(work, "rounds_failed", LookupError)
    rounds.ask()
    await until(lambda: len(outcomes) == 1)
    rounds.ask()
    await until(lambda: len(outcomes) > 1)
    assert outcomes == ["begun", "begun"]
