"""The drain of one process: signals begin it, requests get their grace, and what is left is handed over or cut."""

import asyncio
import signal
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest

from gateway.calls.limits.open_streams import OpenStreams
from gateway.server import drain as drain_module
from gateway.server.drain import Drain, DrainTimes, Lifecycle, take_steps, with_connection_close
from gateway.tasks.turns.in_flight import ShuttingDown
from tests.fakes.waiting import until


class Work:
    """Turns under way. `until` is the time until which the drain waits for them; `handed_over` counts."""

    in_flight_count = 0

    def __init__(self) -> None:
        self.until = 0.0
        self.handed_over = 0

    async def wait_until_idle(self, until: float) -> None:
        self.until = until

    def hand_over(self) -> int:
        self.handed_over += 1
        return 0


@pytest.fixture
def server_signals() -> Iterator[list[int]]:
    """The signals that the server gets; its handler is in place before the drain takes signals."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


def build_drain(
    work: Any, delay: float = 0.0, grace: float = 600.0, *, lifecycle: Lifecycle | None = None, streams: OpenStreams | None = None
) -> Drain:
    return Drain(DrainTimes(grace=grace, delay=delay), work, lifecycle or Lifecycle(), streams or OpenStreams())


def draining(work: Any, delay: float) -> Drain:
    drain = Drain(DrainTimes(grace=600.0, delay=delay), work, Lifecycle(), OpenStreams(), takes_signals=True)
    drain.take_signals()
    return drain


async def close(drain: Drain) -> None:
    """Begins the drain, and waits until requests are refused."""
    closed = asyncio.Event()
    drain.begin(closed.set)
    await closed.wait()


async def test_a_second_signal_ends_the_delay_and_leaves_the_grace(server_signals: list[int]) -> None:
    work, began = Work(), asyncio.get_running_loop().time()
    drain = draining(work, delay=600)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    assert (drain.begun, drain.closed, server_signals) == (True, False, [])
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    assert (drain.closed, server_signals) == (True, [signal.SIGTERM])
    await drain.finish()
    assert work.until >= began + 600


async def test_the_delay_that_a_second_signal_ended_does_not_signal_the_server_again(server_signals: list[int]) -> None:
    draining(Work(), delay=0.01)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, over.set)  # after the first timer would have been due
    await over.wait()
    assert server_signals == [signal.SIGTERM]


async def test_readiness_ends_before_requests_are_refused() -> None:
    drain = build_drain(Work(), delay=600)
    drain.begin(lambda: None)
    assert (drain.begun, drain.closed) == (True, False)


async def test_without_a_drain_finishing_waits_for_nothing_and_hands_nothing_over() -> None:
    work = Work()
    await build_drain(work).finish()
    assert (work.until, work.handed_over) == (0.0, 0)


async def test_what_is_left_after_the_grace_is_handed_over() -> None:
    work = Work()
    drain = build_drain(work)
    await close(drain)
    await drain.finish()
    assert work.handed_over == 1


async def test_a_request_that_does_not_end_by_itself_is_cut_after_the_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "ANSWER_SECONDS", 0.0)
    work, cut = Work(), []
    drain = build_drain(work, grace=0.0)

    async def request() -> None:
        task = drain.enter()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.append((work.handed_over, drain.has_cut(task)))
        finally:
            drain.leave(task)

    task = asyncio.create_task(request())
    await close(drain)
    await task
    assert cut == [(1, True)]


async def test_a_request_that_its_client_cancels_is_not_cut_by_the_drain() -> None:
    drain = build_drain(Work())
    assert not drain.has_cut(drain.enter())


async def test_streams_without_an_end_are_ended_with_the_seconds_that_other_work_has() -> None:
    ended: list[float] = []
    done = asyncio.Event()

    async def end(seconds: float) -> None:
        ended.append(seconds)
        done.set()

    lifecycle = Lifecycle()
    lifecycle.on_drain(end)
    drain = build_drain(Work(), grace=30.0, lifecycle=lifecycle)
    await close(drain)
    await done.wait()
    assert len(ended) == 1 and 0 < ended[0] < 30.0  # some of the grace passed before requests were refused


async def test_a_process_that_drains_takes_up_no_turns() -> None:
    async def take_up() -> int:
        return 3

    drain = build_drain(Work(), delay=600)
    act = drain.until_begun(take_up)
    assert await act() == 3
    drain.begin(lambda: None)
    assert await act() == 0


async def test_a_step_of_the_shutdown_that_fails_keeps_no_other_from_its_end() -> None:
    done: list[str] = []

    async def fails() -> None:
        raise OSError("disk")

    async def works() -> None:
        done.append("worked")

    await take_steps(fails(), works())
    assert done == ["worked"]


async def test_each_answer_says_that_its_connection_is_not_used_again() -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await with_connection_close(send)({"type": "http.response.start", "headers": [(b"a", b"b")]})
    await with_connection_close(send)({"type": "http.response.body", "body": b"x"})
    assert sent[0]["headers"] == [(b"a", b"b"), (b"connection", b"close")]
    assert sent[1] == {"type": "http.response.body", "body": b"x"}


async def test_requests_are_served_for_a_moment_after_the_listener_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that it accepted last bring their first request only then."""
    monkeypatch.setattr(drain_module, "LATE_SECONDS", 0.01)
    ended, lifecycle = asyncio.Event(), Lifecycle()

    async def end_streams(_: float) -> None:
        ended.set()

    lifecycle.on_drain(end_streams)
    drain = build_drain(Work(), lifecycle=lifecycle)
    await close(drain)
    assert (drain.closed, drain.refuses) == (True, False)
    await ended.wait()
    assert drain.refuses


async def test_a_stream_without_an_end_ends_with_the_listener_and_no_other_request() -> None:
    streams, cut = OpenStreams(), asyncio.Event()
    drain = build_drain(Work(), streams=streams)

    async def request(*, is_endless: bool) -> bool:
        task = drain.enter()
        slot = streams.acquire_endless("alice") if is_endless else streams.acquire("alice")
        try:
            await slot.hold_during(cut).wait()
        except asyncio.CancelledError:
            cut.set()
            return drain.has_cut(task)
        return False

    tasks = [asyncio.create_task(request(is_endless=is_endless)) for is_endless in (True, False)]
    await asyncio.sleep(0)
    await close(drain)
    assert await asyncio.gather(*tasks) == [True, False]


async def test_a_draining_process_begins_no_stream_without_an_end() -> None:
    streams = OpenStreams()
    await close(build_drain(Work(), streams=streams))
    await until(lambda: streams.is_closed)
    with pytest.raises(ShuttingDown):
        streams.acquire_endless("alice")
