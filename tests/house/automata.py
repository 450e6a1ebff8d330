"""A regular expression as an automaton: what consumes a character, and which ways lead from there to the next."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]  # the parser of `re` itself, which has no public name
from typing import Any

BOUNDED_MAX = 128  # a repetition of at most so many costs a constant factor, one of more counts as unbounded
ALPHABET = [*map(chr, range(0x180)), *"\u017f\u0130\u212a\u0661\u07ff\u200b\u2028\u3000\u4e2d\ufeff\U0001f600\U000e0041"]


class Unsupported(Exception):
    """The pattern has a part that the analysis does not know."""


@dataclass(frozen=True)
class Step:
    """A way to another state without a character. `certain`: it is open where the other ways on from here are not."""

    state: int
    mask: int
    certain: bool


@dataclass(frozen=True)
class Way:
    """A way to the next character. `passes`: the groups, 0 being the whole pattern, that have surely matched for whoever comes along it."""

    mask: int
    passes: frozenset[int]


@dataclass
class State:
    """Before or behind a part of the pattern. `free`: ways on without a character, with what they ask of the characters around."""

    free: list["Step"] = field(default_factory=list)
    place: int | None = None  # what consumes a character here


@dataclass(frozen=True)
class Place:
    """What consumes one character: the kinds of characters that it takes, and the state behind it."""

    kinds: int
    behind: int
    atomic: tuple[int, ...]
    searches: bool = False  # at the beginning of a search, which may begin anew at every character


class Kinds:
    """Classes of characters that a pattern does not tell apart, as numbers; the last one is the edge of the text.

    A set of kinds is a number with a bit for each. A mask has a bit for each pair of neighbours, `before * count + following`.
    """

    def __init__(self, pattern: str | bytes, parsed: Any, flags: int) -> None:
        self._letters: list[Any] = [bytes([n]) for n in range(256)] if isinstance(pattern, bytes) else list(ALPHABET)
        self._sets: dict[str, frozenset[int]] = {}
        for item, local in _singles(parsed, flags):
            self._learn(_key(item, local), _compiler.compile(_sub(parsed, [item]), local & ~(re.DEBUG | re.VERBOSE)))
        for text in (r"\w", r"\n"):
            self._learn(text, re.compile(text.encode() if isinstance(pattern, bytes) else text, flags & (re.ASCII | re.UNICODE)))
        signatures: dict[tuple[bool, ...], int] = {}
        named = list(self._sets.values())
        self._kind_of = [signatures.setdefault(tuple(n in each for each in named), len(signatures)) for n in range(len(self._letters))]
        self.count = len(signatures) + 1
        self.edge = self.count - 1
        self.every = (1 << self.edge) - 1
        self.everything = (1 << self.count * self.count) - 1

    def _learn(self, key: str, single: Any) -> None:
        self._sets[key] = frozenset(n for n, letter in enumerate(self._letters) if single.fullmatch(letter))

    def of(self, key: str) -> int:
        """Those of a part that takes one character."""
        bits = 0
        for n in self._sets[key]:
            bits |= 1 << self._kind_of[n]
        return bits

    def letter(self, kind: int) -> Any:
        """One character of a kind."""
        return self._letters[self._kind_of.index(kind)]

    def mask(self, allowed: Callable[[int, int], bool]) -> int:
        bits = 0
        for before in range(self.count):
            for following in range(self.count):
                if allowed(before, following):
                    bits |= 1 << (before * self.count + following)
        return bits


class Automaton:
    """The pattern as places that consume characters, and the states between them."""

    def __init__(self, pattern: str | bytes, flags: int, method: str) -> None:
        parsed = _parser.parse(pattern, flags)
        flags |= parsed.state.flags
        self.kinds = Kinds(pattern, parsed, flags)
        self.states: list[State] = []
        self.places: list[Place] = []
        self.exits: dict[int, int] = {}  # of groups that are never tried again, where they end
        self.empty = False  # whether it repeats what may be empty
        self.whole = method == "fullmatch"
        start, self.accept = self._sequence(parsed, flags, ())
        if method in SEARCHING:
            hub, back = self._state(), self._state()
            self.states[hub].place = len(self.places)
            self.places.append(Place(self.kinds.every, back, (), searches=True))
            self._join(back, hub)
            self._join(back, start)

    def _state(self) -> int:
        self.states.append(State())
        return len(self.states) - 1

    def _join(self, start: int, end: int, mask: int | None = None, certain: bool = False) -> None:
        mask = self.kinds.everything if mask is None else mask
        self.states[start].free.append(Step(end, mask, certain or mask == self.kinds.everything))

    def _sequence(self, items: Any, flags: int, atomic: tuple[int, ...]) -> tuple[int, int]:
        start = end = self._state()
        for op, argument in items:
            first, last = self._part(op, argument, flags, atomic)
            self._join(end, first)
            end = last
        return start, end

    def _part(self, op: Any, argument: Any, flags: int, atomic: tuple[int, ...]) -> tuple[int, int]:
        if op in SINGLE:
            return self._single(op, argument, flags, atomic)
        if op is _constants.BRANCH:
            return self._branches(argument[1], flags, atomic)
        if op is _constants.SUBPATTERN:
            _, added, removed, inner = argument
            return self._sequence(inner, (flags | added) & ~removed, atomic)
        if op in REPEATS:
            return self._repeat(op, argument, flags, atomic)
        if op is _constants.ATOMIC_GROUP:
            return self._atomic(argument, flags, atomic)
        if op in (_constants.ASSERT, _constants.ASSERT_NOT):
            return self._assertion(op, argument, flags, atomic)
        if op is _constants.AT:
            return self._position(argument, flags)
        if op is _constants.FAILURE:
            return self._state(), self._state()
        raise Unsupported(str(op))

    def _single(self, op: Any, argument: Any, flags: int, atomic: tuple[int, ...]) -> tuple[int, int]:
        start, end = self._state(), self._state()
        self.states[start].place = len(self.places)
        self.places.append(Place(self.kinds.of(_key((op, argument), flags)), end, atomic))
        return start, end

    def _branches(self, branches: Any, flags: int, atomic: tuple[int, ...]) -> tuple[int, int]:
        start, end = self._state(), self._state()
        for branch in branches:
            first, last = self._sequence(branch, flags, atomic)
            self._join(start, first)
            self._join(last, end)
        return start, end

    def _repeat(self, op: Any, argument: Any, flags: int, atomic: tuple[int, ...]) -> tuple[int, int]:
        """At most two copies stand for a bounded repetition: whether a way is ambiguous shows in two."""
        least, most, inner = argument
        if most > 1 and any(True for _ in _singles(inner, flags)) and inner.getwidth()[0] == 0:
            self.empty = True
        possessive = op is _constants.POSSESSIVE_REPEAT
        if possessive:
            atomic = (*atomic, len(self.exits) + 1)
        start, end = self._state(), self._state()
        if possessive:
            self.exits[atomic[-1]] = end
        here = start
        if least:
            first, here = self._sequence(inner, flags, atomic)
            self._join(start, first)
        if most > BOUNDED_MAX:
            if not least:
                first, last = self._sequence(inner, flags, atomic)
                self._join(here, first)
                self._join(last, here)
            else:
                self._join(here, first)
        elif most > least:
            first, last = self._sequence(inner, flags, atomic)
            self._join(here, first)
            self._join(last, end)
        given_up = None
        if possessive and most > BOUNDED_MAX and len(inner) == 1 and inner[0][0] in SINGLE:
            taken = self.kinds.of(_key(inner[0], flags))
            given_up = self.kinds.mask(lambda _, following: not taken >> following & 1)  # it takes all that it can
        self._join(here, end, given_up, certain=True)
        return start, end

    def _atomic(self, inner: Any, flags: int, atomic: tuple[int, ...]) -> tuple[int, int]:
        end = self._state()
        group = len(self.exits) + 1
        self.exits[group] = end
        start, last = self._sequence(inner, flags, (*atomic, group))
        self._join(last, end)
        return start, end

    def _assertion(self, op: Any, argument: Any, flags: int, atomic: tuple[int, ...]) -> tuple[int, int]:
        """One that looks at one character is a mask. A longer one is a way that ends nowhere, beside one that may go on."""
        direction, inner = argument
        start, end = self._state(), self._state()
        wanted = op is _constants.ASSERT
        bits = self._one_character(inner, flags)
        if bits is not None:
            if direction < 0:
                self._join(start, end, self.kinds.mask(lambda before, _: bool(bits >> before & 1) is wanted))
            else:
                self._join(start, end, self.kinds.mask(lambda _, following: bool(bits >> following & 1) is wanted))
            return start, end
        items = list(inner)
        bits = self._one_character(items[:1] if direction > 0 else items[-1:], flags) if wanted else None
        if direction > 0:
            first, _ = self._sequence(inner, flags, atomic)
            self._join(start, first)
        mask = self.kinds.everything ^ 1  # any character, but never sure to pass
        if bits is not None:
            mask = self.kinds.mask(lambda before, following: bool(bits >> (following if direction > 0 else before) & 1))
        self._join(start, end, mask)
        return start, end

    def _one_character(self, inner: Any, flags: int) -> int | None:
        items = list(inner)
        if len(items) == 1 and items[0][0] in SINGLE:
            return self.kinds.of(_key(items[0], flags))
        if len(items) == 1 and items[0][0] is _constants.SUBPATTERN:
            return self._one_character(items[0][1][3], (flags | items[0][1][1]) & ~items[0][1][2])
        if len(items) == 1 and items[0][0] is _constants.BRANCH:
            found = [self._one_character(branch, flags) for branch in items[0][1][1]]
            bits = 0
            for each in found:
                if each is None:
                    return None
                bits |= each
            return bits
        if len(items) == 1 and items[0][0] is _constants.AT and items[0][1] in (_constants.AT_BEGINNING, _constants.AT_END):
            return (1 << self.kinds.edge) | (self.kinds.of(r"\n") if flags & re.MULTILINE else 0)
        return None

    def _position(self, at: Any, flags: int) -> tuple[int, int]:
        start, end = self._state(), self._state()
        word, line = self.kinds.of(r"\w"), self.kinds.of(r"\n") if flags & re.MULTILINE else 0
        if at is _constants.AT_BOUNDARY:
            mask = self.kinds.mask(lambda before, following: (word >> before & 1) != (word >> following & 1))
        elif at is _constants.AT_NON_BOUNDARY:
            mask = self.kinds.mask(lambda before, following: (word >> before & 1) == (word >> following & 1))
        elif at in (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING):
            mask = self.kinds.mask(lambda before, _: before == self.kinds.edge or bool(line >> before & 1))
        else:
            mask = self.kinds.mask(
                lambda _, following: following == self.kinds.edge or bool((line | self.kinds.of(r"\n")) >> following & 1)
            )
        self._join(start, end, mask)
        return start, end


class Ways:
    """The ways from each place of an automaton to those that consume the next character."""

    def __init__(self, automaton: Automaton) -> None:
        self._states = automaton.states
        self._places = automaton.places
        self._every = automaton.kinds.every
        self._everything = automaton.kinds.everything
        goals = {0: (automaton.accept, automaton.whole), **{group: (end, False) for group, end in automaton.exits.items()}}
        self._passes = [
            frozenset(group for group, (goal, ended) in goals.items() if self._sure(state, goal, ended))
            for state in range(len(self._states))
        ]
        self.follow = [self._from(place.behind) for place in self._places]

    def _from(self, state: int) -> dict[int, list[Way]]:
        """Each place that consumes the next character, with every way there."""
        found: dict[int, list[Way]] = defaultdict(list)

        def walk(here: int, way: Way, passed: frozenset[int]) -> None:
            way = Way(way.mask, way.passes | self._passes[here])
            place = self._states[here].place
            if place is not None:
                found[place].append(way)
            for step in self._states[here].free:
                if step.state not in passed and way.mask & step.mask:
                    walk(step.state, Way(way.mask & step.mask, way.passes), passed | {step.state})

        walk(state, Way(self._everything, frozenset()), frozenset({state}))
        return dict(found)

    def _sure(self, state: int, goal: int, ended: bool, passed: frozenset[int] = frozenset()) -> bool:
        """Whether a match is certain from here, whatever follows. `ended`: `goal` holds only at the end of the text."""
        if state == goal:
            return not ended
        if state in passed:
            return False
        if ended and self._takes_all(state, goal):
            return True
        return any(step.certain and self._sure(step.state, goal, ended, passed | {state}) for step in self._states[state].free)

    def _takes_all(self, state: int, goal: int) -> bool:
        """Whether a loop over every character begins here, behind which is the goal."""
        place = self._states[state].place
        if place is None or self._places[place].kinds != self._every:
            return False
        behind = self._places[place].behind
        return self._reaches(behind, state) and self._reaches(behind, goal)

    def _reaches(self, state: int, goal: int, passed: frozenset[int] = frozenset()) -> bool:
        if state == goal:
            return True
        steps = self._states[state].free
        return any(step.certain and step.state not in passed and self._reaches(step.state, goal, passed | {state}) for step in steps)


SINGLE = (_constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY, _constants.IN)
REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)
SEARCHING = frozenset({"search", "sub", "subn", "split", "findall", "finditer", "scanner"})


def _sub(parsed: Any, items: list[Any]) -> Any:
    state = _parser.State()
    state.str = parsed.state.str
    return _parser.SubPattern(state, items)


def _key(item: Any, flags: int) -> str:
    return f"{item!r} {flags & (re.IGNORECASE | re.DOTALL | re.ASCII | re.UNICODE | re.LOCALE)}"


def _singles(items: Iterable[Any], flags: int) -> Iterator[tuple[Any, int]]:
    """Every part that takes one character, with the flags that hold there."""
    for op, argument in items:
        if op in SINGLE:
            yield (op, argument), flags
        elif op is _constants.BRANCH:
            for branch in argument[1]:
                yield from _singles(branch, flags)
        elif op is _constants.SUBPATTERN:
            yield from _singles(argument[3], (flags | argument[1]) & ~argument[2])
        elif op in REPEATS:
            yield from _singles(argument[2], flags)
        elif op is _constants.ATOMIC_GROUP:
            yield from _singles(argument, flags)
        elif op in (_constants.ASSERT, _constants.ASSERT_NOT):
            yield from _singles(argument[1], flags)


def bits_of(mask: int) -> Iterator[int]:
    return (n for n in range(mask.bit_length()) if mask >> n & 1)
