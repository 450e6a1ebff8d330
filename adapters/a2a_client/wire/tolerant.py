"""Reads any agent's response by its shape: wrapped or flat, names of either version, nested or flat files, times without zone."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from adapters.a2a_client.wire import v03, v1
from adapters.contract import InvalidAnswer, UpstreamFault
from adapters.task import Artifact, Message, Role, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus, TaskStatusUpdateEvent

NOT_A2A: Final = "The agent's answer is not valid A2A"
PeerEvent = Task | Message | TaskStatusUpdateEvent | TaskArtifactUpdateEvent
S = TypeVar("S", Artifact, Message)

_STATES: Final[Mapping[str, TaskState]] = {
    **{state.removeprefix("TASK_STATE_"): state for state in TaskState},
    "CANCELLED": TaskState.CANCELED,
}


class UnknownState(InvalidAnswer):
    """The response has an unknown task state. The task has to be polled; its state is never guessed."""

    def __init__(self) -> None:
        super().__init__("The agent's task is in a state that A2A does not know")
        self.context_id = ""
        self.task_id = ""


def read_event(value: Any) -> PeerEvent:
    """Reads the decoded result of a send or one event of a stream. Raises UpstreamFault, or UnknownState with the ids if present."""
    if not isinstance(value, dict):
        raise _not_a2a("the result is not an object")
    for name, reader in _WRAPPERS.items():
        if "kind" not in value and isinstance(value.get(name), dict):
            return reader(value[name])
    kind = _kind_of(value)
    if kind not in _KINDS:
        raise _not_a2a("the result is neither a task, a message nor an update")
    return _KINDS[kind](value)


def read_task(value: Any) -> Task:
    """Reads a task, wrapped or not: the result of GetTask and CancelTask. Raises as `read_event` does."""
    event = read_event(value)
    if not isinstance(event, Task):
        raise _not_a2a("the result is not a task")
    return event


def _kind_of(value: dict[str, Any]) -> str:
    kind = value.get("kind")
    if isinstance(kind, str):
        return kind
    if "artifact" in value:
        return "artifact-update"
    if "status" in value:
        return "task" if "id" in value else "status-update"
    return "message" if "parts" in value else ""


def _task(value: dict[str, Any]) -> Task:
    task_id, context_id = _required_text(value, "id"), _optional_text(value, "contextId")
    return Task(
        id=task_id,
        context_id=context_id,
        status=_status(value.get("status"), context_id, task_id),
        artifacts=tuple(_artifact(artifact) for artifact in _optional_list(value, "artifacts")),
        history=tuple(_message(message) for message in _optional_list(value, "history")),
        metadata=_metadata(value),
    )


def _status_update(value: dict[str, Any]) -> TaskStatusUpdateEvent:
    task_id, context_id = _required_text(value, "taskId"), _optional_text(value, "contextId")
    return TaskStatusUpdateEvent(
        task_id=task_id,
        context_id=context_id,
        status=_status(value.get("status"), context_id, task_id),
        metadata=_metadata(value),
    )


def _artifact_update(value: dict[str, Any]) -> TaskArtifactUpdateEvent:
    return TaskArtifactUpdateEvent(
        task_id=_required_text(value, "taskId"),
        context_id=_optional_text(value, "contextId"),
        artifact=_artifact(value.get("artifact")),
        append=value.get("append") is True,
        last_chunk=value.get("lastChunk") is True,
        metadata=_metadata(value),
    )


def _status(value: Any, context_id: str, task_id: str) -> TaskStatus:
    if not isinstance(value, dict):
        raise _not_a2a("the status is not an object")
    message = value.get("message")
    try:
        state = _state(value.get("state"))
    except UnknownState as unknown:
        unknown.context_id, unknown.task_id = context_id, task_id
        raise
    return TaskStatus(
        state=state,
        message=msgspec.UNSET if message is None else _message(message),
        timestamp=_timestamp(value.get("timestamp")),
    )


def _state(value: Any) -> TaskState:
    word = value.upper().replace("-", "_").removeprefix("TASK_STATE_") if isinstance(value, str) else ""
    if word not in _STATES:
        raise UnknownState
    return _STATES[word]


def _message(value: Any) -> Message:
    if not isinstance(value, dict):
        raise _not_a2a("a message is not an object")
    lifted = v03.lift_message(v1.without_nulls(value))
    lifted["parts"] = _at_least_one_part(lifted.get("parts"))
    if lifted.get("role") not in (Role.USER, Role.AGENT):
        lifted["role"] = Role.AGENT
    if not lifted.get("messageId"):
        lifted["messageId"] = _derive_id(value)
    return _convert(lifted, Message)


def _artifact(value: Any) -> Artifact:
    if not isinstance(value, dict):
        raise _not_a2a("an artifact is not an object")
    lifted = v03.lift_artifact(v1.without_nulls(value))
    lifted["parts"] = _at_least_one_part(lifted.get("parts"))
    if not lifted.get("artifactId"):
        lifted["artifactId"] = _derive_id(value)
    return _convert(lifted, Artifact)


def _convert(lifted: dict[str, Any], kind: type[S]) -> S:
    try:
        noun = msgspec.convert(lifted, kind)
    except msgspec.ValidationError as error:
        raise _not_a2a(str(v1.bad_message_from(error))) from None
    for part in noun.parts:
        problem = v1.part_problem(part)
        if problem:
            raise _not_a2a(f"a part {problem}")
    return noun


def _at_least_one_part(parts: Any) -> Any:
    """Replaces missing parts by an empty text, since 1.0 requires one (s4.1.7) and some agents end artifacts without any."""
    return parts if parts or not isinstance(parts, list | None) else [{"text": ""}]


def _metadata(value: dict[str, Any]) -> dict[str, Any] | msgspec.UnsetType:
    metadata = value.get("metadata")
    return metadata if isinstance(metadata, dict) else msgspec.UNSET


def _timestamp(value: Any) -> str:
    """A time as RFC 3339 in UTC, which is also assumed without a zone; empty for anything else."""
    try:
        at = datetime.fromisoformat(value)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return ""
    return at.isoformat().replace("+00:00", "Z")


def _required_text(value: dict[str, Any], name: str) -> str:
    text = _optional_text(value, name)
    if not text:
        raise _not_a2a(f"{name} is missing")
    return text


def _optional_text(value: dict[str, Any], name: str) -> str:
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise _not_a2a(f"{name} is not a string")
    return text


def _optional_list(value: dict[str, Any], name: str) -> list[Any]:
    members = value.get(name)
    if members is None:
        return []
    if not isinstance(members, list):
        raise _not_a2a(f"{name} is not a list")
    return members


def _derive_id(value: Any) -> str:
    return "made-" + hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:24]


def _not_a2a(detail: str) -> UpstreamFault:
    return InvalidAnswer(NOT_A2A, detail)


_WRAPPERS: Final[Mapping[str, Callable[[dict[str, Any]], PeerEvent]]] = {
    "task": _task,
    "statusUpdate": _status_update,
    "artifactUpdate": _artifact_update,
    "message": _message,
}
_KINDS: Final[Mapping[str, Callable[[dict[str, Any]], PeerEvent]]] = {
    "task": _task,
    "status-update": _status_update,
    "artifact-update": _artifact_update,
    "message": _message,
}
