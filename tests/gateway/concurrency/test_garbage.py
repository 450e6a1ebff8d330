"""All objects are looked at only while the process is idle, or when that is overdue; young ones in short steps by themselves."""

import pytest

from gateway.concurrency.garbage import (
    DUE_ROUNDS,
    IDLE_SHARE,
    LONG_SECONDS,
    NEVER,
    OVERDUE_ROUNDS,
    YOUNG_OBJECTS,
    YOUNG_ROUNDS,
    GarbageCollection,
)


class Process:
    """A process with clocks and a collector that a test sets."""

    def __init__(self) -> None:
        self.now = self.used = 0.0
        self.rounds = 0
        self.seconds = 0.0  # that a collection takes
        self.done: list[str] = []
        self.thresholds = (0, 0, 0)
        self.garbage = GarbageCollection(self, lambda: self.now, lambda: self.used)

    def collect(self) -> int:
        self.done.append("collect")
        self.rounds, self.now = 0, self.now + self.seconds
        return 0

    def freeze(self) -> None:
        self.done.append("freeze")

    def unfreeze(self) -> None:
        self.done.append("unfreeze")

    def get_count(self) -> tuple[int, int, int]:
        return (0, 0, self.rounds)

    def set_threshold(self, young: int, rounds: int, old: int, /) -> None:
        self.thresholds = (young, rounds, old)

    async def pass_second(self, used: float) -> None:
        self.now, self.used = self.now + 1, self.used + used
        await self.garbage.run_once()


@pytest.fixture
def process() -> Process:
    return Process()


def test_objects_of_the_start_are_exempt_and_only_young_ones_are_looked_at(process: Process) -> None:
    process.garbage.begin()
    assert process.done == ["collect", "freeze"]
    assert process.thresholds == (YOUNG_OBJECTS, YOUNG_ROUNDS, NEVER)


async def test_all_objects_are_looked_at_when_it_is_due_and_the_process_idle(process: Process) -> None:
    process.rounds = DUE_ROUNDS
    await process.pass_second(used=IDLE_SHARE * 2)
    assert process.done == []
    await process.pass_second(used=0)
    assert process.done == ["collect"]


async def test_an_idle_process_looks_at_nothing_before_it_is_due(process: Process) -> None:
    process.rounds = DUE_ROUNDS - 1
    await process.pass_second(used=0)
    assert process.done == []


async def test_a_process_that_is_never_idle_does_it_when_it_is_overdue(process: Process) -> None:
    process.rounds = OVERDUE_ROUNDS - 1
    await process.pass_second(used=1)
    assert process.done == []
    process.rounds = OVERDUE_ROUNDS
    await process.pass_second(used=1)
    assert process.done == ["collect"]


async def test_what_is_left_after_a_long_look_is_exempt_from_the_next(process: Process) -> None:
    process.rounds, process.seconds = OVERDUE_ROUNDS, LONG_SECONDS * 2
    await process.pass_second(used=1)
    assert process.done == ["collect", "freeze"]


async def test_an_idle_process_looks_at_exempt_objects_before_it_exempts_more(process: Process) -> None:
    """Else those of a wave of connections would stay when they are closed, and each further wave would add its own."""
    process.rounds, process.seconds = DUE_ROUNDS, LONG_SECONDS * 2
    await process.pass_second(used=0)
    assert process.done == ["collect", "unfreeze", "collect", "freeze"]
