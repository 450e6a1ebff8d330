"""Which entries of the registry a caller may know of."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator

from policies.authority import WRITE_REGISTRY
from policies.cache import BoundedCache
from policies.callers import Caller
from policies.delegation.rulings import (
    Act,
    act_of_calling_tool,
    act_of_getting_prompt,
    act_of_invoking_agent,
    act_of_reading_resource,
)
from registry.cards.card import KNOWN_STATUSES, Family, Registration
from registry.search.agents import Scored
from registry.store import Registry

CACHE_SIZE, CACHE_SECONDS = 50_000, 60.0
CouldAllow = Callable[[Caller, Act], bool]


class EntryVisibility:
    """Rules on whether callers may know of entries: operators and owners of all theirs, others of what they could be allowed to call."""

    def __init__(self, registry: Registry, could_allow: CouldAllow, rulings_version: Callable[[], Hashable]) -> None:
        """`could_allow` records nothing. `rulings_version` changes whenever its answers could; None: they are not cached."""
        self._registry = registry
        self._could_allow = could_allow
        self._rulings_version = rulings_version
        self._cache: BoundedCache[tuple[Hashable, ...], bool] = BoundedCache(CACHE_SIZE, time.monotonic)

    def is_operator(self, caller: Caller) -> bool:
        return self._could_allow(caller, WRITE_REGISTRY)

    def is_operator_or_owner(self, caller: Caller, entry: Registration) -> bool:
        """Returns whether the caller may know the whole entry."""
        return self.is_operator(caller) or is_owner(caller, entry)

    def can_see(self, caller: Caller, entry: Registration) -> bool:
        """Returns whether the caller may know of the entry.

        The answer is cached. Ruling on each of a server's many hidden tools takes longer than a lookup of an unknown name, and the time
        taken would reveal the server.
        """
        return any(found is not None for found in self.rule_on(caller, (entry,)))

    def rule_on(self, caller: Caller, entries: Iterable[Registration]) -> Iterator[Registration | None]:
        """Yields each entry that the caller may know of, and None after each ruling that does not show one."""
        for entry in entries:
            generation = self._rulings_version()
            key = (caller.ruling_key, entry.tenant, entry.name, self._registry.generation, generation)
            known = self._cache.get(key) if generation is not None else None
            if known is None:
                known = False
                for known in self._rulings_on(caller, entry):
                    if known:
                        break
                    yield None
                self._cache.put(key, known, CACHE_SECONDS)
            yield entry if known else None

    def rule_on_findings(self, caller: Caller, found: Iterable[Scored]) -> Iterator[Scored | None]:
        """Yields each finding that the caller may know of, and None after each ruling that does not show one."""
        for score, candidate in found:
            for entry in self.rule_on(caller, (candidate,)):
                yield None if entry is None else (score, entry)

    def _rulings_on(self, caller: Caller, entry: Registration) -> Iterator[bool]:
        """Yields the rulings on an entry, each of which can show it to the caller."""
        if self.is_operator_or_owner(caller, entry):
            yield True
        elif entry.status not in KNOWN_STATUSES:
            yield False
        elif entry.family is Family.AGENT:
            yield self._could_allow(caller, act_of_invoking_agent(entry.name))
        elif entry.selection is not None:
            touched = (one for one in self._registry.list(entry.tenant) if one.selection is None and entry.selection.may_include(one.name))
            yield from (found is not None for found in self.rule_on(caller, touched))
        else:
            yield from (self._could_allow(caller, act_of_calling_tool(entry.name, tool.name)) for tool in entry.tools)
            yield from (self._could_allow(caller, act_of_getting_prompt(entry.name, prompt.name)) for prompt in entry.prompts)
            yield self._could_allow(caller, act_of_reading_resource(entry.name))


def is_owner(caller: Caller, entry: Registration) -> bool:
    """Returns whether the caller is the owner of the entry in person, and not an agent that acts for the owner."""
    return not caller.delegation.path and entry.owner == caller.principal.owner_key
