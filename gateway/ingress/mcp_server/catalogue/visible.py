"""Where a client comes in, and what of it the caller may know of and use: one answer for lists, calls, reads and completion alike."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec import Raw

from adapters.contract import UpstreamFault
from gateway.ingress.mcp_server.catalogue.cached_lists import CachedLists, EncodedDefinitions
from policies.authority import Authority
from policies.callers import Caller
from policies.delegation.administration import WRITE_REGISTRY
from policies.delegation.permissions import parse_ceiling
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent, act_of_reading_resource
from registry.cards.card import Family, Registration, RegistrationStatus
from registry.health.reachability import Absences, NotReachable
from registry.store import Registry, UnknownName
from registry.virtual.selection import Selection

VIRTUAL_PREFIX = "virtual/"


@dataclass(frozen=True, slots=True)
class EndpointView:
    """`entries` are active, in the order of their names. `own`: it is one server, whose names and addresses are its own there."""

    server_path: str  # of the path after /mcp/
    entries: Sequence[Registration]
    uses_own_names: bool = False
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


class VisibleEntries:
    """Of agents and servers that are active. What is not active is not there."""

    def __init__(self, registry: Registry, authority: Authority, absences: Absences) -> None:
        self._absences = absences
        self._registry = registry
        self._authority = authority
        self._lists = CachedLists()

    def cached_list(self, caller: Caller, kind: str, server_path: str, make_list: Callable[[], EncodedDefinitions]) -> EncodedDefinitions:
        """A list, as it was made last for this caller where nothing changed since."""
        return self._lists.find_or_make(
            (kind, server_path, caller.ruling_key), self.generations if self._authority.is_fresh else None, make_list
        )

    async def make_in_slices(self, caller: Caller, kind: str, place: str, entries: Iterable[Raw | None]) -> None:
        """Makes a list that `remembered` then has ready."""
        await self._lists.make_in_slices((kind, place, caller.ruling_key), self.generations if self._authority.is_fresh else None, entries)

    @property
    def generations(self) -> tuple[int, int]:
        """Differs whenever a list may."""
        return self._registry.generation, self._authority.generation

    def find_entry(self, caller: Caller, name: str) -> Registration:
        """An agent or a server, or a virtual one. Raises UnknownName.

        Raises NotReachable for one that is down, and for a server that an operator holds back, where the caller may know of it.
        """
        found = self._registry.find(caller.principal.tenant, name)
        if found.status is RegistrationStatus.ACTIVE:
            return found
        if not _is_unreachable(found) or not self._can_see_entry(caller, found):
            raise UnknownName(name)
        raise self.unreachable_error(found)

    def unreachable_error(self, entry: Registration) -> NotReachable:
        """What to raise where an entry is asked for that is away; one that is down is looked at again soon."""
        return self._absences.refuse(entry) if entry.status is RegistrationStatus.DOWN else NotReachable()

    def find_server(self, caller: Caller, name: str) -> Registration:
        """Raises UnknownName and NotReachable."""
        found = self.find_entry(caller, name)
        if found.family is not Family.SERVER:
            raise UnknownName(name)
        return found

    def view_of(self, caller: Caller, server_path: str) -> EndpointView:
        """Everything, one server, or a virtual one. Raises NotReachable, and UnknownName, also where the caller may not know of it."""
        if not server_path:
            return EndpointView("", self._active_entries(caller))
        if not server_path.startswith(VIRTUAL_PREFIX):
            found = self.find_server(caller, server_path)
            if not self._can_see_entry(caller, found):
                raise UnknownName(server_path)
            return EndpointView(server_path, (found,), uses_own_names=True)
        selection = self.find_selection(caller, server_path)
        entries = [entry for entry in self._active_entries(caller) if selection.may_include(entry.name)]
        if not any(self._can_see_entry(caller, entry) for entry in entries):
            away = self.list_unreachable(caller, server_path)
            raise self.unreachable_error(away[0]) if away else UnknownName(server_path)
        return EndpointView(server_path, entries, selection=selection)

    def find_selection(self, caller: Caller, server_path: str) -> Selection:
        """Of the virtual server at this place. Raises UnknownName."""
        found = self.find_entry(caller, server_path.removeprefix(VIRTUAL_PREFIX))
        if found.selection is None:
            raise UnknownName(server_path)
        return found.selection

    def could_allow(self, caller: Caller, server: Registration, act: Act) -> bool:
        """Whether the act could be allowed with some arguments, within the server's ceiling. Leaves no trace."""
        return parse_ceiling(server.ceiling).covers(act.permission) and self._authority.could_allow(caller, act)

    def may_stop(self, caller: Caller, act: Act) -> bool:
        """Whether what the act began may be ended, which no policy is asked about."""
        return self._authority.may_stop(caller, act)

    def could_invoke(self, caller: Caller, agent: str, skill: str = "") -> bool:
        return self._authority.could_allow(caller, act_of_invoking_agent(agent, skill))

    def can_see(self, caller: Caller, act: Act) -> bool:
        """Whether the caller may know of the resource at all."""
        return self._authority.can_see(caller, act)

    def explain_to_operators(self, caller: Caller, fault: UpstreamFault) -> None:
        """Lets operators, who may write the registry, be told the cause."""
        fault.shows_cause = self._authority.could_allow(caller, WRITE_REGISTRY)

    def list_unreachable(self, caller: Caller, server_path: str) -> list[Registration]:
        """Servers and agents that would be listed there, are not reachable now, and that the caller may know of."""
        selection = self.find_selection(caller, server_path) if server_path.startswith(VIRTUAL_PREFIX) else None
        entries = self._registry.list(caller.principal.tenant) if not server_path or selection else ()
        down = (entry for entry in entries if _is_unreachable(entry) and (selection is None or selection.may_include(entry.name)))
        return [entry for entry in down if self._can_see_entry(caller, entry)]

    def visible_servers(self, caller: Caller, server_path: str) -> list[Registration]:
        """Servers of a place that the caller may know of; none where the place is not there."""
        try:
            return [entry for entry in self.view_of(caller, server_path).servers() if self._can_see_entry(caller, entry)]
        except (UnknownName, NotReachable):
            return []

    def _active_entries(self, caller: Caller) -> list[Registration]:
        return [entry for entry in self._registry.list(caller.principal.tenant) if entry.status is RegistrationStatus.ACTIVE]

    def _can_see_entry(self, caller: Caller, entry: Registration) -> bool:
        name = entry.name
        if entry.family is Family.AGENT:
            return self.can_see(caller, act_of_invoking_agent(name))
        return any(
            self.can_see(caller, act)
            for act in (act_of_calling_tool(name, "*"), act_of_getting_prompt(name, "*"), act_of_reading_resource(name))
        )


def _is_unreachable(entry: Registration) -> bool:
    """Whether it is there and can't be called now. That an agent is in quarantine is not told: its card is not to be trusted."""
    return entry.status is RegistrationStatus.DOWN or (entry.status is RegistrationStatus.QUARANTINED and entry.family is Family.SERVER)


def uses_own_names(server_path: str) -> bool:
    """Whether names and addresses at this place are those of its one server."""
    return bool(server_path) and not server_path.startswith(VIRTUAL_PREFIX)
