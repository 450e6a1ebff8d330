"""Builds memory: its store, the rights on it, its routes and its built-in server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.tool_servers import BuiltInServer
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.handoff import FindFacts
from gateway.server.composition.built_in.servers import BuiltInOffer
from gateway.server.settings import Settings
from gateway.state.memory.access import MemoryAccess, MemoryRights
from gateway.state.memory.contexts import ContextAccess
from gateway.state.memory.documents import fact_document
from gateway.state.memory.quarantine import MemoryQuarantines
from gateway.state.memory.reading import FactReader
from gateway.state.memory.store import FactStore
from gateway.tasks.contexts import ContextReader
from gateway.tasks.log import to_rfc3339
from gateway.tasks.turns.stores import TaskStores
from policies.authority import Authority
from policies.delegation.rulings import Grant
from registry.store import Registry


@dataclass(frozen=True, slots=True)
class Memory:
    """What the process has of memory."""

    store: FactStore
    access: MemoryAccess
    contexts: ContextAccess
    quarantines: MemoryQuarantines


def build_memory(settings: Settings, stores: TaskStores, registry: Registry, authority: Authority, authorizer: CallAuthorizer) -> Memory:
    """Builds the memory of a process."""
    database, audit, now = stores.database, stores.audit, stores.now
    store = FactStore(database, audit, new_id=stores.new_id, now=now, facts_max=settings.memory.facts)
    rights = MemoryRights(authorizer, authority.could_allow, registry.clearance_of)
    contexts = ContextAccess(ContextReader(database, stores.tasks), rights)
    return Memory(store, MemoryAccess(store, FactReader(database), rights), contexts, MemoryQuarantines(database, audit, now))


def facts_finder(find: Callable[[], Memory]) -> FindFacts:
    """Returns what finds facts for hand-offs. `find` returns the memory of the process, which is built after the calls."""

    async def find_facts(grant: Grant, text: str) -> list[dict[str, Any]]:
        return [fact_document(fact, to_rfc3339, is_for_agent=True) for fact in await find().access.find_related(grant, text)]

    return find_facts


def offer_memory(settings: Settings, find: Callable[[], Memory]) -> tuple[BuiltInOffer, ...]:
    """The server `memory`, where the settings offer it. `find` returns the memory of the process, which is built after the registry."""
    if not is_memory_offered(settings):
        return ()
    from gateway.ingress.built_in.memory import build_memory_server, memory_registration

    def build() -> BuiltInServer:
        memory = find()
        return build_memory_server(memory.access, memory.contexts)

    return (BuiltInOffer(memory_registration(), build),)


def is_memory_offered(settings: Settings) -> bool:
    """Whether memory is offered to MCP clients: where the settings say so, or a role mentions it."""
    if settings.memory.server != "auto":
        return settings.memory.server == "on"
    return any(text.startswith("memory:") for texts in settings.roles.values() for text in texts)
