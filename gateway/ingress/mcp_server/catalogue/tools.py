"""The tools a caller has: those of MCP servers, and agents. One rule decides what is listed and what can be called."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from msgspec import Raw

from gateway.ingress.http.errors import UnknownTool
from gateway.ingress.mcp_server.catalogue.definitions import AgentTool, Known, Named, ServerTool, Target
from gateway.ingress.mcp_server.catalogue.names import owner_of, unlike
from gateway.ingress.mcp_server.catalogue.visible import VIRTUAL, Offers, Place, own_names
from policies.callers import Caller
from policies.delegation.rulings import calling, invoking
from registry.cards.card import Registration
from registry.store import UnknownName
from registry.virtual.tool_overrides import Override

__all__ = ["AgentTool", "ServerTool", "Tools"]
SELECTIONS_KEPT = 256


class Tools:
    """Lists and resolves. `place` is what stands after /mcp/ in the path: nothing, a server (its own names), or virtual/NAME."""

    def __init__(self, offers: Offers, separator: str) -> None:
        self._offers = offers
        self._known = Known(separator)
        self.separator = separator
        self._selected: dict[tuple[str, str], tuple[tuple[int, int], Mapping[str, Target]]] = {}

    def listed(self, caller: Caller, place: str) -> Sequence[Raw]:
        """Definitions of every tool the caller may call, encoded, in a stable order. Raises UnknownName."""
        return self._offers.remembered(caller, "tools", place, lambda: [text for _, text in self.permitted(caller, place)])

    async def list(self, caller: Caller, place: str) -> Sequence[Raw]:
        """As `listed`, but a list that has to be made leaves the event loop free for other requests. Raises UnknownName."""
        entries = (permitted and permitted[1] for permitted in self.candidates(caller, place))
        await self._offers.make_in_slices(caller, "tools", place, entries)
        return self.listed(caller, place)

    def permitted(self, caller: Caller, place: str) -> Iterator[tuple[str, Raw]]:
        """Yields the name and the definition of each tool that the caller may call. Raises UnknownName."""
        return (permitted for permitted in self.candidates(caller, place) if permitted is not None)

    def candidates(self, caller: Caller, place: str) -> Iterator[tuple[str, Raw] | None]:
        """Yields the name and the definition of each tool, or None for one that the caller may not call. Raises UnknownName."""
        here = self._offers.place(caller, place)
        by_name = {entry.name: entry for entry in here.entries}
        overrides = here.selection.overrides if here.selection is not None else {}
        for name, target in self._names(here, caller).items():
            entry = by_name[target.server if isinstance(target, ServerTool) else target.agent]
            permitted = self._may(caller, entry, target)
            yield (name, self._known.of(entry, here.own).definition(target, name, overrides.get(target.selected))) if permitted else None

    def check(self, caller: Caller, place: str) -> None:
        """Raises UnknownName for a place that is not there, or that the caller may not know of."""
        self._offers.place(caller, place)

    def sees(self, caller: Caller, tool: Target) -> bool:
        """Whether the caller may know of the agent, or of the server."""
        if isinstance(tool, AgentTool):
            return self._offers.sees(caller, invoking(tool.agent))
        return self._offers.sees(caller, calling(tool.server, tool.tool))

    def resolve(self, caller: Caller, place: str, name: str) -> Target:
        """What a name means. Raises UnknownTool, UnknownName, NotReachable; whether it may be called is the broker's question."""
        if own_names(place):
            found: Target | None = self._known.of(self._offers.server(caller, place)).own.get(name)
        elif place:
            here = self._offers.place(caller, place)
            found = self._names(here, caller).get(name)
            if found is None:
                self._check_away(caller, here, name)
        else:
            found = self._exposed(caller, name)
        if found is None:
            raise UnknownTool
        return found

    def override(self, caller: Caller, place: str, target: Target) -> Override | None:
        """How a virtual server shows a tool, where it does so otherwise than the server. Raises UnknownName."""
        if not place.startswith(VIRTUAL):
            return None
        return self._offers.selection(caller, place).overrides.get(target.selected)

    def named(self, entry: Registration) -> Named:
        """All that one registration has, by name."""
        return self._known.of(entry)

    def _exposed(self, caller: Caller, name: str) -> Target | None:
        try:
            entry = self._offers.entry(caller, owner_of(name, self._known.separator))
        except UnknownName:
            return None
        return self._known.of(entry).exposed.get(name)

    def _names(self, here: Place, caller: Caller) -> Mapping[str, Target]:
        """Every tool of a place by its name there."""
        if here.own:
            return self._known.of(here.entries[0]).own
        if here.selection is None:
            return {name: target for entry in here.entries for name, target in self._known.of(entry).exposed.items()}
        key, stamp = (caller.principal.tenant, here.name), self._offers.stamp
        kept = self._selected.get(key)
        if kept is None or kept[0] != stamp:
            if len(self._selected) >= SELECTIONS_KEPT:
                self._selected.clear()
            kept = self._selected[key] = (stamp, self._selection(here))
        return kept[1]

    def _check_away(self, caller: Caller, here: Place, name: str) -> None:
        """Whether a virtual server would have a tool of that name if all that it selects from were reachable. Raises NotReachable."""
        away = {entry.name: entry for entry in self._offers.away(caller, here.name)}
        target = self._selection(replace(here, entries=tuple(away.values()))).get(name) if away else None
        if target is not None:
            raise self._offers.absent(away[target.server if isinstance(target, ServerTool) else target.agent])

    def _selection(self, here: Place) -> Mapping[str, Target]:
        assert here.selection is not None
        found = [(name, target) for entry in here.entries for name, target in self._known.of(entry).exposed.items()]
        chosen = [(name, target) for name, target in found if here.has_tool(target.selected)]
        aliases = here.selection.aliases
        return {here.selection.alias_of(target.selected) or unlike(name, aliases): target for name, target in chosen}

    def _may(self, caller: Caller, entry: Registration, target: Target) -> bool:
        if isinstance(target, ServerTool):
            return self._offers.may(caller, entry, calling(target.server, target.tool))
        return self._offers.may_invoke(caller, target.agent, target.skill)
