"""Tails: nobody who follows a task misses an event, however it came to be known, and no tail grows without end."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from adapters.task import TaskState
from gateway.tasks.events.live import BODIES_SIZE_MAX, EVENTS_MAX, LiveEvents, LiveEventsByTask
from gateway.tasks.log import TaskEvent, TaskRow


def row(last: int, name: str = "t_1") -> TaskRow:
    return TaskRow("default", name, "o", "c", "sales", TaskState.WORKING, "", "x", "d", "g", 1, 1, last_seq=last)


def events(first: int, last: int, body: str = "{}") -> tuple[TaskEvent, ...]:
    return tuple(TaskEvent(seq, seq, "artifact", body) for seq in range(first, last + 1))


@given(st.lists(st.tuples(st.sampled_from(["kept", "read", "moved elsewhere", "kept unseen"]), st.integers(0, 70)), max_size=12))
def test_what_a_tail_tells_is_what_happened_or_nothing(story: list[tuple[str, int]]) -> None:
    """`now` is where the task stands; a tail that tells anything tells all that came after any number, up to where it was told of."""
    tail = LiveEvents()
    now = told = 2
    for what, count in story:
        last, now = now, now + count
        if what == "kept":
            tail.update(row(now), events(last + 1, now))
        elif what == "read":
            after = max(now - count, 0)
            tail.update(row(now), events(after + 1, now))
        elif what == "moved elsewhere":
            tail.invalidate()
        told = now if what in ("kept", "read") else told
        for after in range(now + 1):
            known = tail.events_after(after)
            if known is not None:
                assert (known[0].last_seq, known[1]) == (told, events(after + 1, told))
    assert tail.events_after(0) is None or told <= EVENTS_MAX + 70


def test_what_was_known_already_teaches_nothing() -> None:
    tail = LiveEvents()
    tail.update(row(5), events(1, 5))
    tail.update(row(3), events(1, 3))
    tail.update(row(5), ())
    assert tail.events_after(2) == (row(5), events(3, 5))
    assert tail.is_up_to(5) and not tail.is_up_to(4)


def test_a_tail_holds_so_many_events_and_so_much_text() -> None:
    tail = LiveEvents()
    tail.update(row(10), events(1, 10))
    tail.update(row(EVENTS_MAX + 10), events(11, EVENTS_MAX + 10))
    assert tail.events_after(10) is not None and tail.events_after(9) is None
    large = "x" * (BODIES_SIZE_MAX // 3)
    tail.update(row(EVENTS_MAX + 14), events(EVENTS_MAX + 11, EVENTS_MAX + 14, large))
    assert tail.events_after(EVENTS_MAX + 11) is not None and tail.events_after(EVENTS_MAX + 10) is None
    tail.update(row(EVENTS_MAX + 15), events(EVENTS_MAX + 15, EVENTS_MAX + 15, "x" * (BODIES_SIZE_MAX + 1)))
    assert tail.events_after(EVENTS_MAX + 14) is None and tail.events_after(EVENTS_MAX + 15) == (row(EVENTS_MAX + 15), ())


def test_a_follower_gets_the_events_of_one_large_commit_from_the_tail() -> None:
    tail = LiveEvents()
    tail.update(row(2), events(1, 2))
    tail.update(row(10 * EVENTS_MAX), events(3, 10 * EVENTS_MAX))
    assert tail.events_after(2) == (row(10 * EVENTS_MAX), events(3, 10 * EVENTS_MAX))
    assert tail.events_after(1) is None


async def test_whoever_waits_is_woken_by_news_of_either_kind() -> None:
    tail = LiveEvents()
    for news in (lambda: tail.update(row(5), events(1, 5)), tail.invalidate):
        waits = [asyncio.ensure_future(tail.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waits.pop().cancel()
        await asyncio.sleep(0)
        assert len(tail._waiters) == 2
        news()
        await asyncio.wait_for(asyncio.gather(*waits), 60)
        assert not tail._waiters


async def test_live_events_are_kept_while_held_and_polled_while_awaited() -> None:
    tails = LiveEventsByTask()
    held = tails.live_events_of(row(2))
    assert tails.live_events_of(row(7)) is held is tails.find("default", "t_1") and tails.find("other", "t_1") is None
    held.update(row(2), ())
    assert list(tails.awaited_rows()) == []
    waiting = asyncio.ensure_future(held.wait())
    await asyncio.sleep(0)
    assert list(tails.awaited_rows()) == [row(2)]
    held.invalidate()
    await waiting
    assert list(tails.awaited_rows()) == []
    del held, waiting
    assert len(tails) == 0 and tails.find("default", "t_1") is None
