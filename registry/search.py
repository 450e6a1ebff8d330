"""Finds agents by words, skill, tag and mode."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from registry import search_terms
from registry.cards.card import AgentCard, Family, Registration, Skill
from registry.search_terms import asked, terms_of, words
from registry.store import Batch, Database, Registry, UnknownName

STEM = 4  # letters that two words have to begin with alike, to count as one
EXACT, BEGUN = 1.0, 0.7
NAMED, SKILLED, DESCRIBED = 1.0, 0.9, 0.4  # what a word counts for in a name, in a skill's id, name or tags, in a description
_STOP = frozenset(
    words(
        "and are but can could for from get give has have her his how its may need not our out please she should some that the "
        "their them then there they this want was what when where which who why will with would you your"
    )
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; empty: anything. `skill` is an id or a name, `mode` a media type that is taken in or given out."""

    text: str = ""
    skill: str = ""
    tag: str = ""
    mode: str = ""

    def fits(self, entry: Registration) -> bool:
        """All but the text."""
        card = entry.card
        if card is None:
            return not (self.skill or self.tag or self.mode)
        skill, tag, mode = self.skill.casefold(), self.tag.casefold(), self.mode.casefold()
        return (
            (not skill or any(skill in (one.id.casefold(), one.name.casefold()) for one in card.skills))
            and (not tag or any(tag == one.casefold() for each in card.skills for one in each.tags))
            and (not mode or mode in modes(card))
        )


def modes(card: AgentCard) -> set[str]:
    """The media types of an agent and of its skills."""
    found = [*card.input_modes, *card.output_modes]
    for skill in card.document.get("skills") or ():
        found += [one for key in ("inputModes", "outputModes") for one in skill.get(key) or () if isinstance(one, str)]
    return {one.casefold() for one in found}


class Search:
    """Asks the database which agents have the words, whatever their status and whoever may see them: that is for the caller to sort out."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry

    async def found(self, tenant: str, wanted: Wanted) -> list[tuple[int, Registration]]:
        """(relevance from 0 to 100, entry), the best first. Without a text all are equally relevant, in the order of names."""
        if not wanted.text.strip():
            return [(100, entry) for entry in self._registry.list(tenant, Family.AGENT) if wanted.fits(entry)]
        terms = asked(wanted.text)
        names = await self._database.read(lambda connection: search_terms.find(connection, tenant, terms))
        scored = [(relevance(entry, terms), entry) for entry in self._entries(tenant, names) if wanted.fits(entry)]
        return sorted(scored, key=lambda one: (-one[0], one[1].name))

    async def mend(self) -> None:
        """Puts agents into the index that were registered before there was one. Called at start."""
        tenants = self._registry.tenants()
        agents = {(tenant, entry.name): entry for tenant in tenants for entry in self._registry.list(tenant, Family.AGENT)}
        missing = agents.keys() - await self._database.read(search_terms.indexed)
        if not missing:
            return

        def work(batch: Batch) -> None:
            for tenant, name in missing:
                search_terms.keep(batch.connection, tenant, name, terms_of(name, agents[tenant, name].card))

        await self._database.write(work)

    def _entries(self, tenant: str, names: Iterable[str]) -> Iterator[Registration]:
        for name in names:
            try:
                yield self._registry.find(tenant, name)
            except UnknownName:
                continue  # removed a moment ago


def relevance(entry: Registration, terms: Sequence[str]) -> int:
    """0 to 100: how well, and where, each of the words is met."""
    weighed = [(NAMED, frozenset(words(entry.name)))]
    if entry.card is not None:
        weighed.append((NAMED, frozenset(words(entry.card.name))))
        weighed += [(SKILLED, structured(skill)) for skill in entry.card.skills]
        described = [entry.card.description, *(skill.description for skill in entry.card.skills)]
        weighed.append((DESCRIBED, frozenset(word for text in described for word in words(text))))
    return round(100 * sum(_met(term, weighed) for term in terms) / len(terms)) if terms else 0


def _met(term: str, weighed: Sequence[tuple[float, frozenset[str]]]) -> float:
    exact = [EXACT * weight for weight, given in weighed if term in given]
    begun = [BEGUN * weight for weight, given in weighed if any(word.startswith(term) for word in given)]
    return max([*exact, *begun], default=0.0)


def routing_words(text: str) -> frozenset[str]:
    """The words of a message by which an agent is chosen: those of more than two letters that are no stop words."""
    return frozenset(word for word in asked(text) if len(word) > 2 and word not in _STOP)


def claims_of(entry: Registration) -> list[frozenset[str]]:
    """The words of each skill of an agent; the words of its name if it has no skills."""
    skills = entry.card.skills if entry.card else ()
    return [structured(skill) for skill in skills] or [frozenset(words(entry.name))]


def structured(skill: Skill) -> frozenset[str]:
    """The words of a skill's id, name and tags."""
    return frozenset(word for text in (skill.id, skill.name, *skill.tags) for word in words(text))
