"""The resources a caller has. One permission per server decides what is listed, read, completed and subscribed to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from gateway.ingress.http.errors import UnknownResource
from gateway.ingress.mcp_server.catalogue.uris import document_outward, inward
from gateway.ingress.mcp_server.catalogue.visible import Offers, own_names
from policies.callers import Caller
from policies.delegation.rulings import reading
from registry.cards.card import Registration, Resource, Template
from registry.store import UnknownName

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ServerResource:
    """A resource of an MCP server under its own address, or a template under its own text."""

    server: str
    uri: str


class Resources:
    """Lists and resolves. `place` as in Tools."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers

    def listed(self, caller: Caller, place: str) -> Sequence[Raw]:
        """Definitions of every listed resource that the caller may read, encoded, in a stable order. Raises UnknownName."""
        return self._offers.remembered(caller, "resources", place, lambda: list(self.permitted(caller, place, "resources")))

    def templates(self, caller: Caller, place: str) -> Sequence[Raw]:
        """The same of templates."""
        return self._offers.remembered(caller, "templates", place, lambda: list(self.permitted(caller, place, "templates")))

    def resolve(self, caller: Caller, place: str, uri: str) -> ServerResource:
        """What an address means; a server may have resources that it does not list, but none that is withheld.

        Raises UnknownResource, UnknownName; whether it may be read is the broker's question.
        """
        if own_names(place):
            entry, own = self._offers.place(caller, place).entries[0], uri
        else:
            owner, own = inward(uri)
            entry = self._server(caller, owner)
            if place and not self._offers.place(caller, place).has_resource(entry.name, own):
                raise UnknownResource
        if any(one.name == own and one.kind in ("resources", "templates") and one.after is not None for one in entry.withheld):
            raise UnknownResource
        return ServerResource(entry.name, own)

    def _server(self, caller: Caller, name: str) -> Registration:
        try:
            return self._offers.server(caller, name)
        except UnknownName:
            raise UnknownResource from None

    def permitted(self, caller: Caller, place: str, kind: str) -> Iterator[Raw]:
        """Yields the definitions of `resources` or `templates` that the caller may read. Raises UnknownName."""
        here = self._offers.place(caller, place)
        for entry in here.servers():
            offered: Sequence[Resource | Template] = entry.resources if kind == "resources" else entry.templates
            if offered and self._offers.may(caller, entry, reading(entry.name)):
                for each in offered:
                    if here.has_resource(entry.name, each.uri):
                        yield Raw(encode(each.definition if here.own else document_outward(entry.name, each.definition)))
