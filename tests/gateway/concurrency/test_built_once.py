"""Attributes that are built once, whichever threads read them first."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import pytest

from gateway.concurrency.built_once import BuiltOnce
from gateway.server.composition.built_in.state import LazyBoard
from gateway.server.composition.events.lazy import LazyEvents
from gateway.server.composition.workflows import LazyWorkflows
from tests.fakes.waiting import SECONDS

THREADS = 8


class House:
    """Has an attribute whose building another thread interrupts, and one that is built of it."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.is_broken = False
        self._together = threading.Barrier(THREADS)

    def read(self) -> tuple[object, object]:
        self._together.wait(SECONDS)
        return self.roof, self.wall

    @BuiltOnce
    def wall(self) -> object:
        """The wall."""
        if self.is_broken:
            raise OSError
        self.built.append("wall")
        threading.Event().wait(0.01)  # other threads run meanwhile
        return object()

    @BuiltOnce
    def roof(self) -> object:
        self.built.append("roof")
        return self.wall


def test_many_threads_that_read_first_get_the_same_parts() -> None:
    house = House()
    with ThreadPoolExecutor(THREADS) as pool:
        found = {part for reading in [pool.submit(house.read) for _ in range(THREADS)] for part in reading.result(SECONDS)}
    assert house.built == ["roof", "wall"] and found == {house.wall}
    assert "wall" in house.__dict__ and House.wall.__doc__ == "The wall."


def test_what_could_not_be_built_is_built_by_the_next_read() -> None:
    house = House()
    house.is_broken = True
    with pytest.raises(OSError):
        _ = house.wall
    house.is_broken = False
    assert house.wall is house.wall and house.built == ["wall"]


@pytest.mark.parametrize("lazy", [LazyBoard, LazyEvents, LazyWorkflows])
def test_what_threads_build_lazily_is_built_once_in_every_python(lazy: type) -> None:
    parts = list(vars(lazy).values())
    assert any(isinstance(part, BuiltOnce) for part in parts)
    assert not any(isinstance(part, cached_property) for part in parts)
