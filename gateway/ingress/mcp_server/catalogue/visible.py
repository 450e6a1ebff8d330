"""The endpoint a client uses and the entries there that its caller may know of and use: one rule for lists, calls, reads and completion."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from adapters.contract import UpstreamFault
from gateway.calls.limits.slices import Slices
from gateway.ingress.mcp_server.catalogue.cached_lists import CachedLists, EncodedDefinitions, Generations, ListKey, MakeEntries
from gateway.ingress.mcp_server.protocol.message import VIRTUAL_PREFIX
from policies.authority import WRITE_REGISTRY, Authority
from policies.callers import Caller
from policies.delegation.permissions import parse_ceiling
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent, act_of_reading_resource
from registry.cards.card import NEEDS, Family, Registration, RegistrationStatus
from registry.health.reachability import Absences, NotReachable
from registry.store import Registry, UnknownName
from registry.virtual.selection import Selection

Candidates = Callable[[Caller, str], Iterable[Raw | None]]  # of a caller at a path; None for each that the caller may not use
TENANTS_MAX = 1000  # tenants whose entries are looked through once


class _EntriesOfTenant(NamedTuple):
    generation: int  # of the registry
    active: tuple[Registration, ...]
    unreachable: tuple[Registration, ...]


@dataclass(frozen=True, slots=True)
class EndpointView:
    """The active entries of an endpoint, sorted by name. `uses_own_names`: the endpoint is one server, under its own names and URIs."""

    server_path: str  # the path after /mcp/
    entries: Sequence[Registration]
    uses_own_names: bool = False
    selection: Selection | None = None

    def has_tool(self, name: str) -> bool:
        """Returns whether the endpoint has the tool, named `crm.search`, `sales` or `sales/quote`."""
        return self.selection is None or self.selection.has_tool(name)

    def has_prompt(self, name: str) -> bool:
        return self.selection is None or self.selection.has_prompt(name)

    def has_resource(self, server: str, uri: str) -> bool:
        return self.selection is None or self.selection.has_resource(server, uri)

    def servers(self) -> Iterator[Registration]:
        return (entry for entry in self.entries if entry.family is Family.SERVER)


class VisibleEntries:
    """Active agents and servers as callers may see them."""

    def __init__(self, registry: Registry, authority: Authority, absences: Absences) -> None:
        self._absences = absences
        self._registry = registry
        self._authority = authority
        self._by_tenant: dict[str, _EntriesOfTenant] = {}
        self._lists = CachedLists(lambda: self.generations if authority.is_fresh else None)

    async def find_or_make_list(
        self, caller: Caller, kind: str, server_path: str, candidates: Candidates, length: int | None = None
    ) -> EncodedDefinitions:
        """Returns a list, or its first `length` definitions at least, from the cache; makes what is missing in slices.

        People with equal rights share a list. It may be made for one of them after another one's token has expired.
        """
        key, make = self._list_of(caller, kind, server_path, candidates)
        return await self._lists.find_or_make(key, make, length)

    async def digest_of_list(self, caller: Caller, kind: str, server_path: str, candidates: Candidates) -> str:
        """Returns the digest of a list, which changes whenever the list does."""
        return await self._lists.digest(*self._list_of(caller, kind, server_path, candidates))

    def _list_of(self, caller: Caller, kind: str, server_path: str, candidates: Candidates) -> tuple[ListKey, MakeEntries]:
        anybody = replace(caller, expires=math.inf)
        return (kind, server_path, self._authority.class_rulings.rights_key(caller)), partial(candidates, anybody, server_path)

    @property
    def generations(self) -> Generations:
        """Changes whenever a list may change."""
        return self._registry.generation, *self._authority.generations

    def find_entry(self, caller: Caller, name: str) -> Registration:
        """Returns an active agent, server or virtual server. Raises UnknownName.

        Raises NotReachable for an entry that is down, or a server in quarantine, when the caller may know of it.
        """
        found = self._registry.find(caller.principal.tenant, name)
        if found.status is RegistrationStatus.ACTIVE:
            return found
        if not _is_unreachable(found) or not self._can_see_entry(caller, found):
            raise UnknownName(name)
        raise self.unreachable_error(found)

    def unreachable_error(self, entry: Registration) -> NotReachable:
        """Returns the error for an unreachable entry; for one that is down it also schedules a probe."""
        return self._absences.refuse(entry) if entry.status is RegistrationStatus.DOWN else NotReachable(entry.name)

    def find_server(self, caller: Caller, name: str) -> Registration:
        """Returns an active server. Raises UnknownName and NotReachable."""
        found = self.find_entry(caller, name)
        if found.family is not Family.SERVER:
            raise UnknownName(name)
        return found

    def view_of(self, caller: Caller, server_path: str) -> EndpointView:
        """Returns all entries, one server, or a virtual server. Raises NotReachable, and UnknownName for hidden ones too."""
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
        """Returns the selection of a virtual server. Raises UnknownName."""
        found = self.find_entry(caller, server_path.removeprefix(VIRTUAL_PREFIX))
        if found.selection is None:
            raise UnknownName(server_path)
        return found.selection

    def could_allow(self, caller: Caller, server: Registration, act: Act) -> bool:
        """Returns whether the act could be allowed with some arguments, within the server's ceiling. Records nothing."""
        if NEEDS in server.facts and not self._has_needed(caller, server, act):
            return False
        return parse_ceiling(server.ceiling).covers(act.permission) and self._authority.could_allow(caller, act)

    def _has_needed(self, caller: Caller, server: Registration, act: Act) -> bool:
        """Whether the caller has any of the permissions that a tool of a built-in server, or its resources, need beside their own."""
        action, pattern = server.facts[NEEDS][act.resource.removeprefix(f"{server.name}.") if act.action == "callTool" else ""]
        return self._authority.could_use(caller, action, pattern)

    def may_stop(self, caller: Caller, act: Act) -> bool:
        """Returns whether the caller may end what the act began. Policies are not asked."""
        return self._authority.may_stop(caller, act)

    def could_invoke(self, caller: Caller, agent: str, skill: str = "") -> bool:
        return self._authority.could_allow(caller, act_of_invoking_agent(agent, skill))

    def can_see(self, caller: Caller, act: Act) -> bool:
        """Returns whether the caller may know of the resource."""
        return self._authority.can_see(caller, act)

    def explain_to_operators(self, caller: Caller, fault: UpstreamFault) -> None:
        """Shows the cause of a fault to callers that may write the registry."""
        fault.shows_cause = self._authority.could_allow(caller, WRITE_REGISTRY)

    def list_unreachable(self, caller: Caller, server_path: str) -> list[Registration]:
        """Returns the unreachable servers and agents of an endpoint that the caller may know of."""
        return [entry for entry in self._unreachable_candidates(caller, server_path) if entry is not None]

    async def unreachable_names(self, caller: Caller, server_path: str) -> list[str]:
        """Returns the names of the entries of `list_unreachable`, and lets other requests run during the rulings."""
        return [entry.name async for entry in Slices(self._unreachable_candidates(caller, server_path)) if entry is not None]

    async def visible_servers(self, caller: Caller, server_path: str) -> list[Registration]:
        """Returns the servers of an endpoint that the caller may know of; none for an unknown endpoint."""
        try:
            servers = self.view_of(caller, server_path).servers()
        except (UnknownName, NotReachable):
            return []
        return [entry async for entry in Slices(servers) if self._can_see_entry(caller, entry)]

    def _unreachable_candidates(self, caller: Caller, server_path: str) -> Iterator[Registration | None]:
        """Yields each unreachable entry of an endpoint, or None for one that the caller may not know of."""
        selection = self.find_selection(caller, server_path) if server_path.startswith(VIRTUAL_PREFIX) else None
        for entry in self._entries_of(caller).unreachable if not server_path or selection else ():
            if selection is None or selection.may_include(entry.name):
                yield entry if self._can_see_entry(caller, entry) else None

    def _active_entries(self, caller: Caller) -> Sequence[Registration]:
        return self._entries_of(caller).active

    def _entries_of(self, caller: Caller) -> "_EntriesOfTenant":
        """Returns the entries of the caller's tenant, which are looked through once for each version of the registry."""
        tenant, generation = caller.principal.tenant, self._registry.generation
        known = self._by_tenant.get(tenant)
        if known is None or known.generation != generation:
            listed = self._registry.list(tenant)
            active = tuple(entry for entry in listed if entry.status is RegistrationStatus.ACTIVE)
            known = _EntriesOfTenant(generation, active, tuple(filter(_is_unreachable, listed)))
            if len(self._by_tenant) >= TENANTS_MAX:
                self._by_tenant.clear()
            self._by_tenant[tenant] = known
        return known

    def _can_see_entry(self, caller: Caller, entry: Registration) -> bool:
        name = entry.name
        if entry.family is Family.AGENT:
            return self.can_see(caller, act_of_invoking_agent(name))
        return any(
            self.can_see(caller, act)
            for act in (act_of_calling_tool(name, "*"), act_of_getting_prompt(name, "*"), act_of_reading_resource(name))
        )


def _is_unreachable(entry: Registration) -> bool:
    """Returns whether the entry exists but can't be called now.

    A quarantined agent is not reported, since its card is not trusted.
    """
    return entry.status is RegistrationStatus.DOWN or (entry.status is RegistrationStatus.QUARANTINED and entry.family is Family.SERVER)


def uses_own_names(server_path: str) -> bool:
    """Returns whether the endpoint is that of one server, under its own names and URIs."""
    return bool(server_path) and not server_path.startswith(VIRTUAL_PREFIX)
