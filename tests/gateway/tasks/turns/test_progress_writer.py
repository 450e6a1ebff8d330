"""Showing: what a turn comes to is kept in its order, in few commits, and a turn whose task somebody else ended is stopped."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.tasks.turns.progress_writer import ProgressWriter
from tests.fakes.waiting import SECONDS, until


class Commits:
    """Each waits until the test lets it go, and comes to what the test says. `noted` is what the turn came to; `asked` has what each
    commit found there."""

    def __init__(self) -> None:
        self.noted = ""
        self.asked: list[str] = []
        self._answers: asyncio.Queue[str | None] = asyncio.Queue()

    async def keep(self) -> str | None:
        self.asked.append(self.noted)
        return await self._answers.get()

    def answer(self, over: str | None = None) -> None:
        """None: nobody else moved the task."""
        self._answers.put_nowait(over)

    def note(self, showing: ProgressWriter[str], text: str) -> None:
        self.noted = text
        showing.write()


async def test_what_comes_during_one_commit_goes_along_with_the_next() -> None:
    commits = Commits()
    showing = ProgressWriter(commits.keep)
    commits.note(showing, "a")
    await until(lambda: len(commits.asked) == 1)
    for text in ("ab", "abc", "abcd"):
        commits.note(showing, text)
    commits.answer()
    await until(lambda: len(commits.asked) == 2)
    commits.answer()
    await until(lambda: showing._writing is None)
    assert commits.asked == ["a", "abcd"]
    assert await showing.flush() is None


async def test_the_end_of_a_turn_waits_for_one_commit_only() -> None:
    """What came since goes along with the ending."""
    commits = Commits()
    showing = ProgressWriter(commits.keep)
    commits.note(showing, "a")
    await until(lambda: len(commits.asked) == 1)
    commits.note(showing, "ab")
    settling = asyncio.ensure_future(showing.flush())
    await asyncio.sleep(0)
    assert not settling.done()
    commits.answer()
    assert await settling is None
    assert commits.asked == ["a"]


async def test_a_long_turn_rests_between_two_commits_and_its_end_does_not_wait_for_that() -> None:
    commits = Commits()
    showing = ProgressWriter(commits.keep, lambda: 3600.0)
    commits.note(showing, "a")
    commits.answer()
    await until(lambda: len(commits.asked) == 1)
    commits.note(showing, "ab")
    async with asyncio.timeout(SECONDS):
        assert await showing.flush() is None
    assert commits.asked == ["a"]


async def test_after_a_rest_all_that_came_meanwhile_is_kept_at_once() -> None:
    commits = Commits()
    showing = ProgressWriter(commits.keep, lambda: 0.01)
    commits.note(showing, "a")
    commits.answer()
    await until(lambda: len(commits.asked) == 1)
    commits.note(showing, "ab")
    commits.note(showing, "abc")
    commits.answer()
    await until(lambda: len(commits.asked) == 2)
    assert commits.asked == ["a", "abc"]
    await showing.flush()


async def _turn(commits: Commits, agent: Callable[[], Awaitable[object]]) -> str:
    showing = ProgressWriter(commits.keep)
    try:
        commits.note(showing, "a")
        await agent()
    except asyncio.CancelledError:
        if not showing.was_superseded():
            raise
    return f"{await showing.flush()}, over: {showing.superseding}"


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
