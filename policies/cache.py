"""A cache of bounded size whose entries expire."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """A cache of at most `size` entries, which evicts the oldest first. `clock` counts seconds. For one event loop: it takes no lock."""

    __slots__ = ("_clock", "_entries", "_size")

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        if size < 1:
            raise ValueError("size must be at least 1")
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, or None when there is none or it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            self._entries.pop(key, None)
            return None
        return entry[1]

    def put(self, key: K, value: V, ttl_seconds: float) -> None:
        """Stores `value` for `ttl_seconds` from now. Stores nothing, and drops the old value, for zero or less."""
        self._entries.pop(key, None)
        if ttl_seconds <= 0:
            return
        while len(self._entries) >= self._size:
            self._entries.popitem(last=False)
        self._entries[key] = (self._clock() + ttl_seconds, value)

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


class PartedCache(Generic[V]):
    """Two caches of bounded sizes in one: entries whose key ends with an empty text, and the others, which push out none of the first."""

    __slots__ = ("_others", "_plain")

    def __init__(self, sizes: tuple[int, int], clock: Callable[[], float]) -> None:
        self._plain: BoundedCache[tuple[str | None, ...], V] = BoundedCache(sizes[0], clock)
        self._others: BoundedCache[tuple[str | None, ...], V] = BoundedCache(sizes[1], clock)

    def get(self, key: tuple[str | None, ...]) -> V | None:
        return (self._others if key[-1] else self._plain).get(key)

    def put(self, key: tuple[str | None, ...], value: V, ttl_seconds: float) -> None:
        (self._others if key[-1] else self._plain).put(key, value, ttl_seconds)

    def clear(self) -> None:
        self._plain.clear()
        self._others.clear()
