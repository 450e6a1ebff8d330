"""What runs listen for: rows that receive events in the commit that stores them, so that a listening run needs no process."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, select

from gateway.events.own_types import OWN_TYPES
from gateway.storage.database import Batch, raise_epoch
from gateway.workflows.cloud_events.envelope import EVENT_TYPE
from gateway.workflows.cloud_events.progress import ListenProgress
from gateway.workflows.dsl.constructs import Consumption
from gateway.workflows.expressions.templates import expression_in
from gateway.workflows.interpreter.effects import Wanted
from gateway.workflows.runs.store import RunKey, RunStore, lock_run
from gateway.workflows.runs.tables import workflow_listen_types, workflow_listens, workflow_received, workflow_trigger_types

_OPEN: Final = (
    "INSERT INTO workflow_listens (tenant, run_id, key, filters, progress, lost, received, seen) "
    "VALUES (?, ?, ?, ?, '', 0, 0, 0) ON CONFLICT DO NOTHING"
)
_TYPE: Final = "INSERT INTO workflow_listen_types (tenant, type, run_id, key) VALUES (?, ?, ?, ?)"
_ADVANCE: Final = "UPDATE workflow_listens SET seen = ?, progress = ? WHERE tenant = ? AND run_id = ? AND key = ?"
_DROP: Final = "DELETE FROM workflow_received WHERE tenant = ? AND run_id = ? AND key = ? AND number = ?"
_CLOSE: Final = "DELETE FROM workflow_listens WHERE tenant = ? AND run_id = ? AND key = ?"
EPOCH: Final = "event-types"  # raised when a run or a workflow begins to wait for events of the gateway's own
PAGE_MAX: Final = 100  # events that are looked at before the progress is stored
_decode_progress = msgspec.json.Decoder(ListenProgress).decode


class GivenEvent(Struct, frozen=True):
    """An event that a listening step was given, with its number. `senders`: the sender, and the requesters of a service's run."""

    number: int
    event: dict[str, Any]
    senders: tuple[str, ...]


class Listening(Struct):
    """A listening step: the number of the last event that it looked at, what that settled, and the events of its result so far.

    `lost`: events that it was not given, since too many waited to be looked at. `senders`: of the events of its result.
    """

    seen: int
    lost: int
    progress: ListenProgress
    consumed: list[Mapping[str, Any]]
    senders: set[str]

    def add(self, given: GivenEvent) -> None:
        """Adds an event to the result."""
        self.consumed.append(given.event)
        self.senders.update(given.senders)


class Listens:
    """Opens, reads and closes what the steps of runs listen for."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.database = store.database

    async def open(self, run: RunKey, key: str, wanted: Wanted) -> "Listening":
        """How far a step has come. The step listens from the first call on. Raises RunTaken."""
        found = await self._store.database.read(lambda connection: _read(connection, run, key))
        return found if found is not None else await self._store.database.write(lambda batch: self._insert(batch, run, key, wanted))

    def _insert(self, batch: Batch, run: RunKey, key: str, wanted: Wanted) -> "Listening":
        lock_run(batch, run, self._store.process)
        filters = [literals_of(each) for each in _filters(wanted)]
        if batch.run(_OPEN, (run.tenant, run.id, key, msgspec.json.encode(filters).decode())):
            for kind in sorted(types_of(wanted)):
                batch.run(_TYPE, (run.tenant, kind, run.id, key))
            announce_types(batch, types_of(wanted))
        return _read(batch.connection, run, key) or Listening(0, 0, ListenProgress(), [], set())

    async def unread(self, run: RunKey, key: str, seen: int) -> list[GivenEvent]:
        """The next events after the number `seen`."""
        given = workflow_received.c
        mine = (given.tenant == run.tenant) & (given.run_id == run.id) & (given.key == key) & (given.number > seen)
        query = select(workflow_received).where(mine).order_by(given.number).limit(PAGE_MAX)
        return [_to_given(row) for row in await self._store.database.read(lambda connection: connection.execute(query).all())]

    async def advance(self, run: RunKey, key: str, listening: "Listening", dropped: Sequence[int]) -> None:
        """The run has looked at the events up to `listening.seen`, and keeps all but those that it drops. Raises RunTaken."""
        progress = msgspec.json.encode(listening.progress).decode()

        def work(batch: Batch) -> None:
            lock_run(batch, run, self._store.process)
            batch.run(_ADVANCE, (listening.seen, progress, run.tenant, run.id, key))
            for number in dropped:
                batch.run(_DROP, (run.tenant, run.id, key, number))

        await self._store.database.write(work)

    def closing_write(self, run: RunKey, key: str) -> Callable[[Batch], None]:
        """Ends the listening of a step, in the commit of its result."""

        def work(batch: Batch) -> None:
            batch.run(_CLOSE, (run.tenant, run.id, key))

        return work

    async def close(self, run: RunKey, key: str) -> None:
        """Ends the listening of a step whose result is not wanted any more."""
        await self._store.database.write(self.closing_write(run, key))


def announce_types(batch: Batch, kinds: Collection[str]) -> None:
    """Has every process record the gateway's own events of these types from now on."""
    if not OWN_TYPES.isdisjoint(kinds):
        raise_epoch(batch, EPOCH)


def read_listened(connection: Connection) -> set[tuple[str, str]]:
    """The tenants and types of the gateway's own events that runs listen for, and that start workflows."""
    found = set[tuple[str, str]]()
    for table in (workflow_listen_types.c, workflow_trigger_types.c):
        found |= {
            (row[0], row[1]) for row in connection.execute(select(table.tenant, table.type).where(table.type.in_(OWN_TYPES)).distinct())
        }
    return found


def types_of(wanted: Wanted) -> set[str]:
    """The types of events that could match; the empty text stands for every type."""
    kinds = {literal_type(each) for each in _filters(wanted)}
    return {""} if "" in kinds else kinds


def consumed_types(wanted: Consumption) -> set[str]:
    """The types of events that could match; the empty text stands for every type."""
    named = wanted.all or wanted.any or ([wanted.one] if wanted.one is not None else [])
    kinds = {literal_type(each.with_.model_dump(exclude_unset=True)) for each in named} or {""}
    if isinstance(wanted.until, Consumption):
        kinds |= consumed_types(wanted.until)
    return {""} if "" in kinds else kinds


def literal_type(attributes: Mapping[str, Any]) -> str:
    """The type that a filter names by a plain text; empty where it is any, or a condition."""
    kind = attributes.get("type")
    return kind if isinstance(kind, str) and EVENT_TYPE.fullmatch(kind) else ""


def _filters(wanted: Wanted) -> Iterator[Mapping[str, Any]]:
    """The attributes of each filter. A strategy without one takes every event."""
    if not wanted.filters:
        yield {}
    for each in wanted.filters:
        yield each.attributes
    if isinstance(wanted.until, Wanted):
        yield from _filters(wanted.until)


def literals_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that are compared as they are: all but expressions, which are evaluated later, and data."""
    return {
        name: value
        for name, value in attributes.items()
        if name != "data" and not (isinstance(value, str) and expression_in(value) is not None)
    }


def _read(connection: Connection, run: RunKey, key: str) -> "Listening | None":
    """How far a step has come, or None for one that does not listen yet."""
    listens, given = workflow_listens.c, workflow_received.c
    mine = (listens.tenant == run.tenant) & (listens.run_id == run.id) & (listens.key == key)
    row = connection.execute(select(listens.seen, listens.lost, listens.progress).where(mine)).first()
    if row is None:
        return None
    consumed = (given.tenant == run.tenant) & (given.run_id == run.id) & (given.key == key) & (given.number <= row.seen)
    progress = _decode_progress(row.progress) if row.progress else ListenProgress()
    found = Listening(row.seen, row.lost, progress, [], set())
    for each in connection.execute(select(workflow_received).where(consumed).order_by(given.number)):
        found.add(_to_given(each))
    return found


def _to_given(row: "Row[Any]") -> GivenEvent:
    return GivenEvent(row.number, msgspec.json.decode(row.event), tuple(msgspec.json.decode(row.senders)))
