"""Hand-off between agents: checks an agent's output against its contract, and adds a summary of the calling task to a message."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol, cast

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
    RejectedArtifact,
    Replied,
    Turn,
    VendorRef,
    Watcher,
)
from adapters.task import Artifact, Message, Part, Role, Task, encode
from adapters.vendors.sdk.agent import VendorOptions, user_id
from gateway.tasks.contexts import PERSON_SPEAKER, spoken_texts
from gateway.tasks.contracts.skills import CONTRACT_BROKEN, find_breach
from gateway.tasks.events.chunks import PieceJoiner
from gateway.tasks.log import TaskLog, TaskRecord, TaskRow, UnknownTask
from gateway.tasks.turns.journal import DEFAULT_TURN_LIMITS, PartCounts, TurnLimits
from gateway.tasks.turns.recorder import TURN_TOO_LONG, TURN_TOO_LONG_TEXT
from policies.delegation.rulings import Grant
from registry.cards.card import FEATURES, Registration, strip_hidden
from registry.cards.republish import SKILL_SELECTION

CONTEXT_KEY: Final = "urn:interlock:a2a:context:1"  # in the metadata of a message to an A2A agent, else the member of a data part
CONTEXT_SUMMARY: Final = "summary"
NO_MEMORY: Final = "none"
TEXTS_MAX: Final = 8
TEXT_MAX: Final = 500  # characters of each


class FindFacts(Protocol):
    """Returns facts of the person that the callee of a grant acts for, which have words of a text and which the callee may read."""

    async def __call__(self, grant: Grant, text: str, /) -> Sequence[Mapping[str, Any]]: ...


class AuthorizedCall(Protocol):
    """A call with its ruling: gateway/calls/agent_requests.py has all of it."""

    @property
    def grant(self) -> Grant: ...

    @property
    def target(self) -> Registration: ...

    @property
    def row(self) -> TaskRow: ...


class ContractEnforcingAdapter:
    """Wraps the adapter of an agent with an output contract. Releases the agent's artifacts only when all of them meet the contract."""

    def __init__(self, inner: Adapter, schema: Mapping[str, Any], limits: TurnLimits = DEFAULT_TURN_LIMITS) -> None:
        self._inner = inner
        self._schema = schema
        self._limits = limits

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        is_continued = bool(turn.ref and turn.ref.task_id)
        async with aclosing(self._enforce(self._inner.run(turn, call), is_continued)) as events:
            async for event in events:
                yield event

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Reattaches the wrapped adapter; the caller has received nothing of the answer yet. Raises CannotReattach."""
        if not isinstance(self._inner, Reattachable):
            raise CannotReattach
        async with aclosing(self._enforce(self._inner.reattach(turn, known, call), is_continued=bool(known.artifacts))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return await self._inner.cancel(ref, call)

    async def _enforce(self, events: AsyncIterator[Event], is_continued: bool) -> AsyncGenerator[Event, None]:
        held: list[PieceJoiner] = []
        size, counts = 0, PartCounts()
        async with aclosing(cast("AsyncGenerator[Event, None]", events)) as arriving:
            async for event in arriving:
                if isinstance(event, ArtifactPiece):
                    size += len(encode(event.artifact)) + len(encode(event.metadata))
                    many = counts.count_piece(event)
                    if many and held and held[-1].can_join(event):
                        held[-1].join(event)
                    else:
                        held.append(PieceJoiner(event))
                    if len(held) <= self._limits.events_max and size <= self._limits.bytes_max:
                        continue
                    event = Failed(TURN_TOO_LONG_TEXT, kind=TURN_TOO_LONG)
                if type(event) not in ENDINGS:
                    yield event
                    continue
                for each in self._release_or_fail([piece.joined_piece() for piece in held], event, is_continued):
                    yield each
                return

    def _release_or_fail(self, held_pieces: list[ArtifactPiece], ending: Event, is_continued: bool) -> Iterator[Event]:
        """Yields the held artifacts and the ending if they meet the contract, else rejected artifacts for the log and a failure."""
        broken = ""
        if isinstance(ending, Ask | Done | Replied):
            broken = self._find_breach(held_pieces, ending, is_data_required=not (is_continued or isinstance(ending, Ask)))
        if not broken and isinstance(ending, Ask | Done | Replied):
            yield from held_pieces
            yield ending
            return
        for piece in held_pieces:
            yield RejectedArtifact(piece.artifact)
        if broken and isinstance(ending, Done | Replied) and ending.message is not None:
            yield RejectedArtifact(Artifact("message", ending.message.parts))
        yield Failed(broken, kind=CONTRACT_BROKEN) if broken else ending

    def _find_breach(self, held_pieces: list[ArtifactPiece], ending: Ask | Done | Replied, is_data_required: bool) -> str:
        parts_by_artifact: dict[str, tuple[Part, ...]] = {}
        for piece in held_pieces:
            key = piece.artifact.artifact_id
            parts_by_artifact[key] = (parts_by_artifact.get(key, ()) if piece.append else ()) + piece.artifact.parts
        places = [(f"artifacts[{at}].", parts) for at, parts in enumerate(parts_by_artifact.values())]
        if isinstance(ending, Done | Replied) and ending.message is not None:
            places.append(("message.", ending.message.parts))
        if is_data_required and all(part.data is UNSET for _, parts in places for part in parts):
            return "The agent broke its contract: its answer has no data part."
        for place, parts in places:
            if (breach := find_breach(self._schema, parts)) is not None:
                return f"The agent broke its contract: {place}{breach.path} {breach.text}."
        return ""


class ContractEnforcingWatcher(ContractEnforcingAdapter):
    """Wraps an adapter that is also a Watcher."""

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """Yields the events of a waiting task that the wrapped adapter reports; none if the task still waits or its state is unknown."""
        inner = cast("Watcher", self._inner)
        async with aclosing(self._enforce(inner.watch(ref, call), is_continued=True)) as events:
            async for event in events:
                yield event


def enforce_contract(inner: Adapter, schema: Mapping[str, Any], limits: TurnLimits = DEFAULT_TURN_LIMITS) -> Adapter:
    """Wraps an adapter; the result is a Watcher if `inner` is one. `limits` bound the output that is held until the turn ends."""
    return (ContractEnforcingWatcher if isinstance(inner, Watcher) else ContractEnforcingAdapter)(inner, schema, limits)


async def skill_begun_with(tasks: TaskLog, row: TaskRow) -> str:
    """Returns the id of the skill that the first message of a task selected, or an empty text."""
    try:
        record = await tasks.read_record(row.tenant, row.owner, row.id)
    except UnknownTask:
        return ""
    first = next((event for event in record.events if event.kind == "message"), None)
    metadata = first.message.metadata if first is not None else UNSET
    chosen = metadata.get(SKILL_SELECTION) if isinstance(metadata, dict) else None
    return str(chosen.get("skillId", "")) if isinstance(chosen, dict) else ""


def without_gateway_context(message: Message) -> Message:
    """Returns the message without the context member, which only the gateway may set."""
    if message.metadata is UNSET or CONTEXT_KEY not in message.metadata:
        return message
    return replace(message, metadata=metadata_without_gateway_context(message.metadata) or UNSET)


def metadata_without_gateway_context(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the metadata without the context member, which only the gateway may set."""
    if CONTEXT_KEY not in metadata:
        return metadata
    return {name: value for name, value in metadata.items() if name != CONTEXT_KEY}


async def with_gateway_context(tasks: TaskLog, call: AuthorizedCall, message: Message, find_facts: FindFacts) -> Message:
    """Returns the message with a summary of the texts of the task that caused it; unchanged if no task did.

    The caller's delegation names that task. It is read with the person's tenant and owner, so tasks of other people are not found. An
    agent that uses memory also gets facts of the person that have words of the message.
    """
    target, grant, row = call.target, call.grant, call.row
    if not row.parent_id:
        return message
    try:
        record = await tasks.read_record(row.tenant, row.owner, row.parent_id)
    except UnknownTask:
        return message
    summary = _context_summary(record, target, grant)
    if target.memory != NO_MEMORY:
        summary["facts"] = await find_facts(grant, "\n".join(part.text for part in message.parts if isinstance(part.text, str)))
    if FEATURES in target.facts:
        return replace(message, parts=(*message.parts, Part(data={CONTEXT_KEY: summary}, media_type="application/json")))
    metadata = {} if message.metadata is UNSET else message.metadata
    return replace(message, metadata={**metadata, CONTEXT_KEY: summary}, extensions=(*message.extensions, CONTEXT_KEY))


def _context_summary(record: TaskRecord, target: Registration, grant: Grant) -> dict[str, Any]:
    path, principal = grant.delegation.path, grant.delegation.principal
    asker = path[-3].agent if len(path) > 2 else PERSON_SPEAKER
    known = FEATURES not in target.facts and target.delegation != "none"  # the agent's token names the person
    texts_by_speaker = [(asker if role is Role.USER else record.row.agent, text) for role, text in spoken_texts(record.events)]
    return {
        "from": record.row.agent,
        "onBehalfOf": principal.subject if known else user_id(principal, VendorOptions()),
        "taskId": record.row.id,
        "messages": [{"speaker": who, "text": strip_hidden(text)[:TEXT_MAX]} for who, text in texts_by_speaker[-TEXTS_MAX:]],
    }


_: type[Adapter] = ContractEnforcingAdapter
