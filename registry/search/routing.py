"""Ranks the agents of a tenant for a message by the words of their skills, through an index that follows the registry."""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from heapq import heappop, heappush
from math import sqrt

from registry.cards.card import KNOWN_STATUSES, Family, Registration, RegistrationStatus
from registry.search.agents import STEM_LETTERS, claims_of, routing_words
from registry.store import Registry

_Claim = tuple[str, int]  # the name of an agent, and the index of the claim
INDEXED_AT_ONCE = 20  # agents that are indexed in one step
SCORED_AT_ONCE = 100  # claims and agents that are looked at in one step


class Routes:
    """Ranks agents without looking at those that share no word with the message."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._indexes: dict[str, _Index] = {}

    def rank(self, tenant: str, text: str, skill: str = "") -> Iterator[Registration | None]:
        """Yields the agents that fit, the best first, those that are down after all active ones; and None after each part of the work.

        With `skill` every agent that has a skill of that id fits. Descriptions and examples count for nothing, because there
        an agent could ask to be preferred. A skill that claims many words gains little by each of them. The operator's rank
        decides between equal scores, then the age of the registration.
        """
        while (index := self._update_index(tenant)) is None:
            yield None
        scores = dict.fromkeys(index.skills.get(skill, ()), 1.0) if skill else (yield from index.score(text))
        queue: list[tuple[bool, float, int, int, str, Registration]] = []
        for number, (name, score) in enumerate(scores.items(), 1):
            entry = index.entries.get(name)
            if entry is not None and entry.status in KNOWN_STATUSES:
                # names differ, so entries are never compared
                heappush(queue, (entry.status is RegistrationStatus.DOWN, -score, -entry.rank, entry.created, entry.name, entry))
            if number % SCORED_AT_ONCE == 0:
                yield None
        while queue:
            yield heappop(queue)[-1]

    def _update_index(self, tenant: str) -> "_Index | None":
        """Returns the index when it has all agents. Else indexes some, for all requests that wait for it, and returns None."""
        index = self._indexes.get(tenant) or _Index()
        if index.generation != self._registry.generation:
            index.generation = self._registry.generation
            index.begin_update({entry.name: entry for entry in self._registry.list(tenant, Family.AGENT)})
            self._indexes[tenant] = index
        elif not index.is_complete:
            index.continue_update()
        if not index.is_complete:
            return None
        if not index.entries:  # a caller can name any tenant
            self._indexes.pop(tenant, None)
        return index


class _Index:
    """The words that the skills of a tenant's agents claim."""

    def __init__(self) -> None:
        self.generation = -1  # of the registry
        self.entries: dict[str, Registration] = {}  # those that are indexed
        self.skills: defaultdict[str, set[str]] = defaultdict(set)  # skill id -> names of agents
        self._current: dict[str, Registration] = {}  # those of the registry
        self._outdated: list[str] = []  # names that are not indexed as they are in the registry
        self._sizes: dict[_Claim, int] = {}
        self._postings: defaultdict[str, set[_Claim]] = defaultdict(set)  # word -> claims
        self._stems: defaultdict[str, set[str]] = defaultdict(set)  # first letters -> words

    @property
    def is_complete(self) -> bool:
        return not self._outdated

    def begin_update(self, entries: dict[str, Registration]) -> None:
        """Finds the agents that are new, changed or gone."""
        self._current = entries
        self._outdated = [name for name in self.entries if name not in entries]
        self._outdated += [name for name, entry in entries.items() if self.entries.get(name) is not entry]

    def continue_update(self) -> None:
        """Indexes some of these agents."""
        for name in self._outdated[-INDEXED_AT_ONCE:]:
            if name in self.entries:
                self._remove(self.entries.pop(name))
            if name in self._current:
                self._add(self._current[name])
                self.entries[name] = self._current[name]
        del self._outdated[-INDEXED_AT_ONCE:]

    def score(self, text: str) -> Generator[None, None, dict[str, float]]:
        """Returns the score of each agent with a claim that contains one of the words. Yields after a part of the work."""
        hits: Counter[_Claim] = Counter()
        for word in routing_words(text):
            hits.update(set().union(*(self._postings[alike] for alike in self._similar_words(word))))
            yield None
        scores: dict[str, float] = {}
        for number, (claim, count) in enumerate(hits.items(), 1):
            score = round(count / sqrt(self._sizes.get(claim, 1)), 3)
            scores[claim[0]] = max(score, scores.get(claim[0], 0.0))
            if number % SCORED_AT_ONCE == 0:
                yield None
        return scores

    def _similar_words(self, word: str) -> set[str]:
        """The indexed words that equal the word, or share a prefix: one begins with the other (at least STEM_LETTERS letters)."""
        found = {word} if word in self._postings else set()
        if len(word) >= STEM_LETTERS:
            found |= {one for one in self._stems.get(word[:STEM_LETTERS], ()) if word.startswith(one) or one.startswith(word)}
        return found

    def _add(self, entry: Registration) -> None:
        for skill in entry.card.skills if entry.card else ():
            self.skills[skill.id].add(entry.name)
        for number, words in enumerate(claims_of(entry)):
            self._sizes[entry.name, number] = len(words)
            for word in words:
                self._postings[word].add((entry.name, number))
                if len(word) >= STEM_LETTERS:
                    self._stems[word[:STEM_LETTERS]].add(word)

    def _remove(self, entry: Registration) -> None:
        for skill in entry.card.skills if entry.card else ():
            self.skills[skill.id].discard(entry.name)
            if not self.skills[skill.id]:
                del self.skills[skill.id]
        for number, words in enumerate(claims_of(entry)):
            self._sizes.pop((entry.name, number), None)
            for word in words:
                self._drop(word, (entry.name, number))

    def _drop(self, word: str, claim: _Claim) -> None:
        self._postings[word].discard(claim)
        if self._postings[word]:
            return
        del self._postings[word]
        stem = self._stems.get(word[:STEM_LETTERS], set())
        stem.discard(word)
        if not stem:
            self._stems.pop(word[:STEM_LETTERS], None)
