"""The clock of claims and effects, which several threads of a process use at once."""

from types import SimpleNamespace
from typing import Any

from gateway.state.subjects.clock import SubjectClock

MOMENT = 1_800_000_000_000_000  # in 2027


class WatchedClock(SubjectClock):
    """Is looked at by another thread after each change of it."""

    def __init__(self) -> None:
        self.seen: list[int | None] = []
        super().__init__(lambda: MOMENT)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if "_noted" in self.__dict__:
            self.seen.append(self.recent(is_sqlite=False))


def test_a_clock_that_is_being_set_never_tells_another_time() -> None:
    clock = WatchedClock()
    clock.note(MOMENT)
    told = [moment for moment in clock.seen if moment is not None]
    assert told and min(told) >= MOMENT


class FakeConnection:
    """A connection to a database that says what time it is."""

    def __init__(self, dialect: str) -> None:
        self.dialect = SimpleNamespace(name=dialect)

    def execute(self, _query: Any) -> "FakeConnection":
        return self

    def scalar_one(self) -> int:
        return MOMENT


# attack BRD-01
def test_a_process_whose_clock_is_ahead_goes_by_that_of_its_database() -> None:
    """SQLite has no clock of its own: its only process is the clock."""
    clock = SubjectClock(lambda: MOMENT + 60_000_000)
    assert clock.read(FakeConnection("postgresql")) == MOMENT  # type: ignore[arg-type]  # what a clock uses of it
    assert clock.read(FakeConnection("sqlite")) == MOMENT + 60_000_000  # type: ignore[arg-type]  # as above
