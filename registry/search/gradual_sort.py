"""Sorts many items in small steps, so that other work can run between them."""

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
SORTED_AT_ONCE = 100  # items of one step


class GradualSort(Generic[T]):
    """Sorts parts while items are added, and merges them while it is iterated. Equal items keep their order, also in reverse."""

    def __init__(self, key: Callable[[T], Any], *, reverse: bool = False) -> None:
        self._key = key
        self._reverse = reverse
        self._parts: list[list[T]] = []  # sorted ones
        self._last: list[T] = []

    def add(self, item: T) -> None:
        self._last.append(item)
        if len(self._last) == SORTED_AT_ONCE:
            self._parts.append(self._sort_last())
            self._last = []

    def __iter__(self) -> Iterator[T]:
        return heapq.merge(*self._parts, self._sort_last(), key=self._key, reverse=self._reverse)

    def _sort_last(self) -> list[T]:
        return sorted(self._last, key=self._key, reverse=self._reverse)
