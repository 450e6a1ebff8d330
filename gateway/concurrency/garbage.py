"""Collects garbage in short steps, and looks at all objects only while the process has nothing else to do.

The event loop stands still during a collection. Collections of young objects are frequent and short. One of all objects takes 0.1 ms for
each thousand, so on a gateway with 10,000 agents it would delay every request by 100 ms.
"""

import gc
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog

IDLE_CHECK_SECONDS: Final = 1.0
YOUNG_OBJECTS: Final = 5_000  # new containers after which the youngest are looked at: at most 1 ms
YOUNG_ROUNDS: Final = 5  # such rounds after which those that stayed are looked at again: at most 5 ms
NEVER: Final = 1_000_000_000
DUE_ROUNDS: Final = 30  # of these, after which all objects are looked at once the process is idle: a million new containers
OVERDUE_ROUNDS: Final = 700  # and after which it is done in any case
IDLE_SHARE: Final = 0.1  # of a core: a process that uses less is idle
LONG_SECONDS: Final = 0.01

log = structlog.get_logger()


class Collector(Protocol):
    """The functions of the module gc that are used."""

    def collect(self) -> int: ...

    def freeze(self) -> None: ...

    def unfreeze(self) -> None: ...

    def get_count(self) -> tuple[int, int, int]: ...

    def set_threshold(self, young: int, rounds: int, old: int, /) -> None: ...


class GarbageCollection:
    """Decides when all objects are looked at. `clock` and `cpu` count seconds: of the day, and those that the process has used."""

    def __init__(
        self, collector: Collector = gc, clock: Callable[[], float] = time.perf_counter, cpu: Callable[[], float] = time.process_time
    ) -> None:
        self._collector = collector
        self._clock = clock
        self._cpu = cpu
        self._checked_at, self._used = clock(), cpu()

    def begin(self) -> None:
        """Exempts the objects of the start from collections, and lets none but young objects be looked at by themselves."""
        self._collector.collect()
        self._collector.freeze()
        self._collector.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, NEVER)

    async def run_once(self) -> None:
        """Looks at all objects if that is due and the process is idle, or if it is overdue."""
        now, used = self._clock(), self._cpu()
        is_idle = used - self._used < IDLE_SHARE * (now - self._checked_at)
        self._checked_at, self._used = now, used
        rounds = self._collector.get_count()[2]
        if rounds >= (DUE_ROUNDS if is_idle else OVERDUE_ROUNDS):
            self._collect_all(is_idle)

    def _collect_all(self, is_idle: bool) -> None:
        """Looks at all objects. If that takes long, the next time is spared those that are left, such as a large registry.

        Exempt objects that have become garbage since, such as those of closed connections, would stay for ever: an idle process looks at
        them before it exempts more.
        """
        began = self._clock()
        self._collector.collect()
        seconds = self._clock() - began
        if seconds > LONG_SECONDS:
            if is_idle:
                self._collector.unfreeze()
                self._collector.collect()
            self._collector.freeze()
            log.debug("garbage_collected", seconds=round(seconds, 3))
