"""The prompts a caller has. One rule decides what is listed and what can be got."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import UnknownPrompt
from gateway.mcp_server.names import exposed, owner_of
from gateway.mcp_server.offers import Offers
from gateway.mcp_server.uris import document_outward
from policies.authority import Caller
from policies.grant import getting
from registry.card import Registration
from registry.store import UnknownName


@dataclass(frozen=True, slots=True)
class ServerPrompt:
    """A prompt of an MCP server under its own name."""

    server: str
    prompt: str


class Prompts:
    """Lists and resolves. With a `server` only that server's prompts, under their own names."""

    def __init__(self, offers: Offers, separator: str) -> None:
        self._offers = offers
        self._separator = separator

    def listed(self, caller: Caller, server: str) -> list[dict[str, Any]]:
        """Definitions of every prompt the caller may get, in a stable order. Raises UnknownName."""
        if server:
            return [dict(each) for each in self._permitted(caller, self._offers.known(caller, server)).values()]
        found: list[dict[str, Any]] = []
        for entry in self._offers.servers(caller):
            permitted = self._permitted(caller, entry)
            names = self._exposed(entry)
            found += [{**document_outward(entry.name, permitted[own]), "name": name} for name, own in names.items() if own in permitted]
        return found

    def resolve(self, caller: Caller, server: str, name: str) -> ServerPrompt:
        """What a name means. Raises UnknownPrompt, UnknownName; whether it may be got is the broker's question."""
        if server:
            entry = self._offers.known(caller, server)
            if any(prompt.name == name for prompt in entry.prompts):
                return ServerPrompt(server, name)
            raise UnknownPrompt
        try:
            entry = self._offers.server(caller, owner_of(name, self._separator))
        except UnknownName:
            raise UnknownPrompt from None
        own = self._exposed(entry).get(name)
        if own is None:
            raise UnknownPrompt
        return ServerPrompt(entry.name, own)

    def _exposed(self, entry: Registration) -> Mapping[str, str]:
        return exposed(entry.name, [prompt.name for prompt in entry.prompts], self._separator)

    def _permitted(self, caller: Caller, entry: Registration) -> dict[str, Mapping[str, Any]]:
        may = self._offers.may
        return {prompt.name: prompt.definition for prompt in entry.prompts if may(caller, entry, getting(entry.name, prompt.name))}
