"""The entries of a task's log, where a task stands, and what both amount to in the words of A2A."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from adapters.task import (
    TERMINAL,
    Artifact,
    Message,
    Role,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
    encode,
)
from gateway.tasks.events.chunks import ArtifactParts

T = TypeVar("T")
WITHHELD = "withheld"  # kind of an event for the record alone: what its agent gave against its contract
OPENING_EVENTS = 2  # of a new task: the caller's message, and the status SUBMITTED
_METADATA_PREFIX = '{"metadata":'
_UPDATE_NOTED = '{"updateMetadata":'  # of an artifact's update: the artifact has a member `metadata` of its own


class _StatusMetadata(Struct, rename="camel"):
    metadata: dict[str, Any] = {}
    update_metadata: dict[str, Any] = {}


_REPLIED = ',"replied":true}'
_APPEND_SUFFIX = '"append":true}'
_decode_metadata = msgspec.json.Decoder(_StatusMetadata).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_status = msgspec.json.Decoder(TaskStatus).decode
_decode_artifact = msgspec.json.Decoder(Artifact).decode


class TaskEvent(Struct, frozen=True, dict=True):
    """One entry of a task's log. `body` is A2A 1.0 JSON: a Message, a TaskStatus (+ metadata, replied) or an Artifact
    (+ updateMetadata, append, lastChunk).
    """

    seq: int
    at: int  # microseconds since 1970
    kind: str  # status | message | artifact | withheld
    body: str

    @property
    def status(self) -> TaskStatus:
        """What a `status` says."""
        return self._decode_body(_decode_status)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the update that a `status` or an `artifact` is shown as."""
        if self.body.startswith(_UPDATE_NOTED):
            return _decode_metadata(self.body).update_metadata
        return _decode_metadata(self.body).metadata if self.body.startswith(_METADATA_PREFIX) else {}

    @property
    def is_reply(self) -> bool:
        """Whether a `status` holds the Message of an agent that answered with a Message and began no task."""
        return self.kind == "status" and self.body.endswith(_REPLIED)

    @property
    def message(self) -> Message:
        """What a `message` says."""
        return self._decode_body(_decode_message)

    @property
    def artifact(self) -> Artifact:
        """The artifact, or the piece of one, that an `artifact` brings."""
        return self._decode_body(_decode_artifact)

    def _decode_body(self, decode: Callable[[str], T]) -> T:
        """The body, decoded once for all readers of this process: they share the events that they are handed."""
        memo = self.__dict__
        if "content" not in memo:
            memo["content"] = decode(self.body)
        return cast("T", memo["content"])

    @property
    def is_append(self) -> bool:
        """Whether an `artifact` adds to the artifact of that id."""
        return self.body.endswith(_APPEND_SUFFIX)

    @property
    def is_last_chunk(self) -> bool:
        """Whether an `artifact` is said to be complete."""
        return '"lastChunk":true,' in self.body[-40:]


class TaskRow(Struct, frozen=True):
    """Where a task stands. A Struct, since a turn makes several of them and msgspec copies them ten times faster than dataclasses do."""

    tenant: str
    id: str
    owner: str
    context_id: str
    agent: str
    state: TaskState
    parent_id: str
    txn: str
    decision_id: str
    grant_id: str
    created: int
    updated: int
    last_seq: int = 0
    runner: str = ""
    vendor_ref: str = "{}"
    idempotency_key: str | None = None
    request_digest: str = ""
    trace: str = ""  # the `traceparent` of the request that began it

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task with its whole log."""

    row: TaskRow
    events: tuple[TaskEvent, ...] = field(repr=False)

    def to_task(self, history_length: int | None = None) -> Task:
        """The task as A2A shows it. `history_length`: None = all, 0 = none, n = the last n messages (A2A 1.0 s3.2.4)."""
        return task_from_events(self.row, self.events, history_length)


def task_from_events(row: TaskRow, events: Iterable[TaskEvent], history_length: int | None = None) -> Task:
    """The state that a log amounts to, in time that grows with the log alone."""
    last: TaskEvent | None = None  # that tells the status
    history: list[Message] = []
    artifacts: dict[str, tuple[Artifact, ArtifactParts]] = {}
    noted: dict[str, Any] = {}
    for event in events:
        if event.kind == "message":
            history.append(event.message)
        elif event.kind == "status":
            last = event
            noted |= event.metadata
        elif event.kind == "artifact":
            _add_artifact(artifacts, event)
    if history_length is not None:
        history = history[len(history) - min(history_length, len(history)) :]
    status = last.status if last is not None else TaskStatus(state=row.state, timestamp=to_rfc3339(row.updated))
    held = tuple(replace(artifact, parts=parts.all_parts()) for artifact, parts in artifacts.values())
    return Task(row.id, row.context_id, status, held, tuple(history), noted or UNSET)


def _add_artifact(artifacts: dict[str, tuple[Artifact, ArtifactParts]], event: TaskEvent) -> None:
    piece = event.artifact
    known = artifacts.get(piece.artifact_id)
    if known is not None and event.is_append:
        known[1].append(piece.parts)
    else:
        artifacts[piece.artifact_id] = piece, ArtifactParts(piece.parts)


def stream_response(row: TaskRow, event: TaskEvent) -> StreamResponse | None:
    """An event as a stream shows it (A2A 1.0 s3.2.3); None for the user's own words."""
    if event.kind == "status":
        update = TaskStatusUpdateEvent(row.id, row.context_id, event.status, event.metadata or UNSET)
        return StreamResponse(status_update=update)
    if event.kind == "artifact":
        piece = TaskArtifactUpdateEvent(
            row.id, row.context_id, event.artifact, event.is_append, event.is_last_chunk, event.metadata or UNSET
        )
        return StreamResponse(artifact_update=piece)
    message = None if event.kind == WITHHELD else event.message
    return StreamResponse(message=message) if message is not None and message.role is Role.AGENT else None


def lone_reply(events: Sequence[TaskEvent]) -> Message | None:
    """Returns the Message that is all an agent answered to a new task (A2A 1.0 s3.1.1). `events`: the whole log.

    None for a task that showed its caller anything else, as one that waited for a consent first.
    """
    if len(events) <= OPENING_EVENTS or not events[OPENING_EVENTS].is_reply:
        return None
    return cast("Message", events[OPENING_EVENTS].status.message)


def reply_body(status: TaskStatus) -> str:
    """Encodes the TaskStatus of a task whose agent answered with a Message. The mark comes last, after the timestamp."""
    return encode(status).decode()[:-1] + _REPLIED


def status_body(status: TaskStatus, metadata: Mapping[str, Any] | None = None) -> str:
    """A TaskStatus, behind what the agent noted about its task at that moment."""
    text = encode(status).decode()
    return f"{_METADATA_PREFIX}{encode(metadata).decode()},{text[1:]}" if metadata else text


def to_rfc3339(microseconds: int) -> str:
    """UTC with milliseconds and Z, as A2A 1.0 s5.6.1 wants times."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_format_second(seconds)}.{rest // 1000:03}Z"


@lru_cache(maxsize=64)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def artifact_body(artifact: Artifact, append: bool, last_chunk: bool, noted: Mapping[str, Any] | None = None) -> str:
    """An Artifact behind the metadata of its update, with how it joins what came before; the two marks stand last."""
    text = encode(artifact).decode()
    if noted:
        text = f"{_UPDATE_NOTED}{encode(noted).decode()},{text[1:]}"
    marks = f',"lastChunk":{"true" if last_chunk else "false"},"append":{"true" if append else "false"}}}'
    return text[:-1] + marks
