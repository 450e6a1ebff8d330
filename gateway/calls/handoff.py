"""Hand-off between agents: what one gave is held against its contract before anybody gets it, and the next hears what was said before."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final, cast

from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import (
    ENDINGS,
    Adapter,
    ArtifactPiece,
    Ask,
    Call,
    CannotReattach,
    Done,
    Event,
    Failed,
    Reattachable,
    Replied,
    Turn,
    VendorRef,
    Watcher,
    Withheld,
)
from adapters.task import Artifact, Message, Part, Role, Task, TaskState, encode
from adapters.vendors.sdk.agent import VendorOptions, user_id
from gateway.tasks.contracts.skills import BROKEN, problem
from gateway.tasks.events.chunks import Joined, PartCounts
from gateway.tasks.log import TaskLog, TaskRecord, TaskRow, UnknownTask
from gateway.tasks.turns.journal import USUAL, TurnLimits
from gateway.tasks.turns.store import TOO_LONG, TOO_LONG_SAYS
from gateway.tasks.turns.transitions import ERROR
from policies.delegation.rulings import Grant
from registry.cards.card import FEATURES, Registration, visible
from registry.cards.republish import SKILL_SELECTION

CONTEXT: Final = "urn:interlock:a2a:context:1"  # in the metadata of a message to an A2A agent, else the member of a data part
SUMMARY: Final = "summary"
TEXTS_MAX: Final = 8
TEXT_MAX: Final = 500  # characters of each
PERSON: Final = "person"


class Contracted:
    """An Adapter around one whose agent has a contract for what it gives: nothing of it is handed on before all of it fits."""

    def __init__(self, inner: Adapter, schema: Mapping[str, Any], limits: TurnLimits = USUAL) -> None:
        self._inner = inner
        self._schema = schema
        self._limits = limits

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        goes_on = bool(turn.ref and turn.ref.task_id)
        async with aclosing(self._checked(self._inner.run(turn, call), goes_on)) as events:
            async for event in events:
                yield event

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """As the adapter inside: nothing of the answer was handed on before."""
        if not isinstance(self._inner, Reattachable):
            raise CannotReattach
        async with aclosing(self._checked(self._inner.reattach(turn, known, call), goes_on=bool(known.artifacts))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return await self._inner.cancel(ref, call)

    async def _checked(self, events: AsyncIterator[Event], goes_on: bool) -> AsyncGenerator[Event, None]:
        held: list[Joined] = []
        size, counts = 0, PartCounts()
        async with aclosing(cast("AsyncGenerator[Event, None]", events)) as arriving:
            async for event in arriving:
                if isinstance(event, ArtifactPiece):
                    size += len(encode(event.artifact)) + len(encode(event.metadata))
                    many = counts.add(event)
                    if many and held and held[-1].takes(event):
                        held[-1].join(event)
                    else:
                        held.append(Joined(event))
                    if len(held) <= self._limits.events and size <= self._limits.size:
                        continue
                    event = Failed(TOO_LONG_SAYS, kind=TOO_LONG)
                if not isinstance(event, ENDINGS):
                    yield event
                    continue
                for each in self._settled([piece.all() for piece in held], event, goes_on):
                    yield each
                return

    def _settled(self, held: list[ArtifactPiece], ending: Event, goes_on: bool) -> Iterator[Event]:
        """What was held back, when it fits; else a failure in the place of the ending, with all of it for the record alone."""
        broken = ""
        if isinstance(ending, Ask | Done | Replied):
            broken = self._broken(held, ending, needed=not (goes_on or isinstance(ending, Ask)))
        if not broken and isinstance(ending, Ask | Done | Replied):
            yield from held
            yield ending
            return
        for piece in held:
            yield Withheld(piece.artifact)
        if broken and isinstance(ending, Done | Replied) and ending.message is not None:
            yield Withheld(Artifact("message", ending.message.parts))
        yield Failed(broken, kind=BROKEN) if broken else ending

    def _broken(self, held: list[ArtifactPiece], ending: Ask | Done | Replied, needed: bool) -> str:
        given: dict[str, tuple[Part, ...]] = {}
        for piece in held:
            key = piece.artifact.artifact_id
            given[key] = (given.get(key, ()) if piece.append else ()) + piece.artifact.parts
        places = [(f"artifacts[{at}].", parts) for at, parts in enumerate(given.values())]
        if isinstance(ending, Done | Replied) and ending.message is not None:
            places.append(("message.", ending.message.parts))
        if needed and all(part.data is UNSET for _, parts in places for part in parts):
            return "The agent broke its contract: its answer has no data part."
        for place, parts in places:
            if (found := problem(self._schema, parts)) is not None:
                return f"The agent broke its contract: {place}{found[0]} breaks the rule `{found[1]}`."
        return ""


class ContractedWatcher(Contracted):
    """The same around an adapter that is a Watcher too."""

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """As the adapter inside: nothing as long as the task waits, or where nobody knows."""
        inner = cast("Watcher", self._inner)
        async with aclosing(self._checked(inner.watch(ref, call), goes_on=True)) as events:
            async for event in events:
                yield event


def contracted(inner: Adapter, schema: Mapping[str, Any], limits: TurnLimits = USUAL) -> Adapter:
    """A Watcher only where the adapter inside is one. An agent may give no more than `limits` before it ends its turn."""
    return (ContractedWatcher if isinstance(inner, Watcher) else Contracted)(inner, schema, limits)


async def skill_of(tasks: TaskLog, row: TaskRow) -> str:
    """Of a task that goes on: the one that it was begun for."""
    try:
        record = await tasks.record(row.tenant, row.owner, row.id)
    except UnknownTask:
        return ""
    first = next((event for event in record.events if event.kind == "message"), None)
    metadata = first.message.metadata if first is not None else UNSET
    chosen = metadata.get(SKILL_SELECTION) if isinstance(metadata, dict) else None
    return str(chosen.get("skillId", "")) if isinstance(chosen, dict) else ""


def plain(message: Message) -> Message:
    """Without what only the gateway says: nobody else tells an agent what was said before."""
    if message.metadata is UNSET or CONTEXT not in message.metadata:
        return message
    return replace(message, metadata=without(message.metadata) or UNSET)


def without(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The same of metadata."""
    if metadata is None or CONTEXT not in metadata:
        return cast("dict[str, Any] | None", metadata)
    return {name: value for name, value in metadata.items() if name != CONTEXT}


async def with_context(tasks: TaskLog, target: Registration, grant: Grant, row: TaskRow, message: Message) -> Message:
    """A message with what was said in the task that caused it, as far as it may be told; unchanged where no task did.

    The caller's own delegation names that task, and it is read as the person's: another's, or one of another chain, is not found.
    """
    if not row.parent_id:
        return message
    try:
        record = await tasks.record(row.tenant, row.owner, row.parent_id)
    except UnknownTask:
        return message
    summary = _summary(record, target, grant)
    if FEATURES in target.facts:
        return replace(message, parts=(*message.parts, Part(data={CONTEXT: summary}, media_type="application/json")))
    metadata = {} if message.metadata is UNSET else message.metadata
    return replace(message, metadata={**metadata, CONTEXT: summary}, extensions=(*message.extensions, CONTEXT))


def _summary(record: TaskRecord, target: Registration, grant: Grant) -> dict[str, Any]:
    path, principal = grant.delegation.path, grant.delegation.principal
    asker = path[-3].agent if len(path) > 2 else PERSON
    known = FEATURES not in target.facts and target.delegation != "none"  # its token names the person
    said = [(asker if role is Role.USER else record.row.agent, text) for role, text in _texts(record)]
    return {
        "from": record.row.agent,
        "onBehalfOf": principal.subject if known else user_id(principal, VendorOptions()),
        "taskId": record.row.id,
        "messages": [{"speaker": who, "text": visible(text)[:TEXT_MAX]} for who, text in said[-TEXTS_MAX:]],
    }


def _texts(record: TaskRecord) -> Iterator[tuple[Role, str]]:
    """What was said in a task, in words: no data, no files, no artifacts, and nothing of what the gateway says itself."""
    for event in record.events:
        message: Any = None
        if event.kind == "message":
            message = event.message
        elif event.kind == "status":
            status = event.status
            message = None if status.state is TaskState.AUTH_REQUIRED else status.message
        if not isinstance(message, Message) or (message.metadata is not UNSET and ERROR in message.metadata):
            continue
        text = "\n".join(part.text for part in message.parts if isinstance(part.text, str))
        if text:
            yield message.role, text


_: type[Adapter] = Contracted
