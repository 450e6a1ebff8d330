"""Builds the registry with the servers that the gateway offers itself, and these servers at their first request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from adapters.tool_servers import BuiltInServer
from gateway.server.composition.built_in.sandbox import OfferedSandbox
from gateway.storage.database import Database, raise_epoch
from policies.ids import new_id, now_us
from policies.vault.envelope import EnvelopeEncryption
from registry.cards.card import Registration
from registry.rows import RegistrationRows
from registry.store import Registry


@dataclass(frozen=True, slots=True)
class BuiltInOffer:
    """A server that the gateway offers. `build` is called at its first request, and imports what only that server needs."""

    registration: Registration
    build: Callable[[], BuiltInServer]


class BuiltInServers:
    """The offered servers, by name. Each is built once."""

    def __init__(self, sandbox: OfferedSandbox | None, offers: Sequence[BuiltInOffer]) -> None:
        self.sandbox = sandbox
        self._offers = {offer.registration.name: offer for offer in offers}
        self._servers: dict[str, BuiltInServer] = {}

    @property
    def registrations(self) -> tuple[Registration, ...]:
        own = (self.sandbox.registration,) if self.sandbox is not None else ()
        return *own, *(offer.registration for offer in self._offers.values())

    def find(self, name: str) -> BuiltInServer:
        """The server of a name that is among the registrations."""
        if name not in self._servers:
            self._servers[name] = self._offers[name].build()
        return self._servers[name]


def build_registry(
    database: Database, record: Callable[[Any, Mapping[str, Any]], None], envelope: EnvelopeEncryption, built_in: Sequence[Registration]
) -> Registry:
    """Builds the registry, which has the built-in servers in every tenant. `record` writes the audit record of a change in its commit."""
    rows = RegistrationRows(envelope)
    return Registry(database, partial(raise_epoch, name="registry"), new_id, now_us, record, rows=rows, built_in=built_in)
