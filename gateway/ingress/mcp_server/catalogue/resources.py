"""The resources of a caller. One permission per server decides what is listed, read, completed and subscribed to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from msgspec import Raw

from gateway.ingress.http.errors import UnknownResource
from gateway.ingress.mcp_server.catalogue.uris import rewrite_document, split_public_uri
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries, uses_own_names
from policies.callers import Caller
from policies.delegation.rulings import act_of_reading_resource
from registry.cards.card import McpResource, McpResourceTemplate, Registration
from registry.store import UnknownName

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ServerResource:
    """A resource of an MCP server under its own URI, or a template under its own text."""

    server: str
    uri: str


class ResourceCatalogue:
    """Lists and resolves resources. `server_path` is the path after /mcp/, as in ToolCatalogue."""

    def __init__(self, visible_entries: VisibleEntries) -> None:
        self._visible_entries = visible_entries

    async def list_definitions(self, caller: Caller, server_path: str, length: int | None = None) -> Sequence[Raw]:
        """Returns the encoded definitions of all listed resources that the caller may read, in a stable order. Raises UnknownName."""
        return await self._find_or_make(caller, server_path, "resources", length)

    async def list_templates(self, caller: Caller, server_path: str, length: int | None = None) -> Sequence[Raw]:
        """Returns the encoded definitions of all resource templates that the caller may read, in a stable order. Raises UnknownName."""
        return await self._find_or_make(caller, server_path, "templates", length)

    async def digest(self, caller: Caller, server_path: str) -> str:
        """Returns a digest of `list_definitions` and `list_templates` together. Raises UnknownName."""
        digest_of_list = partial(self._visible_entries.digest_of_list, caller)
        digests = [await digest_of_list(kind, server_path, partial(self.candidates, kind=kind)) for kind in ("resources", "templates")]
        return " ".join(digests)

    def resolve(self, caller: Caller, server_path: str, uri: str) -> ServerResource:
        """Returns the resource of a URI. A server may have resources that it does not list; withheld ones are unknown.

        Raises UnknownResource, UnknownName. ServerCalls rules on the read.
        """
        if uses_own_names(server_path):
            entry, own = self._visible_entries.view_of(caller, server_path).entries[0], uri
        else:
            owner, own = split_public_uri(uri)
            entry = self._find_server(caller, owner)
            if server_path and not self._visible_entries.view_of(caller, server_path).has_resource(entry.name, own):
                raise UnknownResource
        if any(one.name == own and one.kind in ("resources", "templates") and one.after is not None for one in entry.withheld):
            raise UnknownResource
        return ServerResource(entry.name, own)

    def _find_server(self, caller: Caller, name: str) -> Registration:
        try:
            return self._visible_entries.find_server(caller, name)
        except UnknownName:
            raise UnknownResource from None

    async def _find_or_make(self, caller: Caller, server_path: str, kind: str, length: int | None) -> Sequence[Raw]:
        return await self._visible_entries.find_or_make_list(caller, kind, server_path, partial(self.candidates, kind=kind), length)

    def candidates(self, caller: Caller, server_path: str, kind: str) -> Iterator[Raw | None]:
        """Yields each definition of `resources` or `templates`, or None for one that the caller may not read. Raises UnknownName."""
        view = self._visible_entries.view_of(caller, server_path)
        for entry in view.servers():
            offered: Sequence[McpResource | McpResourceTemplate] = entry.resources if kind == "resources" else entry.templates
            if not offered or not self._visible_entries.could_allow(caller, entry, act_of_reading_resource(entry.name)):
                yield None
                continue
            for each in offered:
                if not view.has_resource(entry.name, each.uri):
                    yield None
                    continue
                yield Raw(encode(each.definition if view.uses_own_names else rewrite_document(entry.name, each.definition)))
