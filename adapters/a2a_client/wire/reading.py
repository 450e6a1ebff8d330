"""Reads an A2A agent's responses in one turn as events of the contract. Pure: no network, no clock."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from msgspec import UNSET, UnsetType, structs

from adapters.a2a_client.wire.token_usage import usage_in, with_usage
from adapters.a2a_client.wire.tolerant import PeerEvent, UnknownState
from adapters.contract import (
    ENDINGS,
    ArtifactPiece,
    Ask,
    Canceled,
    Done,
    Event,
    Failed,
    InvalidAnswer,
    Progress,
    RefLearned,
    Replied,
    VendorRef,
)
from adapters.redaction.error_text import ErrorTextFilter, filter_failure, filter_progress_text
from adapters.redaction.reserved_metadata import without_reserved_members, without_reserved_names
from adapters.task import Artifact, Message, Part, Role, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus, TaskStatusUpdateEvent

_UNSUCCESSFUL_STATES = frozenset({TaskState.FAILED, TaskState.REJECTED, TaskState.CANCELED})
_INTERRUPT_ARTIFACT = "Interrupt"  # LangGraph puts its question into an artifact with this name


class A2ATurnReader:
    """Reads one turn's responses in order. Removes the agent's own ids from messages; only RefLearned has them.

    `has_ended` is true after an event that ends the turn. `agent_url` is removed from the agent's error texts.
    """

    def __init__(self, ref: VendorRef | None, agent_url: str = "") -> None:
        self._agent_url = agent_url
        self._error_text_filter: ErrorTextFilter | None = None  # set by a response that says that the task failed
        self.ref = ref or VendorRef()
        self.has_ended = False
        self.task_id = ""  # of the agent's task for this turn
        self._seen_artifacts: dict[str, Artifact | None] = {}  # None: received in pieces
        self._seen_message_ids: set[str] = set()
        self._last_message: Message | None = None  # the agent's last message while it worked
        self._is_working = False
        self._seen_metadata: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None  # the last that the agent reported in this turn

    def mark_known(self, known: Task) -> None:
        """Marks what the gateway has stored of the task as already seen."""
        self._seen_artifacts |= {artifact.artifact_id: artifact for artifact in known.artifacts}
        self._seen_metadata |= {} if isinstance(known.metadata, UnsetType) else known.metadata
        self._is_working = known.status.state is TaskState.WORKING
        if not isinstance(known.status.message, UnsetType):
            self._seen_message_ids.add(known.status.message.message_id)

    def events(self, answer: PeerEvent) -> list[Event]:
        """The events that `answer` adds; one that ends the turn is the last. Raises UpstreamFault when it is about another task."""
        if isinstance(answer, TaskArtifactUpdateEvent):  # most answers of a stream
            return self._read_artifact_update(answer)
        self._usage = _usage_in_answer(answer) or self._usage
        events = [without_reserved_names(event) for event in self._read_answer(answer)]
        self.has_ended = bool(events) and type(events[-1]) in ENDINGS
        if self.has_ended and self._usage is not None:
            events[-1] = with_usage(events[-1], self._usage)
        return events

    def learn_ids_of(self, unknown: UnknownState) -> Sequence[Event]:
        """Notes the ids of a response with an unknown state, so that the task can be polled. Raises `unknown` when it has none."""
        if not unknown.task_id:
            raise unknown
        return self._learn_ids(unknown.context_id, unknown.task_id)

    def _learn_ids(self, context_id: str, task_id: str) -> Sequence[Event]:
        """A RefLearned for ids that differ from the known ones, else nothing. Raises InvalidAnswer for another task."""
        if self.task_id == task_id and context_id in ("", self.ref.context_id):
            return ()
        if self.task_id and task_id != self.task_id:
            raise InvalidAnswer("The agent answered about another task")
        self.task_id = task_id
        ref = VendorRef(context_id or self.ref.context_id, task_id, self.ref.extra)
        if ref == self.ref:
            return ()
        self.ref = ref
        return (RefLearned(ref),)

    def _read_answer(self, answer: Task | Message | TaskStatusUpdateEvent) -> list[Event]:
        if isinstance(answer, Message):
            return self._read_message(answer)
        if answer.status.state in _UNSUCCESSFUL_STATES:
            self._error_text_filter = ErrorTextFilter(self._agent_url)
        history: tuple[Message, ...] = ()
        if isinstance(answer, Task):
            events = [*self._learn_ids(answer.context_id, answer.id)]
            events += [self._piece_of(artifact) for artifact in answer.artifacts if self._mark_seen(artifact)]
            metadata, history = self._new_metadata(answer.metadata), answer.history
        else:
            events = [*self._learn_ids(answer.context_id, answer.task_id)]
            metadata = _metadata_of_the_agent(answer.metadata)
            self._seen_metadata |= metadata or {}
        event = self._read_status(answer.status, history, metadata)
        if event is not None:
            events.append(event)
        return events

    def _new_metadata(self, declared: dict[str, Any] | UnsetType) -> Mapping[str, Any] | None:
        """The members of a task's metadata that are new or changed since the last response; None without any."""
        metadata = _metadata_of_the_agent(declared)
        if metadata is None:
            return None
        new = {name: value for name, value in metadata.items() if name not in self._seen_metadata or self._seen_metadata[name] != value}
        self._seen_metadata |= new
        return new or None

    def _read_message(self, message: Message) -> list[Event]:
        if self.task_id:
            progress = self._read_progress(message, None)
            return [] if progress is None else [progress]
        events = list[Event]()
        if message.context_id and message.context_id != self.ref.context_id:
            self.ref = VendorRef(message.context_id, "", self.ref.extra)
            events.append(RefLearned(self.ref))
        events.append(Replied(_without_ids(message)))
        return events

    def _mark_seen(self, artifact: Artifact) -> bool:
        """Marks an artifact as seen, and returns whether it is new or differs from what was seen."""
        known = self._seen_artifacts.get(artifact.artifact_id)
        if known is not None and _is_same_content(known, artifact):
            return False
        self._seen_artifacts[artifact.artifact_id] = artifact
        return True

    def _piece_of(self, artifact: Artifact) -> ArtifactPiece:
        return ArtifactPiece(artifact if self._error_text_filter is None else self._error_text_filter.with_filtered_metadata(artifact))

    def _read_artifact_update(self, update: TaskArtifactUpdateEvent) -> list[Event]:
        learned, artifact, metadata = self._learn_ids(update.context_id, update.task_id), update.artifact, None
        if update.metadata is not UNSET:
            self._usage = usage_in(update.metadata) or self._usage
            metadata = _metadata_of_the_agent(update.metadata)
        self._seen_artifacts[artifact.artifact_id] = None if update.append else artifact
        return [*learned, without_reserved_names(ArtifactPiece(artifact, update.append, update.last_chunk, metadata))]

    def _read_status(self, status: TaskStatus, history: tuple[Message, ...], metadata: Mapping[str, Any] | None) -> Event | None:
        message = None if isinstance(status.message, UnsetType) else _without_ids(status.message)
        match status.state:
            case TaskState.COMPLETED:
                return Done(message or self._answer_from_history(history), metadata)
            case TaskState.FAILED:
                return self._filter_ending(Failed("The agent reported that the task failed", message, metadata=metadata))
            case TaskState.REJECTED:
                return self._filter_ending(Failed("The agent rejected the task", message, rejected=True, metadata=metadata))
            case TaskState.CANCELED:
                return self._filter_ending(Canceled(message, metadata))
            case TaskState.INPUT_REQUIRED:
                return Ask(message or self._interrupt_message(), metadata=metadata)
            case TaskState.AUTH_REQUIRED:
                return Ask(message, auth=True, metadata=metadata)
            case TaskState.SUBMITTED | TaskState.WORKING:
                pass
        return self._read_progress(message, metadata, is_working=status.state is TaskState.WORKING)

    def _filter_ending(self, ending: Failed | Canceled) -> Event:
        return filter_failure(ending, self._error_text_filter or ErrorTextFilter(self._agent_url))

    def _read_progress(self, message: Message | None, metadata: Mapping[str, Any] | None, is_working: bool = False) -> Event | None:
        event: Event | None = None
        if message is not None and message.message_id not in self._seen_message_ids:
            self._seen_message_ids.add(message.message_id)
            self._last_message = message
            event = filter_progress_text(Progress(_without_ids(message), metadata))
        elif metadata or (message is None and is_working and not self._is_working):
            event = Progress(metadata=metadata)
        self._is_working = self._is_working or is_working or bool(metadata)
        return event

    def _answer_from_history(self, history: tuple[Message, ...]) -> Message | None:
        """The answer of an agent that completes without artifact or message: its last message, sent or in the history."""
        if self._seen_artifacts:
            return None
        last = history[-1] if history and history[-1].role is Role.AGENT else self._last_message
        return _without_ids(last) if last else None

    def _interrupt_message(self) -> Message | None:
        artifact_of_interrupt = next(
            (artifact for artifact in self._seen_artifacts.values() if artifact and artifact.name == _INTERRUPT_ARTIFACT), None
        )
        return Message(artifact_of_interrupt.artifact_id, Role.AGENT, artifact_of_interrupt.parts) if artifact_of_interrupt else None


def _usage_in_answer(answer: Task | Message | TaskStatusUpdateEvent) -> dict[str, Any] | None:
    """The usage that a response reports for its task, or for the message that it brings."""
    if answer.metadata and (found := usage_in(answer.metadata)) is not None:
        return found
    if isinstance(answer, Message) or answer.status.message is UNSET:
        return None
    message = answer.status.message
    return usage_in(message.metadata) if message.metadata else None


def _is_same_content(known: Artifact, received: Artifact) -> bool:
    """Whether an artifact is already known, however its text was split into parts."""
    return known == received or structs.replace(known, parts=_join_plain_texts(known.parts)) == structs.replace(
        received, parts=_join_plain_texts(received.parts)
    )


def _join_plain_texts(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts with consecutive plain texts joined."""
    joined: list[Part] = []
    for plain, group in groupby(parts, _is_plain):
        together = list(group)
        joined += [Part(text="".join(str(part.text) for part in together))] if plain else together
    return tuple(joined)


def _is_plain(part: Part) -> bool:
    return isinstance(part.text, str) and part == Part(text=part.text)


def _metadata_of_the_agent(metadata: dict[str, Any] | UnsetType) -> Mapping[str, Any] | None:
    """The metadata of a task or update without reserved names; None where nothing is left."""
    return None if isinstance(metadata, UnsetType) else without_reserved_members(metadata) or None


def _without_ids(message: Message) -> Message:
    if message.context_id or message.task_id or message.reference_task_ids:
        return structs.replace(message, context_id="", task_id="", reference_task_ids=())
    return message
