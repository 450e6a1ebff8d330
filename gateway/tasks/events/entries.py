"""The entries of a task's log, the row of a task, and their conversion to A2A objects."""

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
_UPDATES = ("status", "artifact")  # kinds of events that are updates of a stream
WITHHELD = "withheld"  # kind of an event that only operators see: output that breaks the agent's contract
PROMPTS_MARK = '"prompts":['  # in a `vendor_ref` with open prompts
LAST_MOMENT = 253_402_300_799_999_999  # microseconds since 1970: the end of the year 9999, the last that a date can name
OPENING_EVENTS = 2  # of a new task: the caller's message, and the status SUBMITTED
_decode_metadata = msgspec.json.Decoder(dict[str, Any]).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_status = msgspec.json.Decoder(TaskStatus).decode
_decode_artifact = msgspec.json.Decoder(Artifact).decode


class TaskEvent(Struct, frozen=True, dict=True):
    """One entry of a task's log. `body` is A2A 1.0 JSON: a Message, a TaskStatus or an Artifact."""

    seq: int
    at: int  # microseconds since 1970
    kind: str  # status | message | artifact | withheld
    body: str
    is_append: bool = False  # an `artifact` adds to the artifact of that id
    is_last_chunk: bool = False  # an `artifact` is complete
    is_reply: bool = False  # a `status` holds the Message of an agent that answered with a Message and began no task
    metadata_json: str | None = None  # the metadata of the update that a `status` or an `artifact` is shown as

    @property
    def status(self) -> TaskStatus:
        """Returns the TaskStatus of a `status` entry."""
        return self._decode_body(_decode_status)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the update that a `status` or an `artifact` is shown as."""
        return _decode_metadata(self.metadata_json) if self.metadata_json is not None else {}

    @property
    def has_marks(self) -> bool:
        """Whether there is more of it than its body."""
        return self.is_append or self.is_last_chunk or self.is_reply or self.metadata_json is not None

    @property
    def message(self) -> Message:
        """Returns the Message of a `message` entry."""
        return self._decode_body(_decode_message)

    @property
    def artifact(self) -> Artifact:
        """Returns the artifact, or the piece of one, of an `artifact` entry."""
        return self._decode_body(_decode_artifact)

    def _decode_body(self, decode: Callable[[str], T]) -> T:
        """Returns the body, decoded once for all readers of this process, which share the event."""
        memo = self.__dict__
        if "content" not in memo:
            memo["content"] = decode(self.body)
        content: T = memo["content"]
        return content


class TaskRow(Struct, frozen=True):
    """The row of a task.

    A Struct, because a turn copies it several times and msgspec copies ten times faster than dataclasses.
    """

    tenant: str
    id: str
    owner: str
    context_id: str
    agent: str
    state: TaskState
    parent_id: str
    txn: str
    decision_id: str
    grant_id: str  # of the caller while the task is paused for approval, else of the called agent
    created: int
    updated: int
    last_seq: int = 0
    runner: str = ""
    vendor_ref: str = "{}"
    idempotency_key: str | None = None
    request_digest: str = ""
    trace: str = ""  # the `traceparent` of the request that began it
    awaited_connection_id: str | None = None  # the account connection whose consent it waits for, as `vendor_ref` says in full

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def has_open_prompts(self) -> bool:
        """Returns whether the task waits for answers to prompts of its agent."""
        return PROMPTS_MARK in self.vendor_ref


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task with its whole log."""

    row: TaskRow
    events: tuple[TaskEvent, ...] = field(repr=False)

    def to_task(self, history_length: int | None = None) -> Task:
        """Returns the task in A2A form. `history_length`: None = all, 0 = none, n = the last n messages (A2A 1.0 s3.2.4)."""
        return task_from_events(self.row, self.events, history_length)


def task_from_events(row: TaskRow, events: Iterable[TaskEvent], history_length: int | None = None) -> Task:
    """Returns the A2A Task that results from a log, in time linear in the log."""
    last: TaskEvent | None = None  # the last `status` entry
    history: list[Message] = []
    artifacts: dict[str, Artifact] = {}
    appended: dict[str, ArtifactParts] = {}  # the parts of artifacts that came in several pieces
    metadata: dict[str, Any] = {}
    for event in events:
        if event.kind == "message":
            history.append(event.message)
        elif event.kind == "status":
            last = event
            metadata |= event.metadata
        elif event.kind == "artifact":
            _add_artifact(artifacts, appended, event)
    if history_length is not None:
        history = history[len(history) - min(history_length, len(history)) :]
    status = last.status if last is not None else TaskStatus(state=row.state, timestamp=to_rfc3339(row.updated))
    for artifact_id, parts in appended.items():
        artifacts[artifact_id] = replace(artifacts[artifact_id], parts=parts.all_parts())
    return Task(row.id, row.context_id, status, tuple(artifacts.values()), tuple(history), metadata or UNSET)


def _add_artifact(artifacts: dict[str, Artifact], appended: dict[str, ArtifactParts], event: TaskEvent) -> None:
    piece = event.artifact
    known = artifacts.get(piece.artifact_id)
    if known is None or not event.is_append:
        artifacts[piece.artifact_id] = piece
        appended.pop(piece.artifact_id, None)
        return
    if piece.artifact_id not in appended:
        appended[piece.artifact_id] = ArtifactParts(known.parts)
    appended[piece.artifact_id].append(piece.parts)


def stream_response(row: TaskRow, event: TaskEvent) -> StreamResponse | None:
    """Returns the stream update for an entry (A2A 1.0 s3.2.3), or None for a message of the user and for withheld output."""
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


def is_shown(event: TaskEvent) -> bool:
    """Whether `stream_response` returns an update for the entry."""
    return event.kind in _UPDATES or (event.kind != WITHHELD and event.message.role is Role.AGENT)


def text_length(event: TaskEvent) -> int:
    """The characters of the JSON of an entry, which bound what is held and sent together."""
    return len(event.body) if event.metadata_json is None else len(event.body) + len(event.metadata_json)


def encoded_response(row: TaskRow, event: TaskEvent) -> bytes | None:
    """Returns the JSON of `stream_response`, with the stored JSON in it as it is. Composed once for all readers of this process."""
    memo = event.__dict__
    if "encoded" not in memo:
        memo["encoded"] = _encode_response(row, event)
    encoded: bytes | None = memo["encoded"]
    return encoded


def _encode_response(row: TaskRow, event: TaskEvent) -> bytes | None:
    if event.kind not in _UPDATES:
        response = stream_response(row, event)
        return None if response is None else encode(response)
    marks = ',"append":true' if event.is_append else ""
    if event.is_last_chunk:
        marks += ',"lastChunk":true'
    if event.metadata_json is not None and event.metadata_json != "{}":
        marks += f',"metadata":{event.metadata_json}'
    return f'{{"{event.kind}Update":{{{_encode_ids(row.id, row.context_id)},"{event.kind}":{event.body}{marks}}}}}'.encode()


@lru_cache(maxsize=256)
def _encode_ids(task_id: str, context_id: str) -> str:
    """Returns the ids of an update as JSON members, which all events of a stream share."""
    return f'"taskId":{encode(task_id).decode()},"contextId":{encode(context_id).decode()}'


def lone_reply(events: Sequence[TaskEvent]) -> Message | None:
    """Returns the Message that is the agent's whole answer to a new task (A2A 1.0 s3.1.1). `events` is the whole log.

    Returns None for a task that showed its caller anything else, for example that it waited for a consent first.
    """
    if len(events) <= OPENING_EVENTS or not events[OPENING_EVENTS].is_reply:
        return None
    return cast("Message", events[OPENING_EVENTS].status.message)


def reply_event(seq: int, at: int, status: TaskStatus) -> TaskEvent:
    """Builds the last entry of a task whose agent answered with a Message, which `status` holds."""
    return TaskEvent(seq, at, "status", encode(status).decode(), is_reply=True)


def status_event(seq: int, at: int, status: TaskStatus, metadata: Mapping[str, Any] | None = None) -> TaskEvent:
    """Builds the entry of a status. `metadata`: what the agent noted about its task at that moment."""
    return TaskEvent(seq, at, "status", encode(status).decode(), metadata_json=_encode_metadata(metadata) if metadata else None)


def artifact_event(
    seq: int, at: int, artifact: Artifact, *, append: bool, last_chunk: bool, metadata: Mapping[str, Any] | None = None
) -> TaskEvent:
    """Builds the entry of an artifact or a piece of one. `metadata`: of its update (TaskArtifactUpdateEvent, A2A 1.0 s4.2.2)."""
    metadata_json = _encode_metadata(metadata) if metadata else None
    return TaskEvent(seq, at, "artifact", encode(artifact).decode(), append, last_chunk, False, metadata_json)


def _encode_metadata(metadata: Mapping[str, Any]) -> str:
    return encode(metadata).decode()


def event_from_row(row: Any) -> TaskEvent:
    """The entry that a row of `task_events` holds."""
    return TaskEvent(row.seq, row.at, row.kind, row.body, row.append, row.last_chunk, row.replied, row.metadata)


def to_rfc3339(microseconds: int) -> str:
    """Formats a time as UTC with milliseconds and Z (A2A 1.0 s5.6.1). A time after the year 9999 is shown as its last moment."""
    milliseconds = min(microseconds, LAST_MOMENT) // 1000
    return f"{_format_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=64)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
