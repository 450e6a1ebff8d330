"""The agent's side of one turn: what it answers, read as the events of the contract. Pure: no network, no clock."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from msgspec import UnsetType, structs

from adapters.a2a_client.wire.tolerant import PeerEvent, UnknownState
from adapters.contract import ENDINGS, ArtifactPiece, Ask, Canceled, Done, Event, Failed, InvalidAnswer, Progress, Ref, Replied, VendorRef
from adapters.redaction.error_text import Sieve, meanwhile, undone
from adapters.redaction.reserved_metadata import in_its_own_name, without_ours
from adapters.task import Artifact, Message, Part, Role, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus

_UNDONE = frozenset({TaskState.FAILED, TaskState.REJECTED, TaskState.CANCELED})
_INTERRUPT = "Interrupt"  # LangGraph puts its question into an artifact of this name


class Reading:
    """Reads one turn's answers in their order. Messages lose the agent's own ids, which travel in `Ref` alone.

    `ended` is true after an event that ends the turn. `address` is where the agent is called, which none of its failures may tell.
    """

    def __init__(self, ref: VendorRef | None, address: str = "") -> None:
        self._address = address
        self._sieve: Sieve | None = None  # of an answer that says that the task failed
        self.ref = ref or VendorRef()
        self.ended = False
        self.task_id = ""  # of the task that the agent runs for this turn
        self._given: dict[str, Artifact | None] = {}  # None: given in pieces
        self._said: set[str] = set()
        self._last: Message | None = None  # that the agent said while it worked
        self._works = False
        self._noted: dict[str, Any] = {}

    def learn(self, known: Task) -> None:
        """Takes for told what the gateway has kept of the task already."""
        self._given |= {artifact.artifact_id: artifact for artifact in known.artifacts}
        self._noted |= {} if isinstance(known.metadata, UnsetType) else known.metadata
        self._works = known.status.state is TaskState.WORKING
        if not isinstance(known.status.message, UnsetType):
            self._said.add(known.status.message.message_id)

    def events(self, answer: PeerEvent) -> Iterator[Event]:
        """The events that `answer` adds. Raises UpstreamFault when it is about another task."""
        for read in self._read(answer):
            event = in_its_own_name(read)
            self.ended = isinstance(event, ENDINGS)
            yield event
            if self.ended:
                return

    def heard_of(self, unknown: UnknownState) -> Iterator[Event]:
        """Takes note of the ids of an answer whose state can't be read, to ask for the task by. Raises it when there are none."""
        if not unknown.task_id:
            raise unknown
        yield from self._about(unknown.context_id, unknown.task_id)

    def _about(self, context_id: str, task_id: str) -> Iterator[Event]:
        if self.task_id and task_id != self.task_id:
            raise InvalidAnswer("The agent answered about another task")
        self.task_id = task_id
        ref = VendorRef(context_id or self.ref.context_id, task_id, self.ref.extra)
        if ref != self.ref:
            self.ref = ref
            yield Ref(ref)

    def _read(self, answer: PeerEvent) -> Iterator[Event]:
        if isinstance(answer, Message):
            yield from self._message(answer)
            return
        if not isinstance(answer, TaskArtifactUpdateEvent) and answer.status.state in _UNDONE:
            self._sieve = Sieve(self._address)
        if isinstance(answer, Task):
            yield from self._about(answer.context_id, answer.id)
            for artifact in answer.artifacts:
                yield from self._artifact(artifact)
            yield from self._status(answer.status, answer.history, self._new_metadata(answer.metadata))
            return
        yield from self._about(answer.context_id, answer.task_id)
        metadata = _metadata_of_the_agent(answer.metadata)
        if isinstance(answer, TaskArtifactUpdateEvent):
            yield self._piece(answer, metadata)
        else:
            self._noted |= metadata or {}
            yield from self._status(answer.status, (), metadata)

    def _new_metadata(self, given: dict[str, Any] | UnsetType) -> Mapping[str, Any] | None:
        """The members of a task's metadata that no earlier answer had with the same value; None where there are none."""
        metadata = _metadata_of_the_agent(given) or {}
        new = {name: value for name, value in metadata.items() if name not in self._noted or self._noted[name] != value}
        self._noted |= new
        return new or None

    def _message(self, message: Message) -> Iterator[Event]:
        if self.task_id:
            yield from self._progress(message, None)
            return
        if message.context_id and message.context_id != self.ref.context_id:
            self.ref = VendorRef(message.context_id, "", self.ref.extra)
            yield Ref(self.ref)
        yield Replied(_without_ids(message))

    def _artifact(self, artifact: Artifact) -> Iterator[Event]:
        known = self._given.get(artifact.artifact_id)
        if known is None or not _says_the_same(known, artifact):
            self._given[artifact.artifact_id] = artifact
            yield ArtifactPiece(self._sieve.noted(artifact) if self._sieve else artifact)

    def _piece(self, update: TaskArtifactUpdateEvent, metadata: Mapping[str, Any] | None) -> Event:
        self._given[update.artifact.artifact_id] = None if update.append else update.artifact
        return ArtifactPiece(update.artifact, append=update.append, last_chunk=update.last_chunk, metadata=metadata)

    def _status(self, status: TaskStatus, history: tuple[Message, ...], metadata: Mapping[str, Any] | None) -> Iterator[Event]:
        message = None if isinstance(status.message, UnsetType) else _without_ids(status.message)
        match status.state:
            case TaskState.COMPLETED:
                yield Done(message or self._answer_in(history), metadata)
            case TaskState.FAILED:
                yield self._undone(Failed("The agent reported that the task failed", message, metadata=metadata))
            case TaskState.REJECTED:
                yield self._undone(Failed("The agent rejected the task", message, rejected=True, metadata=metadata))
            case TaskState.CANCELED:
                yield self._undone(Canceled(message, metadata))
            case TaskState.INPUT_REQUIRED:
                yield Ask(message or self._question(), metadata=metadata)
            case TaskState.AUTH_REQUIRED:
                yield Ask(message, auth=True, metadata=metadata)
            case TaskState.SUBMITTED | TaskState.WORKING:
                yield from self._progress(message, metadata, works=status.state is TaskState.WORKING)

    def _undone(self, ending: Failed | Canceled) -> Event:
        return undone(ending, self._sieve or Sieve(self._address))

    def _progress(self, message: Message | None, metadata: Mapping[str, Any] | None, works: bool = False) -> Iterator[Event]:
        if message is not None and message.message_id not in self._said:
            self._said.add(message.message_id)
            self._last = message
            yield meanwhile(Progress(_without_ids(message), metadata))
        elif metadata or (message is None and works and not self._works):
            yield Progress(metadata=metadata)
        self._works = self._works or works or bool(metadata)

    def _answer_in(self, history: tuple[Message, ...]) -> Message | None:
        """The answer of agents that complete with neither an artifact nor a message: the last that they said, or have in the history."""
        if self._given:
            return None
        last = history[-1] if history and history[-1].role is Role.AGENT else self._last
        return _without_ids(last) if last else None

    def _question(self) -> Message | None:
        asked = next((artifact for artifact in self._given.values() if artifact and artifact.name == _INTERRUPT), None)
        return Message(asked.artifact_id, Role.AGENT, asked.parts) if asked else None


def _says_the_same(known: Artifact, given: Artifact) -> bool:
    """Whether an artifact is known already, however its text came in pieces."""
    return known == given or structs.replace(known, parts=_joined(known.parts)) == structs.replace(given, parts=_joined(given.parts))


def _joined(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """With plain texts that follow each other as one."""
    joined: list[Part] = []
    for plain, group in groupby(parts, _is_plain):
        together = list(group)
        joined += [Part(text="".join(str(part.text) for part in together))] if plain else together
    return tuple(joined)


def _is_plain(part: Part) -> bool:
    return isinstance(part.text, str) and part == Part(text=part.text)


def _metadata_of_the_agent(given: dict[str, Any] | UnsetType) -> Mapping[str, Any] | None:
    """Metadata of a task or an update without the names that only the gateway gives; None where nothing is left."""
    return None if isinstance(given, UnsetType) else without_ours(given) or None


def _without_ids(message: Message) -> Message:
    if message.context_id or message.task_id or message.reference_task_ids:
        return structs.replace(message, context_id="", task_id="", reference_task_ids=())
    return message
