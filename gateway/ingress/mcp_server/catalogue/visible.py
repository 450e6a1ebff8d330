"""Where a client comes in, and what of it the caller may know of and use: one answer for lists, calls, reads and completion alike."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec import Raw

from adapters.contract import UpstreamFault
from gateway.ingress.mcp_server.catalogue.cached_lists import Entries, Lists
from policies.authority import Authority
from policies.callers import Caller
from policies.delegation.administration import REGISTER
from policies.delegation.permissions import ceiling_of
from policies.delegation.rulings import Act, calling, getting, invoking, reading
from registry.cards.card import Family, Registration, Status
from registry.health.reachability import Absences, NotReachable
from registry.store import Registry, UnknownName
from registry.virtual.selection import Selection

VIRTUAL = "virtual/"


@dataclass(frozen=True, slots=True)
class Place:
    """`entries` are active, in the order of their names. `own`: it is one server, whose names and addresses are its own there."""

    name: str  # of the path after /mcp/
    entries: Sequence[Registration]
    own: bool = False
    selection: Selection | None = None

    def has_tool(self, name: str) -> bool:
        """`crm.search`, `sales` or `sales/quote`."""
        return self.selection is None or self.selection.has_tool(name)

    def has_prompt(self, name: str) -> bool:
        return self.selection is None or self.selection.has_prompt(name)

    def has_resource(self, server: str, uri: str) -> bool:
        return self.selection is None or self.selection.has_resource(server, uri)

    def servers(self) -> Iterator[Registration]:
        return (entry for entry in self.entries if entry.family is Family.SERVER)


class Offers:
    """Of agents and servers that are active. What is not active is not there."""

    def __init__(self, registry: Registry, authority: Authority, absences: Absences) -> None:
        self._absences = absences
        self._registry = registry
        self._authority = authority
        self._lists = Lists()

    def remembered(self, caller: Caller, kind: str, place: str, make: Callable[[], Entries]) -> Entries:
        """A list, as it was made last for this caller where nothing changed since."""
        return self._lists.of((kind, place, caller.key), self.stamp if self._authority.fresh else None, make)

    async def make_in_slices(self, caller: Caller, kind: str, place: str, entries: Iterable[Raw | None]) -> None:
        """Makes a list that `remembered` then has ready."""
        await self._lists.make_in_slices((kind, place, caller.key), self.stamp if self._authority.fresh else None, entries)

    @property
    def stamp(self) -> tuple[int, int]:
        """Differs whenever a list may."""
        return self._registry.generation, self._authority.generation

    def entry(self, caller: Caller, name: str) -> Registration:
        """An agent or a server, or a virtual one. Raises UnknownName.

        Raises NotReachable for one that is down, and for a server that an operator holds back, where the caller may know of it.
        """
        found = self._registry.find(caller.principal.tenant, name)
        if found.status is Status.ACTIVE:
            return found
        if not _is_away(found) or not self._knows(caller, found):
            raise UnknownName(name)
        raise self.absent(found)

    def absent(self, entry: Registration) -> NotReachable:
        """What to raise where an entry is asked for that is away; one that is down is looked at again soon."""
        return self._absences.refuse(entry) if entry.status is Status.DOWN else NotReachable()

    def server(self, caller: Caller, name: str) -> Registration:
        """Raises UnknownName and NotReachable."""
        found = self.entry(caller, name)
        if found.family is not Family.SERVER:
            raise UnknownName(name)
        return found

    def place(self, caller: Caller, name: str) -> Place:
        """Everything, one server, or a virtual one. Raises NotReachable, and UnknownName, also where the caller may not know of it."""
        if not name:
            return Place("", self._everything(caller))
        if not name.startswith(VIRTUAL):
            found = self.server(caller, name)
            if not self._knows(caller, found):
                raise UnknownName(name)
            return Place(name, (found,), own=True)
        selection = self.selection(caller, name)
        entries = [entry for entry in self._everything(caller) if selection.touches(entry.name)]
        if not any(self._knows(caller, entry) for entry in entries):
            away = self.away(caller, name)
            raise self.absent(away[0]) if away else UnknownName(name)
        return Place(name, entries, selection=selection)

    def selection(self, caller: Caller, name: str) -> Selection:
        """Of the virtual server at this place. Raises UnknownName."""
        found = self.entry(caller, name.removeprefix(VIRTUAL))
        if found.selection is None:
            raise UnknownName(name)
        return found.selection

    def may(self, caller: Caller, server: Registration, act: Act) -> bool:
        """Whether the act could be allowed with some arguments, within the server's ceiling. Leaves no trace."""
        return ceiling_of(server.ceiling).covers(act.permission) and self._authority.may(caller, act)

    def may_stop(self, caller: Caller, act: Act) -> bool:
        """Whether what the act began may be ended, which no policy is asked about."""
        return self._authority.may_stop(caller, act)

    def may_invoke(self, caller: Caller, agent: str, skill: str = "") -> bool:
        return self._authority.may(caller, invoking(agent, skill))

    def sees(self, caller: Caller, act: Act) -> bool:
        """Whether the caller may know of the resource at all."""
        return self._authority.sees(caller, act)

    def explain(self, caller: Caller, fault: UpstreamFault) -> None:
        """Lets operators, who may write the registry, be told the cause."""
        fault.explained = self._authority.may(caller, REGISTER)

    def away(self, caller: Caller, place: str) -> list[Registration]:
        """Servers and agents that would be listed there, are not reachable now, and that the caller may know of."""
        selection = self.selection(caller, place) if place.startswith(VIRTUAL) else None
        entries = self._registry.list(caller.principal.tenant) if not place or selection else ()
        down = (entry for entry in entries if _is_away(entry) and (selection is None or selection.touches(entry.name)))
        return [entry for entry in down if self._knows(caller, entry)]

    def listened(self, caller: Caller, place: str) -> list[Registration]:
        """Servers of a place that the caller may know of; none where the place is not there."""
        try:
            return [entry for entry in self.place(caller, place).servers() if self._knows(caller, entry)]
        except (UnknownName, NotReachable):
            return []

    def _everything(self, caller: Caller) -> list[Registration]:
        return [entry for entry in self._registry.list(caller.principal.tenant) if entry.status is Status.ACTIVE]

    def _knows(self, caller: Caller, entry: Registration) -> bool:
        name = entry.name
        if entry.family is Family.AGENT:
            return self.sees(caller, invoking(name))
        return any(self.sees(caller, act) for act in (calling(name, "*"), getting(name, "*"), reading(name)))


def _is_away(entry: Registration) -> bool:
    """Whether it is there and can't be called now. That an agent is in quarantine is not told: its card is not to be trusted."""
    return entry.status is Status.DOWN or (entry.status is Status.QUARANTINED and entry.family is Family.SERVER)


def own_names(place: str) -> bool:
    """Whether names and addresses at this place are those of its one server."""
    return bool(place) and not place.startswith(VIRTUAL)
