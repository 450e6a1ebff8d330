"""The bounded cache."""

import pytest

from policies.cache import BoundedCache
from tests.fakes.clock import Clock


def test_an_entry_is_found_until_its_time_is_over() -> None:
    clock = Clock(100.0)
    cache: BoundedCache[str, int] = BoundedCache(10, clock)
    cache.put("a", 1, 5.0)
    clock.now = 104.9
    assert cache.get("a") == 1
    clock.now = 105.0
    assert cache.get("a") is None
    assert len(cache) == 0


def test_the_oldest_entry_leaves_when_all_places_are_taken() -> None:
    cache: BoundedCache[int, int] = BoundedCache(3, Clock())
    for number in range(5):
        cache.put(number, number, 60.0)
    assert [cache.get(number) for number in range(5)] == [None, None, 2, 3, 4]


def test_putting_again_renews_value_time_and_place() -> None:
    clock = Clock(0.0)
    cache: BoundedCache[str, int] = BoundedCache(2, clock)
    cache.put("a", 1, 1.0)
    cache.put("b", 2, 60.0)
    cache.put("a", 3, 60.0)
    cache.put("c", 4, 60.0)
    clock.now = 30.0
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, None, 4)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_what_is_over_already_is_not_kept(seconds: float) -> None:
    cache: BoundedCache[str, int] = BoundedCache(2, Clock())
    cache.put("a", 1, 60.0)
    cache.put("a", 2, seconds)
    assert (len(cache), cache.get("a")) == (0, None)


def test_the_shortest_time_is_a_time() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2, Clock(0.0))
    cache.put("a", 1, 0.001)
    assert cache.get("a") == 1


def test_dropped_and_cleared_entries_are_gone() -> None:
    cache: BoundedCache[str, int] = BoundedCache(3, Clock())
    for name in "abc":
        cache.put(name, 1, 60.0)
    cache.drop("a")
    cache.drop("unknown")
    assert (cache.get("a"), cache.get("b")) == (None, 1)
    cache.clear()
    assert (cache.get("b"), len(cache)) == (None, 0)


@pytest.mark.parametrize("size", [0, -1])
def test_a_cache_without_places_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size must be at least 1"):
        BoundedCache(size, Clock())


def test_a_cache_of_one_place_keeps_the_last() -> None:
    cache: BoundedCache[str, int] = BoundedCache(1, Clock())
    for name in "ab":
        cache.put(name, 1, 60.0)
    assert (cache.get("a"), cache.get("b")) == (None, 1)


def test_what_is_over_makes_room() -> None:
    clock = Clock(0.0)
    cache: BoundedCache[str, int] = BoundedCache(2, clock)
    cache.put("long", 1, 60.0)
    cache.put("short", 2, 1.0)
    clock.now = 1.0
    assert cache.get("short") is None
    cache.put("new", 3, 60.0)
    assert (cache.get("long"), cache.get("new")) == (1, 3)
