"""The tools of a caller: those of MCP servers, and agents. The same rule decides what is listed and what can be called."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from msgspec import Raw

from gateway.ingress.http.errors import UnknownTool
from gateway.ingress.mcp_server.catalogue.definitions import AgentTool, DefinitionCache, ServerTool, ToolTarget
from gateway.ingress.mcp_server.catalogue.names import avoid_alias, entry_name_of
from gateway.ingress.mcp_server.catalogue.visible import EndpointView, VisibleEntries, uses_own_names
from gateway.ingress.mcp_server.protocol.message import VIRTUAL_PREFIX
from policies.callers import Caller
from policies.delegation.rulings import act_of_invoking_agent
from registry.cards.card import Registration
from registry.store import UnknownName
from registry.virtual.tool_overrides import ToolOverride

__all__ = ["AgentTool", "ServerTool", "ToolCatalogue"]
SELECTIONS_MAX = 256


class ToolCatalogue:
    """Lists and resolves tools.

    `server_path` is the path after /mcp/: empty for all, a server (under its own names), or virtual/NAME.
    """

    def __init__(self, visible_entries: VisibleEntries, separator: str) -> None:
        self._visible_entries = visible_entries
        self._definitions = DefinitionCache(separator)
        self.separator = separator
        self._selections: dict[tuple[str, str], tuple[tuple[int, int, int], Mapping[str, ToolTarget]]] = {}

    async def list_definitions(self, caller: Caller, server_path: str, length: int | None = None) -> Sequence[Raw]:
        """Returns the encoded tools that the caller may call, in a stable order: the first `length`, or all. Raises UnknownName."""
        return await self._visible_entries.find_or_make_list(caller, "tools", server_path, self.candidates, length)

    async def digest(self, caller: Caller, server_path: str) -> str:
        """Returns the digest of `list_definitions`. Raises UnknownName."""
        return await self._visible_entries.digest_of_list(caller, "tools", server_path, self.candidates)

    def candidates(self, caller: Caller, server_path: str) -> Iterator[Raw | None]:
        """Yields the definition of each tool, or None for one that the caller may not call. Raises UnknownName."""
        view = self._visible_entries.view_of(caller, server_path)
        overrides = view.selection.overrides if view.selection is not None else {}
        for entry in view.entries:
            definitions = self._definitions.find_or_build(entry, view.uses_own_names)
            for name, target in self._targets_of(entry, view):
                permitted = self._could_allow(caller, entry, target)
                yield definitions.encoded_definition(target, name, overrides.get(target.selection_name)) if permitted else None
            yield None  # an entry without tools takes time too

    def check_visible(self, caller: Caller, server_path: str) -> None:
        """Raises UnknownName for an endpoint that does not exist, or that the caller may not know of."""
        self._visible_entries.view_of(caller, server_path)

    def can_see(self, caller: Caller, tool: ToolTarget) -> bool:
        """Returns whether the caller may know of the agent, or of the tool."""
        if isinstance(tool, AgentTool):
            return self._visible_entries.can_see(caller, act_of_invoking_agent(tool.agent))
        return self._visible_entries.can_see(caller, tool.act)

    def resolve(self, caller: Caller, server_path: str, name: str) -> ToolTarget:
        """Returns the tool of a name. Raises UnknownTool, UnknownName, NotReachable. ServerCalls rules on the call."""
        if uses_own_names(server_path):
            found: ToolTarget | None = self._definitions.find_or_build(
                self._visible_entries.find_server(caller, server_path)
            ).by_own_name.get(name)
        elif server_path:
            view = self._visible_entries.view_of(caller, server_path)
            found = self._targets_in(view, caller).get(name)
            if found is None:
                self._check_unreachable(caller, view, name)
        else:
            found = self._find_by_public_name(caller, name)
        if found is None:
            raise UnknownTool
        return found

    def override_for(self, caller: Caller, server_path: str, target: ToolTarget) -> ToolOverride | None:
        """Returns how a virtual server changes a tool's definition, or None. Raises UnknownName."""
        if not server_path.startswith(VIRTUAL_PREFIX):
            return None
        return self._visible_entries.find_selection(caller, server_path).overrides.get(target.selection_name)

    def _find_by_public_name(self, caller: Caller, name: str) -> ToolTarget | None:
        try:
            entry = self._visible_entries.find_entry(caller, entry_name_of(name, self._definitions.separator))
        except UnknownName:
            return None
        return self._definitions.find_or_build(entry).by_public_name.get(name)

    def _targets_in(self, view: EndpointView, caller: Caller) -> Mapping[str, ToolTarget]:
        """Returns all tools of a virtual server by their names there."""
        key, stamp = (caller.principal.tenant, view.server_path), self._visible_entries.generations
        cached = self._selections.get(key)
        if cached is None or cached[0] != stamp:
            if len(self._selections) >= SELECTIONS_MAX:
                self._selections.clear()
            cached = self._selections[key] = (stamp, self._selected_targets(view))
        return cached[1]

    def _check_unreachable(self, caller: Caller, view: EndpointView, name: str) -> None:
        """Raises NotReachable when an unreachable entry would give a virtual server a tool of that name."""
        away = {entry.name: entry for entry in self._visible_entries.list_unreachable(caller, view.server_path)}
        target = self._selected_targets(replace(view, entries=tuple(away.values()))).get(name) if away else None
        if target is not None:
            raise self._visible_entries.unreachable_error(away[target.server if isinstance(target, ServerTool) else target.agent])

    def _selected_targets(self, view: EndpointView) -> Mapping[str, ToolTarget]:
        return {name: target for entry in view.entries for name, target in self._targets_of(entry, view)}

    def _targets_of(self, entry: Registration, view: EndpointView) -> Iterator[tuple[str, ToolTarget]]:
        """Yields the tools of one entry with their names at the endpoint."""
        definitions = self._definitions.find_or_build(entry, view.uses_own_names)
        if view.uses_own_names:
            yield from definitions.by_own_name.items()
        elif view.selection is None:
            yield from definitions.by_public_name.items()
        else:
            aliases = view.selection.aliases
            for name, target in definitions.by_public_name.items():
                if view.has_tool(target.selection_name):
                    yield view.selection.alias_of(target.selection_name) or avoid_alias(name, aliases), target

    def _could_allow(self, caller: Caller, entry: Registration, target: ToolTarget) -> bool:
        if isinstance(target, ServerTool):
            return self._visible_entries.could_allow(caller, entry, target.act)
        return self._visible_entries.could_invoke(caller, target.agent, target.skill)
