"""Which regular expressions can take more than linear time: an analysis of what `re` parsed, not a measurement.

`re` tries one way after the other. It takes more than linear time where a text of n characters leads along more than n ways to the same
place: where a loop can be run through in two ways (exponential), or where a text can be split between two loops in more than one place
(polynomial; Weber and Seidl, "On the degree of ambiguity of finite automata"). A search counts as a loop before the pattern, since it
begins anew at each character. Ways that always end in a match do no harm: the first one is taken.
"""

import re
from collections.abc import Callable, Iterable
from itertools import product

from tests.house.automata import Automaton, Way, Ways, bits_of

Edges = list[dict[int, int]]  # for each place those that can consume the next character, with a mask
Open = list[list[tuple[int, int]]]  # for each place those that an edge leads to, with the kinds of characters that may lead there


class Growth:
    """What in an automaton grows faster than the text."""

    def __init__(self, automaton: Automaton) -> None:
        self.it = automaton
        self.count = automaton.kinds.count
        self.size = len(automaton.places)
        self.follow = Ways(automaton).follow
        self.every = self._edges(lambda way: True)
        self.reach = [self._reachable(place, self.every) for place in range(self.size)]

    def _edges(self, counts: Callable[[Way], bool]) -> Edges:
        """Place to place, with the mask of all ways together that count."""
        found: Edges = []
        for follow in self.follow:
            merged: dict[int, int] = {}
            for place, ways in follow.items():
                for way in ways:
                    if counts(way):
                        merged[place] = merged.get(place, 0) | way.mask
            found.append(merged)
        return found

    def _reachable(self, place: int, edges: Edges) -> frozenset[int]:
        found: set[int] = set()
        waiting = [place]
        while waiting:
            for following in edges[waiting.pop()]:
                if following not in found:
                    found.add(following)
                    waiting.append(following)
        return frozenset(found)

    def _loop(self, place: int) -> frozenset[int]:
        """The places that are in a loop with this one, itself included; none where it is in no loop."""
        return frozenset(each for each in self.reach[place] if place in self.reach[each])

    def _common(self, places: Iterable[int]) -> frozenset[int]:
        """The groups that are never tried again and that all of the places are in."""
        return frozenset.intersection(*(frozenset(self.it.places[place].atomic) for place in places))

    def _harmful(self, loop: frozenset[int], groups: frozenset[int]) -> Edges:
        """The loop without what is surely a match already, of the pattern or of one of the groups: nobody comes back from there."""
        edges = self._edges(lambda way: not way.passes & (groups | {0}))
        return [{to: mask for to, mask in edges[place].items() if to in loop} if place in loop else {} for place in range(self.size)]

    def exponential(self) -> str | None:
        """A loop that two ways lead through."""
        if self.it.empty:
            return "it repeats what may be empty"
        for place in range(self.size):
            loop = self._loop(place)
            if not loop:
                continue
            groups = self._common(loop)
            edges = self._harmful(loop, groups)
            if place not in self._reachable(place, edges):
                continue
            for following in edges[place]:
                ways = [way.mask for way in self.follow[place][following] if not way.passes & (groups | {0})]
                if self._twice(ways, self.it.places[following].kinds):
                    return f"two ways lead from {self._name(place)} to {self._name(following)} in a loop"
            if self._part_and_meet(place, edges):
                return f"two ways lead through the loop at {self._name(place)}"
        return None

    def _twice(self, masks: list[int], kinds: int) -> bool:
        """Whether two ways are open to the same character."""
        seen, real = 0, 0
        for before in range(self.count - 1):
            real |= kinds << (before * self.count)
        for mask in masks:
            if seen & mask & real:
                return True
            seen |= mask
        return False

    def _open(self, edges: Edges, behind: int | None = None) -> Open:
        """For each place those that an edge leads to, with the kinds of characters that may lead there.

        `behind`: the kind of the character before; None: any, which is quicker and never wrong where it finds no way.
        """
        row = (1 << self.count) - 1
        found = []
        for targets in edges:
            masks = {to: self._next(mask) if behind is None else mask >> (behind * self.count) & row for to, mask in targets.items()}
            kinds = ((to, mask & self.it.places[to].kinds) for to, mask in masks.items())
            found.append([(to, mask) for to, mask in kinds if mask])
        return found

    def _next(self, mask: int) -> int:
        """The kinds of characters that may follow, whatever stands before."""
        row, found = (1 << self.count) - 1, 0
        while mask:
            found |= mask & row
            mask >>= self.count
        return found

    def _part_and_meet(self, place: int, edges: Edges) -> bool:
        """Whether a text leads from the place back to it along two ways."""
        return self._returns((place, place), (place, place), (edges, edges), parted=True)

    def _returns(self, start: tuple[int, ...], goal: tuple[int, ...], edges: tuple[Edges, ...], parted: bool = False) -> bool:
        """Whether one text leads from each place of `start` to that of `goal`, each along edges of its own, and can be repeated.

        `parted`: along ways that are not the same.
        """
        if not self._leads(start, goal, [[self._open(each)] for each in edges], 0, parted):
            return False
        exact = [[self._open(each, behind) for behind in range(self.count)] for each in edges]
        kinds = self.it.places[goal[0]].kinds & self.it.places[goal[-1]].kinds
        return any(self._leads(start, goal, exact, kind, parted) for kind in bits_of(kinds))

    def _leads(self, start: tuple[int, ...], goal: tuple[int, ...], ways: list[list[Open]], kind: int, parted: bool) -> bool:
        """`ways`: for each place of `start` its edges, by the kind of the character before where that counts. `kind`: of the first one."""
        first = (start, kind, not parted)
        seen, waiting = {first}, [first]
        while waiting:
            places, before, differ = waiting.pop()
            for steps in product(*(way[before][place] for way, place in zip(ways, places, strict=True))):
                open_to = steps[0][1]
                for _, mask in steps[1:]:
                    open_to &= mask
                if not open_to:
                    continue
                targets = tuple(to for to, _ in steps)
                for following in bits_of(open_to) if len(ways[0]) > 1 else (0,):
                    state = (targets, following, differ or targets[0] != targets[1])
                    if state == (goal, kind, True):
                        return True
                    if state not in seen:
                        seen.add(state)
                        waiting.append(state)
        return False

    def polynomial(self) -> str | None:
        """Two loops that can share a text in more than one way."""
        loops = [self._loop(place) for place in range(self.size)]
        for first in range(self.size):
            left = self._common(loops[first]) if loops[first] else frozenset()
            for second in self.reach[first] if loops[first] else ():
                if second == first or not loops[second] or left - set(self.it.places[second].atomic):
                    continue  # the first loop is left for good
                edges = self._harmful(loops[second], left & self._common(loops[second]))
                if second in self._reachable(second, edges) and self._shared(first, second, edges):
                    return f"{self._name(first)} and {self._name(second)} can share a text"
        return None

    def _shared(self, first: int, second: int, edges: Edges) -> bool:
        """Whether a text leads from `first` to itself, from `first` to `second`, and from `second` to itself along `edges`."""
        loop = self._loop(first)
        between = [
            {to: mask for to, mask in targets.items() if to == second or second in self.reach[to]}
            if place == first or place in self.reach[first]
            else {}
            for place, targets in enumerate(self.every)
        ]
        inner = [{to: mask for to, mask in self.every[place].items() if to in loop} if place in loop else {} for place in range(self.size)]
        return self._returns((first, first, second), (first, second, second), (inner, between, edges))

    def _name(self, place: int) -> str:
        found = self.it.places[place]
        if found.searches:
            return "the search itself"
        letters = [self.it.kinds.letter(kind) for kind in bits_of(found.kinds)]
        return f"what takes {letters[0]!r}" + (f" … {letters[-1]!r}" if len(letters) > 1 else "")


def growth(pattern: str | bytes, flags: int = 0, method: str = "search") -> str | None:
    """Why a pattern can take more than linear time by this method of `re`; None where it can't. Raises Unsupported."""
    found = Growth(Automaton(pattern, flags & ~re.DEBUG, method))
    return found.exponential() or found.polynomial()
