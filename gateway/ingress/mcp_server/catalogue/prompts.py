"""The prompts of a caller. The same rule decides what is listed and what can be got."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from gateway.ingress.http.errors import UnknownPrompt
from gateway.ingress.mcp_server.catalogue.names import avoid_alias, entry_name_of, public_names
from gateway.ingress.mcp_server.catalogue.uris import rewrite_document
from gateway.ingress.mcp_server.catalogue.visible import EndpointView, VisibleEntries
from policies.callers import Caller
from policies.delegation.rulings import act_of_getting_prompt
from registry.cards.card import Family, Registration
from registry.store import UnknownName

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ServerPrompt:
    """A prompt of an MCP server under its own name."""

    server: str
    prompt: str


class PromptCatalogue:
    """Lists and resolves prompts. `server_path` is the path after /mcp/, as in ToolCatalogue."""

    def __init__(self, visible_entries: VisibleEntries, separator: str) -> None:
        self._visible_entries = visible_entries
        self._separator = separator

    async def list_definitions(self, caller: Caller, server_path: str, length: int | None = None) -> Sequence[Raw]:
        """Returns the encoded prompts that the caller may get, in a stable order: the first `length`, or all. Raises UnknownName."""
        return await self._visible_entries.find_or_make_list(caller, "prompts", server_path, self.candidates, length)

    async def digest(self, caller: Caller, server_path: str) -> str:
        """Returns the digest of `list_definitions`. Raises UnknownName."""
        return await self._visible_entries.digest_of_list(caller, "prompts", server_path, self.candidates)

    def resolve(self, caller: Caller, server_path: str, name: str) -> ServerPrompt:
        """Returns the prompt of a name. Raises UnknownPrompt, UnknownName, NotReachable. ServerCalls rules on the call."""
        if server_path:
            view = self._visible_entries.view_of(caller, server_path)
            names = {shown: (entry, own) for entry in view.servers() for shown, own in self._names_in(view, entry).items()}
            entry, own = names.get(name, (None, ""))
            away = () if entry is not None or view.uses_own_names else self._visible_entries.list_unreachable(caller, server_path)
            for absent in away:
                if absent.family is Family.SERVER and name in self._names_in(view, absent):
                    raise self._visible_entries.unreachable_error(absent)
        else:
            entry, own = self._find_by_public_name(caller, name)
        if entry is None:
            raise UnknownPrompt
        return ServerPrompt(entry.name, own)

    def _find_by_public_name(self, caller: Caller, name: str) -> tuple[Registration | None, str]:
        try:
            entry = self._visible_entries.find_server(caller, entry_name_of(name, self._separator))
        except UnknownName:
            return None, ""
        own = public_names(entry.name, [prompt.name for prompt in entry.prompts], self._separator).get(name)
        return (entry, own) if own is not None else (None, "")

    def _names_in(self, view: EndpointView, entry: Registration) -> Mapping[str, str]:
        """Returns own names by the names at this endpoint."""
        own = [prompt.name for prompt in entry.prompts]
        if view.uses_own_names:
            return {name: name for name in own}
        names = public_names(entry.name, own, self._separator)
        if view.selection is None:
            return names
        chosen = {name: inner for name, inner in names.items() if view.has_prompt(f"{entry.name}.{inner}")}
        aliases = view.selection.aliases
        return {view.selection.alias_of(f"{entry.name}.{inner}") or avoid_alias(name, aliases): inner for name, inner in chosen.items()}

    def candidates(self, caller: Caller, place: str) -> Iterator[Raw | None]:
        """Yields the definition of each prompt, or None for one that the caller may not get. Raises UnknownName."""
        view = self._visible_entries.view_of(caller, place)
        for entry in view.servers():
            definitions = {prompt.name: prompt.definition for prompt in entry.prompts}
            for name, own in self._names_in(view, entry).items():
                if not self._visible_entries.could_allow(caller, entry, act_of_getting_prompt(entry.name, own)):
                    yield None
                    continue
                definition = definitions[own] if view.uses_own_names else rewrite_document(entry.name, definitions[own])
                yield Raw(encode({**definition, "name": name}))
            yield None  # an entry without prompts takes time too
