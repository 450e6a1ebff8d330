"""Texts that lead a regular expression into each of its loops and keep it there, for measuring what the analysis says (tests/house)."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from tests.house.automata import Automaton, Ways, bits_of
from tests.house.regexes import Regex

FEW, MANY = 5_000, 20_000  # characters
GROWTH_MAX = 8  # of linear time 4, of quadratic 16
NOISE_SECONDS = 0.01


class Pumps:
    """Of one expression."""

    def __init__(self, regex: Regex) -> None:
        self._automaton = Automaton(regex.pattern, regex.flags, "search")
        self._follow = Ways(self._automaton).follow
        self._empty: Any = b"" if isinstance(regex.pattern, bytes) else ""

    def find_loops(self) -> Iterator[tuple[Any, Any]]:
        """A way to each loop, and what leads through it; once so that the way is taken once, and once so that it is in the loop."""
        hub = len(self._automaton.places) - 1
        for place in range(hub):
            way, loop = self._shortest_word(hub, place), self._shortest_word(place, place)
            if way is not None and loop:
                yield way, loop
                yield self._empty, way + loop

    def pumped_text(self, way: Any, loop: Any, size: int) -> Any:
        """Of about `size` characters, with an end that hardly anything goes on with."""
        return way + loop * (size // len(loop)) + (b"\x00" if self._empty == b"" else "\x00")

    def _shortest_word(self, start: int, goal: int) -> Any:
        """The shortest text that leads from one place to the other; None: there is none. The pattern's own search is no way."""
        kinds, places = self._automaton.kinds, self._automaton.places
        hub = len(places) - 1
        waiting: deque[tuple[int, int, Any]] = deque([(start, kinds.edge if start == hub else -1, self._empty)])
        seen = set()
        while waiting:
            place, before, word = waiting.popleft()
            for target, ways in self._follow[place].items():
                mask = 0
                for way in ways:
                    mask |= way.mask
                for kind in bits_of(places[target].kinds) if target != hub else ():
                    rows = [before] if before >= 0 else range(kinds.count)
                    if not any(mask >> (row * kinds.count + kind) & 1 for row in rows):
                        continue
                    if target == goal:
                        return word + kinds.letter(kind)
                    if (target, kind) not in seen:
                        seen.add((target, kind))
                        waiting.append((target, kind, word + kinds.letter(kind)))
        return None


def describe_growth(act: Callable[[Any], object], text: Callable[[int], Any]) -> str:
    """How much longer many characters take than few, where that is more than linear; empty: it is not."""
    for attempt in (1, 3):  # a slow look once more, for what else the machine did meanwhile
        few, many = (min(_measure_seconds(act, text(size)) for _ in range(attempt)) for size in (FEW, MANY))
        if many <= GROWTH_MAX * few + NOISE_SECONDS:
            return ""
    return f"{FEW} characters take {few:.4f} s, {MANY} take {many:.4f} s"


def _measure_seconds(act: Callable[[Any], object], text: Any) -> float:
    """Of this thread on the processor."""
    began = time.thread_time()
    act(text)
    return time.thread_time() - began
