"""The watchdog says who holds up the event loop."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from gateway.server.watchdog import BLOCKED_BUCKETS, BLOCKED_SECONDS, FRAMES_MAX, Watchdog, describe_stack
from gateway.telemetry.metrics import Metrics


class Observed:
    """What a watchdog tells of the loop, one call at a time."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.seconds: asyncio.Queue[float] = asyncio.Queue()

    def __call__(self, seconds: float) -> None:
        self.loop.call_soon_threadsafe(self.seconds.put_nowait, seconds)


@pytest.fixture
async def observed() -> AsyncIterator[Observed]:
    seen = Observed()
    watchdog = Watchdog(seen)
    await watchdog.start()
    yield seen
    await watchdog.stop()


def hold_up() -> None:
    """Blocks the thread that calls it for as long as the watchdog needs to notice."""
    released = threading.Event()
    threading.Timer(3 * BLOCKED_SECONDS, released.set).start()
    released.wait()


async def test_what_blocks_the_loop_is_logged_with_its_place(observed: Observed) -> None:
    with capture_logs() as logged:
        hold_up()
        seconds = await observed.seconds.get()
    assert seconds >= BLOCKED_SECONDS
    (line,) = [entry for entry in logged if entry["event"] == "event_loop_blocked" and "hold_up" in entry["where"]]
    assert line["log_level"] == "warning"
    assert line["seconds"] >= BLOCKED_SECONDS
    assert "server/test_watchdog.py:" in line["where"]


async def test_a_loop_that_stands_still_is_told_while_it_does(observed: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.watchdog.STUCK_SECONDS", BLOCKED_SECONDS)
    with capture_logs() as logged:
        hold_up()
        assert "event_loop_stuck" in [entry["event"] for entry in logged]  # before the loop turned again


async def test_a_blocked_loop_is_counted() -> None:
    metrics = Metrics()
    metrics.add_histogram("event_loop_blocked", "How long the event loop was blocked.", BLOCKED_BUCKETS)(0.7)
    assert metrics.registry.get_sample_value("interlock_event_loop_blocked_seconds_sum") == 0.7
    assert metrics.registry.get_sample_value("interlock_event_loop_blocked_seconds_bucket", {"le": "0.5"}) == 0


async def test_a_stopped_watchdog_asks_no_more() -> None:
    watchdog = Watchdog(lambda seconds: None)
    before = threading.active_count()
    await watchdog.start()
    assert threading.active_count() == before + 1
    await watchdog.stop()
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_a_place_names_the_innermost_calls_first() -> None:
    def inner(depth: int) -> str:
        return inner(depth - 1) if depth else describe_stack(sys._getframe())

    calls = inner(FRAMES_MAX).split(" < ")
    assert len(calls) == FRAMES_MAX
    assert all(call.startswith("server/test_watchdog.py:") and call.endswith(" inner") for call in calls)
    assert describe_stack(None) == ""
