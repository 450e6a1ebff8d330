"""Builds the board of shared state, at the first request that needs it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import column, select, table

from adapters.tool_servers import BuiltInServer
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.server_calls import ServerCalls
from gateway.concurrency.built_once import BuiltOnce
from gateway.events.recorder import EventRecorder
from gateway.server.composition.access.ruled_writes import authorize_and_write
from gateway.server.composition.built_in.servers import BuiltInOffer
from gateway.server.settings import BadSettings, Settings
from gateway.storage.database import Batch
from gateway.tasks.turns.stores import TaskStores
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from registry.cards.built_in import build_built_in_registration
from registry.cards.card import BUILT_IN_KIND
from registry.store import Registry

if TYPE_CHECKING:
    from gateway.server.sections.state import PrefixSettings
    from gateway.state.board.feed import BoardFeed
    from gateway.state.board.held_values.decisions import HeldValues
    from gateway.state.board.operations import Board
    from gateway.state.board.pruning import BoardPruning
    from gateway.state.board.rules import PrefixRule, PrefixRules
    from gateway.state.board.store import BoardStore
    from gateway.state.schemas import CompiledSchema

T = TypeVar("T")
STATE = "state"
_COUNTERS = table("state_counters", column("tenant"))  # gateway/state/tables.py has the whole of it


class RecordedRulings:
    """The rulings of calls, as the board needs them."""

    def __init__(self, authorizer: CallAuthorizer, stores: TaskStores) -> None:
        self._authorizer = authorizer
        self._stores = stores

    async def authorize(self, caller: Caller, request: RulingRequest) -> Grant:
        return await self._authorizer.authorize_and_record(caller, request)

    async def authorize_and_write(self, caller: Caller, request: RulingRequest, write: Callable[[Batch, Grant], T]) -> T:
        return await authorize_and_write(self._authorizer, self._stores, caller, request, write)

    async def would_allow(self, caller: Caller, act: Act) -> bool:
        _, ruling = await self._authorizer.rule_only(caller, RulingRequest(act, caller.principal.tenant))
        return isinstance(ruling, Grant)


@dataclass(frozen=True, slots=True)
class BoardDependencies:
    """What the board needs of the process."""

    settings: Settings
    stores: TaskStores
    authorizer: CallAuthorizer
    server_calls: ServerCalls
    registry: Registry
    recorder: EventRecorder


class LazyBoard:
    """The board of one process. Nothing of it is imported before the first request, unless prefixes are configured."""

    def __init__(self, dependencies: BoardDependencies) -> None:
        self._dependencies = dependencies
        self.rulings = RecordedRulings(dependencies.authorizer, dependencies.stores)

    async def load(self) -> "Board":
        """What /api needs. The modules are imported in a thread, since that takes a while."""
        if "_board" in self.__dict__:
            return self._board
        return await asyncio.to_thread(lambda: self._board)

    async def load_held(self) -> "HeldValues":
        return await asyncio.to_thread(lambda: self._held)

    async def settling_write(self, caller: Caller, approval_id: str, decision_id: str) -> Callable[[Batch, bool], None]:
        """What a vote on the question about a held value writes. Raises UnknownHeldValue."""
        return await (await self.load_held()).settling_write(caller, approval_id, decision_id)

    def build_tools(self) -> BuiltInServer:
        """The server `state`."""
        from gateway.ingress.built_in.state_tools import StateTools

        return StateTools(self._board).build_server()

    async def prune(self) -> None:
        """Deletes expired values and old history of all tenants, if any tenant has ever used the board."""
        query = select(_COUNTERS.c.tenant).limit(1)
        if await self._dependencies.stores.database.read(lambda connection: connection.execute(query).first()) is not None:
            await (await asyncio.to_thread(lambda: self._pruning)).run_once()

    @BuiltOnce
    def _store(self) -> "BoardStore":
        from gateway.state.board.counters import BoardLimits
        from gateway.state.board.store import BoardStore

        settings, stores = self._dependencies.settings.state, self._dependencies.stores
        limits = BoardLimits(settings.keys_max, settings.bytes_max, settings.changes_per_key)
        return BoardStore(stores.database, stores.now, limits, self._dependencies.recorder)

    @BuiltOnce
    def _rules(self) -> "PrefixRules":
        from gateway.state.board.rules import PrefixRules

        return PrefixRules([_rule_of(each) for each in self._dependencies.settings.state.prefixes], _compile_schema)

    @BuiltOnce
    def _feed(self) -> "BoardFeed":
        from gateway.state.board.feed import BoardFeed

        return BoardFeed(self._store)

    @BuiltOnce
    def _board(self) -> "Board":
        from gateway.ingress.built_in.backing import ServerBackingTools
        from gateway.state.board.operations import Board

        backing = ServerBackingTools(self._dependencies.server_calls, self._dependencies.registry)
        return Board(self._store, self.rulings, self._rules, self._feed, backing)

    @BuiltOnce
    def _held(self) -> "HeldValues":
        from gateway.state.board.held_values.decisions import HeldValues

        return HeldValues(self._store, self.rulings, self._rules, self._feed, self._dependencies.stores.audit)

    @BuiltOnce
    def _pruning(self) -> "BoardPruning":
        from gateway.state.board.pruning import BoardPruning

        return BoardPruning(self._store, self._dependencies.settings.state.history_days)


def offer_state(settings: Settings, build: Callable[[], BuiltInServer]) -> tuple[BuiltInOffer, ...]:
    """The server `state`, where the settings offer it. Raises BadSettings for a prefix that can't work."""
    check_prefixes(settings)
    if not is_state_offered(settings):
        return ()
    from gateway.ingress.built_in.state_definitions import DEFINITIONS, TEMPLATES

    return (BuiltInOffer(build_built_in_registration(STATE, BUILT_IN_KIND, DEFINITIONS, TEMPLATES), build),)


def is_state_offered(settings: Settings) -> bool:
    """Whether the board is offered to MCP clients: where the settings say so, or a role or a prefix mentions it."""
    if settings.state.server != "auto":
        return settings.state.server == "on"
    return bool(settings.state.prefixes) or any(text.startswith("state:") for texts in settings.roles.values() for text in texts)


def check_prefixes(settings: Settings) -> None:
    """Raises BadSettings where the schema of a prefix can't be used. Only then its library is loaded."""
    schemas = [each for each in settings.state.prefixes if each.value_schema is not None]
    if not schemas:
        return
    from gateway.state.schemas import BadSchemaOfPrefix, CompiledSchema

    for each in schemas:
        try:
            CompiledSchema(each.value_schema or {})
        except BadSchemaOfPrefix as error:
            raise BadSettings(f"state.prefixes.{each.prefix}.value_schema: {error}") from None


def _compile_schema(schema: Mapping[str, Any]) -> "CompiledSchema":
    from gateway.state.schemas import CompiledSchema

    return CompiledSchema(schema)


def _rule_of(settings: "PrefixSettings") -> "PrefixRule":
    from gateway.state.board.rules import Backing, PrefixRule

    backed = settings.backed_by
    backing = None if backed is None else Backing(backed.server, backed.read, backed.write, backed.arguments, backed.value, backed.result)
    return PrefixRule(
        settings.prefix,
        settings.owner,
        settings.value_schema,
        settings.ttl,
        settings.on_misfit,
        settings.sensitivity,
        backing,
        settings.ask_seconds,
    )
