"""The resources a caller has. One permission per server decides what is listed, read, completed and subscribed to."""

from dataclasses import dataclass
from typing import Any

from gateway.errors import UnknownResource
from gateway.mcp_server.offers import Offers
from gateway.mcp_server.uris import document_outward, inward
from policies.authority import Caller
from policies.grant import reading
from registry.card import Registration, Resource, Template
from registry.store import UnknownName


@dataclass(frozen=True, slots=True)
class ServerResource:
    """A resource of an MCP server under its own address, or a template under its own text."""

    server: str
    uri: str


class Resources:
    """Lists and resolves. With a `server` only that server's resources, under their own addresses."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers

    def listed(self, caller: Caller, server: str) -> list[dict[str, Any]]:
        """Definitions of every listed resource that the caller may read, in a stable order. Raises UnknownName."""
        return [shown for entry in self._entries(caller, server) for shown in _shown(entry, entry.resources, server)]

    def templates(self, caller: Caller, server: str) -> list[dict[str, Any]]:
        """The same of templates."""
        return [shown for entry in self._entries(caller, server) for shown in _shown(entry, entry.templates, server)]

    def resolve(self, caller: Caller, server: str, uri: str) -> ServerResource:
        """What an address means; a server may have resources that it does not list.

        Raises UnknownResource, UnknownName; whether it may be read is the broker's question.
        """
        if server:
            return ServerResource(self._offers.known(caller, server).name, uri)
        owner, own = inward(uri)
        try:
            return ServerResource(self._offers.server(caller, owner).name, own)
        except UnknownName:
            raise UnknownResource from None

    def _entries(self, caller: Caller, server: str) -> list[Registration]:
        entries = [self._offers.known(caller, server)] if server else self._offers.servers(caller)
        return [entry for entry in entries if self._offers.may(caller, entry, reading(entry.name))]


def _shown(entry: Registration, offered: tuple[Resource, ...] | tuple[Template, ...], server: str) -> list[dict[str, Any]]:
    return [dict(each.definition) if server else document_outward(entry.name, each.definition) for each in offered]
