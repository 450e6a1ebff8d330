"""Showing: what a turn comes to is kept in its order, in few commits, and a turn whose task somebody else ended is stopped."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.showing import Showing
from tests.fakes.waiting import SECONDS, until


class Commits:
    """Each waits until the test lets it go, and comes to what the test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self._answers: asyncio.Queue[str | None] = asyncio.Queue()

    async def keep(self, kept: str, new: str) -> str:
        self.asked.append((kept, new))
        reached = await self._answers.get()
        return new if reached is None else reached

    def answer(self, reached: str | None = None) -> None:
        """None: it was kept."""
        self._answers.put_nowait(reached)


async def test_what_comes_during_one_commit_goes_along_with_the_next() -> None:
    commits = Commits()
    showing = Showing("", commits.keep)
    showing.show("a")
    await until(lambda: len(commits.asked) == 1)
    for text in ("ab", "abc", "abcd"):
        showing.show(text)
    commits.answer()
    await until(lambda: len(commits.asked) == 2)
    commits.answer()
    await until(lambda: showing.kept == "abcd")
    assert commits.asked == [("", "a"), ("a", "abcd")]
    assert await showing.settled() == "abcd"


async def test_the_end_of_a_turn_waits_for_one_commit_only() -> None:
    """What came since goes along with the ending."""
    commits = Commits()
    showing = Showing("", commits.keep)
    showing.show("a")
    await until(lambda: len(commits.asked) == 1)
    showing.show("ab")
    settling = asyncio.ensure_future(showing.settled())
    await asyncio.sleep(0)
    assert not settling.done()
    commits.answer()
    assert await settling == "a"
    assert commits.asked == [("", "a")]


async def test_what_can_not_be_kept_now_goes_along_with_what_comes_next() -> None:
    commits = Commits()
    showing = Showing("", commits.keep)
    showing.show("a")
    commits.answer("")
    await until(lambda: showing._keeping is None)
    assert showing.kept == ""
    showing.show("ab")
    commits.answer()
    await until(lambda: showing.kept == "ab")
    assert commits.asked == [("", "a"), ("", "ab")]


async def _turn(commits: Commits, agent: Callable[[], Awaitable[object]]) -> str:
    showing = Showing("", commits.keep)
    try:
        showing.show("a")
        await agent()
    except asyncio.CancelledError:
        if not showing.overtaken():
            raise
    return f"{await showing.settled()}, over: {showing.over}"


async def test_a_turn_whose_task_was_ended_by_somebody_else_waits_for_its_agent_no_more() -> None:
    commits = Commits()
    commits.answer("canceled")
    turn = asyncio.ensure_future(_turn(commits, asyncio.Event().wait))
    async with asyncio.timeout(SECONDS):
        assert await turn == "canceled, over: canceled"
    assert not turn.cancelling()


async def test_a_turn_that_is_cancelled_from_outside_is_cancelled() -> None:
    turn = asyncio.ensure_future(_turn(Commits(), asyncio.Event().wait))
    await asyncio.sleep(0)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
