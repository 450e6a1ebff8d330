"""Signals to a process: the first begins the drain, the second ends its delay and takes nothing from the time of the work."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.server.drain import Drain, DrainTimes


class Work:
    """Turns under way, and the time until which the drain waits for them."""

    def __init__(self) -> None:
        self.in_flight_count = 0
        self.until = 0.0

    async def wait_until_idle(self, until: float) -> None:
        self.until = until

    def hand_over(self) -> int:
        return 0


@pytest.fixture
def server_signals() -> Iterator[list[int]]:
    """The signals that the server gets; its handler is in place before the drain takes signals."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


def draining(work: Any, delay: float) -> Drain:
    drain = Drain(DrainTimes(grace=600, delay=delay), work)
    drain.takes_signals = True
    drain.take_signals()
    return drain


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
