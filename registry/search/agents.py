"""Searches agents by words, skill, tag and mode."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from registry import search_terms
from registry.cards.card import AgentCard, Family, Registration, Skill
from registry.search_terms import query_terms, terms_of, words_of
from registry.store import Registry, RegistryBatch, RegistryDatabase, UnknownName

STEM_LETTERS = 4  # common first letters for two words to count as alike
EXACT_WEIGHT, PREFIX_WEIGHT = 1.0, 0.7
NAME_WEIGHT, SKILL_WEIGHT, DESCRIPTION_WEIGHT = (
    1.0,
    0.9,
    0.4,
)  # the weight of a word in a name; in a skill's id, name or tags; in a description
_STOP_WORDS = frozenset(
    words_of(
        "and are but can could for from get give has have her his how its may need not our out please she should some that the "
        "their them then there they this want was what when where which who why will with would you your"
    )
)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search; empty members match anything. `skill` is an id or a name, `mode` a media type that is accepted or produced."""

    text: str = ""
    skill: str = ""
    tag: str = ""
    mode: str = ""

    def matches(self, entry: Registration) -> bool:
        """Whether an entry matches everything except the text."""
        card = entry.card
        if card is None:
            return not (self.skill or self.tag or self.mode)
        skill, tag, mode = self.skill.casefold(), self.tag.casefold(), self.mode.casefold()
        return (
            (not skill or any(skill in (one.id.casefold(), one.name.casefold()) for one in card.skills))
            and (not tag or any(tag == one.casefold() for each in card.skills for one in each.tags))
            and (not mode or mode in modes_of(card))
        )


def modes_of(card: AgentCard) -> set[str]:
    """The media types of an agent and of its skills, in lower case."""
    found = [*card.input_modes, *card.output_modes]
    for skill in card.document.get("skills") or ():
        found += [one for key in ("inputModes", "outputModes") for one in skill.get(key) or () if isinstance(one, str)]
    return {one.casefold() for one in found}


Scored = tuple[int, Registration]  # the relevance from 0 to 100


class AgentSearch:
    """Searches agents in the database, regardless of their status and visibility, which the caller has to check."""

    def __init__(self, database: RegistryDatabase, registry: Registry) -> None:
        self._database = database
        self._registry = registry

    async def candidates(self, tenant: str, query: SearchQuery) -> Iterator[Scored | None]:
        """Returns an iterator that compares one agent with the query at each step. It yields None for an agent that does not match.

        Without a text, all matching agents are equally relevant.
        """
        if not query.text.strip():
            return ((100, entry) if query.matches(entry) else None for entry in self._registry.list(tenant, Family.AGENT))
        terms = query_terms(query.text)
        names = await self._database.read(lambda connection: search_terms.find(connection, tenant, terms))
        return ((relevance(entry, terms), entry) if query.matches(entry) else None for entry in self._entries(tenant, names))

    async def index_missing(self) -> None:
        """Indexes agents that were registered before the index existed. Called at start."""
        tenants = self._registry.tenants()
        agents = {(tenant, entry.name): entry for tenant in tenants for entry in self._registry.list(tenant, Family.AGENT)}
        missing = agents.keys() - await self._database.read(search_terms.read_indexed)
        if not missing:
            return

        def work(batch: RegistryBatch) -> None:
            for tenant, name in missing:
                search_terms.write(batch.connection, tenant, name, terms_of(name, agents[tenant, name].card))

        await self._database.write(work)

    def _entries(self, tenant: str, names: Iterable[str]) -> Iterator[Registration]:
        for name in names:
            try:
                yield self._registry.find(tenant, name)
            except UnknownName:
                continue  # removed after the query


def order_key(scored: Scored) -> tuple[int, str]:
    """Returns the key by which findings are sorted: the most relevant first, then by name."""
    return -scored[0], scored[1].name


def relevance(entry: Registration, terms: Sequence[str]) -> int:
    """The relevance of an agent, 0 to 100: how well, and in which text, each term matches."""
    weighed = [(NAME_WEIGHT, frozenset(words_of(entry.name)))]
    if entry.card is not None:
        weighed.append((NAME_WEIGHT, frozenset(words_of(entry.card.name))))
        weighed += [(SKILL_WEIGHT, skill_words(skill)) for skill in entry.card.skills]
        described = [entry.card.description, *(skill.description for skill in entry.card.skills)]
        weighed.append((DESCRIPTION_WEIGHT, frozenset(word for text in described for word in words_of(text))))
    return round(100 * sum(_term_score(term, weighed) for term in terms) / len(terms)) if terms else 0


def _term_score(term: str, weighed: Sequence[tuple[float, frozenset[str]]]) -> float:
    exact = [EXACT_WEIGHT * weight for weight, words in weighed if term in words]
    begun = [PREFIX_WEIGHT * weight for weight, words in weighed if any(word.startswith(term) for word in words)]
    return max([*exact, *begun], default=0.0)


def routing_words(text: str) -> frozenset[str]:
    """The words of a message that select an agent: more than two letters and no stop word."""
    return frozenset(word for word in query_terms(text) if len(word) > 2 and word not in _STOP_WORDS)


def claims_of(entry: Registration) -> list[frozenset[str]]:
    """The words of each skill of an agent; the words of its name if it has no skills."""
    skills = entry.card.skills if entry.card else ()
    return [skill_words(skill) for skill in skills] or [frozenset(words_of(entry.name))]


def skill_words(skill: Skill) -> frozenset[str]:
    """The words of a skill's id, name and tags."""
    return frozenset(word for text in (skill.id, skill.name, *skill.tags) for word in words_of(text))
