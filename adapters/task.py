"""The types of a delegated call, in the form of A2A 1.0 (lf.a2a.v1, ProtoJSON): Task, Message, Part, Artifact."""

from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType


class TaskState(StrEnum):
    SUBMITTED = "TASK_STATE_SUBMITTED"
    WORKING = "TASK_STATE_WORKING"
    COMPLETED = "TASK_STATE_COMPLETED"
    FAILED = "TASK_STATE_FAILED"
    CANCELED = "TASK_STATE_CANCELED"
    INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
    REJECTED = "TASK_STATE_REJECTED"
    AUTH_REQUIRED = "TASK_STATE_AUTH_REQUIRED"


TERMINAL = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED})
INTERRUPTED = frozenset({TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED})


class Role(StrEnum):
    USER = "ROLE_USER"
    AGENT = "ROLE_AGENT"


class Part(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A part with exactly one of text, raw (base64), url and data (any JSON, including null)."""

    text: str | UnsetType = UNSET
    raw: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    data: Any = UNSET
    media_type: str = ""
    filename: str = ""
    metadata: dict[str, Any] | UnsetType = UNSET


class Message(Struct, frozen=True, omit_defaults=True, rename="camel"):
    message_id: str
    role: Role
    parts: tuple[Part, ...]
    context_id: str = ""
    task_id: str = ""
    metadata: dict[str, Any] | UnsetType = UNSET
    extensions: tuple[str, ...] = ()
    reference_task_ids: tuple[str, ...] = ()


class Artifact(Struct, frozen=True, omit_defaults=True, rename="camel"):
    artifact_id: str
    parts: tuple[Part, ...]
    name: str = ""
    description: str = ""
    metadata: dict[str, Any] | UnsetType = UNSET
    extensions: tuple[str, ...] = ()


class TaskStatus(Struct, frozen=True, omit_defaults=True, rename="camel"):
    state: TaskState
    message: Message | UnsetType = UNSET
    timestamp: str = ""  # RFC 3339, UTC, with Z


class Task(Struct, frozen=True, omit_defaults=True, rename="camel"):
    id: str
    context_id: str
    status: TaskStatus
    artifacts: tuple[Artifact, ...] = ()
    history: tuple[Message, ...] = ()
    metadata: dict[str, Any] | UnsetType = UNSET


class TaskStatusUpdateEvent(Struct, frozen=True, omit_defaults=True, rename="camel"):
    task_id: str
    context_id: str
    status: TaskStatus
    metadata: dict[str, Any] | UnsetType = UNSET


class TaskArtifactUpdateEvent(Struct, frozen=True, omit_defaults=True, rename="camel"):
    task_id: str
    context_id: str
    artifact: Artifact
    append: bool = False
    last_chunk: bool = False
    metadata: dict[str, Any] | UnsetType = UNSET


class StreamResponse(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One event of a stream (A2A 1.0 s3.2.3): exactly one member is set."""

    task: Task | UnsetType = UNSET
    message: Message | UnsetType = UNSET
    status_update: TaskStatusUpdateEvent | UnsetType = UNSET
    artifact_update: TaskArtifactUpdateEvent | UnsetType = UNSET


class PushAuthentication(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """AuthenticationInfo (s4.3.2): the `Authorization` that the webhook expects."""

    scheme: str
    credentials: str = ""

    def __repr__(self) -> str:
        return f"PushAuthentication({self.scheme!r})"


class PushConfig(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """TaskPushNotificationConfig (s4.3.1). `token` and the credentials are secrets, which are only sent to `url`."""

    url: str
    id: str = ""
    task_id: str = ""
    token: str = ""
    authentication: PushAuthentication | UnsetType = UNSET
    tenant: str = ""

    def __repr__(self) -> str:
        return f"PushConfig({self.id!r})"


def text_of(parts: tuple[Part, ...]) -> str:
    """The text parts, joined by line feeds."""
    return "\n".join(part.text for part in parts if isinstance(part.text, str))


encode = msgspec.json.Encoder().encode
