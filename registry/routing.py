"""Ranks the agents of a tenant for a message by the words of their skills, through an index that follows the registry."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from heapq import heapify, heappop
from math import sqrt

from registry.cards.card import KNOWN_STATUSES, Family, Registration, RegistrationStatus
from registry.search import STEM_LETTERS, claims_of, routing_words
from registry.store import Registry

_Claim = tuple[str, int]  # the name of an agent, and the index of the claim


class Routes:
    """Ranks agents without looking at those that share no word with the message."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._indexes: dict[str, _Index] = {}

    def rank(self, tenant: str, text: str, skill: str = "") -> Iterator[Registration]:
        """Yields the agents that fit, the best first; agents that are down come after all active ones.

        With `skill` every agent that has a skill of that id fits. Descriptions and examples count for nothing, because there
        an agent could ask to be preferred. A skill that claims many words gains little by each of them. The operator's rank
        decides between equal scores, then the age of the registration.
        """
        index = self._current_index(tenant)
        scores = dict.fromkeys(index.skills.get(skill, ()), 1.0) if skill else index.scores(text)
        fitting = [(entry, score) for name, score in scores.items() if (entry := index.entries[name]).status in KNOWN_STATUSES]
        queue = [
            (entry.status is RegistrationStatus.DOWN, -score, -entry.rank, entry.created, entry.name, entry) for entry, score in fitting
        ]
        heapify(queue)  # names differ, so entries are never compared; the registry may change while the caller iterates
        while queue:
            yield heappop(queue)[-1]

    def _current_index(self, tenant: str) -> "_Index":
        index = self._indexes.get(tenant) or _Index()
        if index.generation != self._registry.generation:
            index.generation = self._registry.generation
            index.update({entry.name: entry for entry in self._registry.list(tenant, Family.AGENT)})
            self._indexes[tenant] = index
            if not index.entries:  # a caller can name any tenant
                del self._indexes[tenant]
        return index


class _Index:
    """The words that the skills of a tenant's agents claim."""

    def __init__(self) -> None:
        self.generation = -1  # of the registry
        self.entries: dict[str, Registration] = {}
        self.skills: defaultdict[str, set[str]] = defaultdict(set)  # skill id -> names of agents
        self._sizes: dict[_Claim, int] = {}
        self._postings: defaultdict[str, set[_Claim]] = defaultdict(set)  # word -> claims
        self._stems: defaultdict[str, set[str]] = defaultdict(set)  # first letters -> words

    def update(self, entries: dict[str, Registration]) -> None:
        """Indexes new and changed agents, and drops the others."""
        for name, entry in self.entries.items():
            if entries.get(name) is not entry:
                self._remove(entry)
        for name, entry in entries.items():
            if self.entries.get(name) is not entry:
                self._add(entry)
        self.entries = entries

    def scores(self, text: str) -> dict[str, float]:
        """The score of each agent with a claim that contains one of the words."""
        hits: Counter[_Claim] = Counter()
        for word in routing_words(text):
            hits.update({claim for alike in self._similar_words(word) for claim in self._postings[alike]})
        scores: dict[str, float] = {}
        for claim, count in hits.items():
            score = round(count / sqrt(self._sizes[claim]), 3)
            scores[claim[0]] = max(score, scores.get(claim[0], 0.0))
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
