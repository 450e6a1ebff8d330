"""Clocks that go as they are told."""

import asyncio


class Clock:
    """Stands still until it is told. Counts seconds since 1970."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def us(self) -> int:
        """Microseconds since 1970."""
        return int(self.now * 1_000_000)


def leap(seconds: float) -> None:
    """So much later for all that the running loop times: what is due by then comes at once."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]  # for as long as the test's loop lives
