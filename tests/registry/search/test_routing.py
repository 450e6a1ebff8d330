"""The routing index gives the same order as a comparison with every agent, and follows each change of the registry."""

from collections.abc import Sequence
from dataclasses import fields
from math import sqrt
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.cards.card import Family, Registration, RegistrationStatus
from registry.search.agents import claims_of, routing_words
from registry.search.routing import INDEXED_AT_ONCE, SCORED_AT_ONCE, Routes
from tests.registry.search.test_agents import offering, skill

WORDS = ("quote", "quotes", "quotation", "book", "booking", "flight", "tax", "taxes", "refund", "order")


class Entries:
    """A registry whose entries a test sets."""

    def __init__(self) -> None:
        self.generation = 0
        self.entries: list[Registration] = []

    def list(self, tenant: str, family: Family | None = None) -> Sequence[Registration]:
        return self.entries if tenant == "default" else []

    def replace(self, entries: Sequence[Registration]) -> None:
        self.entries, self.generation = list(entries), self.generation + 1


def _score(entry: Registration, text: str) -> float:
    def is_alike(word: str, other: str) -> bool:
        return word == other or (min(len(word), len(other)) >= 4 and (word.startswith(other) or other.startswith(word)))

    return max(
        round(sum(any(is_alike(word, other) for other in claim) for word in routing_words(text)) / sqrt(len(claim)), 3)
        for claim in claims_of(entry)
    )


def _compared_with_all(entries: Sequence[Registration], text: str) -> list[str]:
    usable = [
        entry for entry in entries if entry.status in (RegistrationStatus.ACTIVE, RegistrationStatus.DOWN) and _score(entry, text) > 0
    ]
    return [
        entry.name
        for entry in sorted(
            usable, key=lambda one: (one.status is RegistrationStatus.DOWN, -_score(one, text), -one.rank, one.created, one.name)
        )
    ]


def _entry(random: Random, name: str) -> Registration:
    skills = [skill(" ".join([*random.sample(WORDS, random.randint(1, 2)), f"x{number}"])) for number in range(random.randint(1, 3))]
    status = random.choice([RegistrationStatus.ACTIVE, RegistrationStatus.ACTIVE, RegistrationStatus.DOWN, RegistrationStatus.QUARANTINED])
    candidate = offering(name, "None.", *skills, rank=random.randint(0, 1), status=status)
    given = {field.name: getattr(candidate, field.name) for field in fields(candidate) if field.name != "jwks"}
    return Registration(**given, card_hash="", client_id="", created=random.randint(0, 1), updated=0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), text=st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join))
def test_the_index_ranks_as_a_comparison_with_every_agent(seed: int, text: str) -> None:
    random, registry = Random(seed), Entries()
    routes = Routes(registry)  # type: ignore[arg-type]  # only its list and its generation are used
    registry.replace([_entry(random, f"a{number}") for number in range(8)])
    for change in range(3):
        assert [entry.name for entry in routes.rank("default", text) if entry is not None] == _compared_with_all(registry.entries, text)
        kept = [entry for entry in registry.entries if random.random() < 0.6]
        registry.replace([*kept, *(_entry(random, f"b{change}x{number}") for number in range(2))])


def test_a_ranking_goes_on_when_an_agent_leaves_the_registry_meanwhile() -> None:
    registry = Entries()
    routes = Routes(registry)  # type: ignore[arg-type]  # only its list and its generation are used
    registry.replace([_entry(Random(1), f"a{number}") for number in range(8)])
    ranked = _compared_with_all(registry.entries, " ".join(WORDS))
    assert len(ranked) > 2
    ranking = routes.rank("default", " ".join(WORDS))
    first = next(entry.name for entry in ranking if entry is not None)
    registry.replace([])
    assert list(filter(None, routes.rank("default", " ".join(WORDS)))) == []
    assert [first, *(entry.name for entry in ranking if entry is not None)] == ranked


def _registry_of(count: int) -> Entries:
    registry = Entries()
    registry.replace([_entry(Random(number), f"a{number}") for number in range(count)])
    return registry


def test_a_long_first_indexing_is_done_in_steps_that_waiting_requests_share() -> None:
    count = 10 * INDEXED_AT_ONCE
    routes = Routes(_registry_of(count))  # type: ignore[arg-type]  # only its list and its generation are used
    first, second = (routes.rank("default", " ".join(WORDS)) for _ in range(2))
    steps = 0
    while next(first) is None and next(second) is None:
        steps += 1
    assert count / INDEXED_AT_ONCE / 2 <= steps <= count / INDEXED_AT_ONCE / 2 + 2 * len(WORDS)


def test_an_agent_that_changes_is_the_only_one_that_is_indexed_again() -> None:
    registry = _registry_of(10 * INDEXED_AT_ONCE)
    routes = Routes(registry)  # type: ignore[arg-type]  # only its list and its generation are used
    list(routes.rank("default", "no such words"))
    registry.replace([_entry(Random(-1), "a0"), *registry.entries[1:]])
    assert len(list(routes.rank("default", "quote", skill="none"))) == 1  # one step, and no agent has that skill


def test_agents_that_share_a_word_are_scored_in_steps() -> None:
    registry = Entries()
    registry.replace([_entry(Random(1), f"a{number}") for number in range(5 * SCORED_AT_ONCE)])
    routes = Routes(registry)  # type: ignore[arg-type]  # only its list and its generation are used
    assert list(routes.rank("default", "no such words"))[-1:] in ([], [None])
    ranking = list(routes.rank("default", " ".join(WORDS)))
    first = next(number for number, entry in enumerate(ranking) if entry is not None)
    assert first >= 2 * 5
