"""The prompts a caller has. One rule decides what is listed and what can be got."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from gateway.ingress.http.errors import UnknownPrompt
from gateway.ingress.mcp_server.catalogue.names import exposed, owner_of, unlike
from gateway.ingress.mcp_server.catalogue.uris import document_outward
from gateway.ingress.mcp_server.catalogue.visible import Offers, Place
from policies.callers import Caller
from policies.delegation.rulings import getting
from registry.cards.card import Family, Registration
from registry.store import UnknownName

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ServerPrompt:
    """A prompt of an MCP server under its own name."""

    server: str
    prompt: str


class Prompts:
    """Lists and resolves. `place` as in Tools."""

    def __init__(self, offers: Offers, separator: str) -> None:
        self._offers = offers
        self._separator = separator

    def listed(self, caller: Caller, place: str) -> Sequence[Raw]:
        """Definitions of every prompt the caller may get, encoded, in a stable order. Raises UnknownName."""
        return self._offers.remembered(
            caller, "prompts", place, lambda: [text for text in self.candidates(caller, place) if text is not None]
        )

    def resolve(self, caller: Caller, place: str, name: str) -> ServerPrompt:
        """What a name means. Raises UnknownPrompt, UnknownName, NotReachable; whether it may be got is the broker's question."""
        if place:
            here = self._offers.place(caller, place)
            names = {shown: (entry, own) for entry in here.servers() for shown, own in self._names(here, entry).items()}
            entry, own = names.get(name, (None, ""))
            away = () if entry is not None or here.own else self._offers.away(caller, place)
            for absent in away:
                if absent.family is Family.SERVER and name in self._names(here, absent):
                    raise self._offers.absent(absent)
        else:
            entry, own = self._exposed(caller, name)
        if entry is None:
            raise UnknownPrompt
        return ServerPrompt(entry.name, own)

    def _exposed(self, caller: Caller, name: str) -> tuple[Registration | None, str]:
        try:
            entry = self._offers.server(caller, owner_of(name, self._separator))
        except UnknownName:
            return None, ""
        own = exposed(entry.name, [prompt.name for prompt in entry.prompts], self._separator).get(name)
        return (entry, own) if own is not None else (None, "")

    def _names(self, here: Place, entry: Registration) -> Mapping[str, str]:
        """Name there -> own name."""
        own = [prompt.name for prompt in entry.prompts]
        if here.own:
            return {name: name for name in own}
        names = exposed(entry.name, own, self._separator)
        if here.selection is None:
            return names
        chosen = {name: inner for name, inner in names.items() if here.has_prompt(f"{entry.name}.{inner}")}
        aliases = here.selection.aliases
        return {here.selection.alias_of(f"{entry.name}.{inner}") or unlike(name, aliases): inner for name, inner in chosen.items()}

    def candidates(self, caller: Caller, place: str) -> Iterator[Raw | None]:
        """Yields the definition of each prompt, or None for one that the caller may not get. Raises UnknownName."""
        here = self._offers.place(caller, place)
        for entry in here.servers():
            definitions = {prompt.name: prompt.definition for prompt in entry.prompts}
            for name, own in self._names(here, entry).items():
                if not self._offers.may(caller, entry, getting(entry.name, own)):
                    yield None
                    continue
                definition = definitions[own] if here.own else document_outward(entry.name, definitions[own])
                yield Raw(encode({**definition, "name": name}))
