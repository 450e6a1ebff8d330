"""The JSON of A2A 0.3, converted to and from the types of 1.0.

Members that 0.3 does not have, such as the `mediaType` of a text, are stored in the adjacent metadata under CARRIED_KEY, and restored
from there. Data that is not an object is sent as `{"value": …}` marked `data_part_compat`, like the reference implementation. Only
empty metadata beside such members is lost.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec import UNSET, UnsetType

from adapters.a2a_client.wire import v1
from adapters.a2a_client.wire.push import lift_push_config
from adapters.task import (
    INTERRUPTED,
    TERMINAL,
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

STATES: Final[Mapping[TaskState, str]] = {state: state.removeprefix("TASK_STATE_").lower().replace("_", "-") for state in TaskState}
ROLES: Final[Mapping[Role, str]] = {Role.USER: "user", Role.AGENT: "agent"}
_LIFTED_ROLES: Final = {text: role.value for role, text in ROLES.items()}
_UNSUPPORTED_MEMBERS: Final = ("mediaType", "filename")  # of a text or of data
_COMPAT_KEY: Final = "data_part_compat"
CARRIED_KEY: Final = "urn:interlock:a2a:carried:1"  # in metadata: members that the sender set, by their names in 1.0
_MESSAGE_FIELDS: Final = ("messageId", "contextId", "taskId", "metadata", "extensions", "referenceTaskIds")


def read_send_params(params: Any) -> v1.SendParams:
    """Reads the decoded `params` of message/send and message/stream. Raises BadMessage.

    An absent `blocking` means blocking, as in the reference implementation.
    """
    if not isinstance(params, dict):
        raise v1.BadMessage("params", "must be an object")
    lifted = {**params, "message": lift_message(params.get("message"))} if "message" in params else params
    configuration = params.get("configuration")
    if isinstance(configuration, dict):
        lifted = {**lifted, "configuration": _lift_configuration(configuration)}
    return v1.read_send_params(lifted)


read_task_params = v1.read_task_params  # TaskQueryParams and TaskIdParams have the same members


def lift_message(message: Any) -> Any:
    """A 0.3 message as 1.0 JSON. Invalid members stay unchanged, so that decoding by type names the field."""
    if not isinstance(message, dict):
        return message
    lifted = {name: message[name] for name in _MESSAGE_FIELDS if message.get(name) is not None}
    role = message.get("role")
    if role is not None:
        lifted["role"] = _LIFTED_ROLES.get(role, role) if isinstance(role, str) else role
    if "parts" in message:
        lifted["parts"] = lift_parts(message["parts"])
    return lifted


def lift_artifact(artifact: Any) -> Any:
    """A 0.3 artifact as 1.0 JSON."""
    return {**artifact, "parts": lift_parts(artifact.get("parts"))} if isinstance(artifact, dict) else artifact


def lift_parts(parts: Any) -> Any:
    """0.3 parts as 1.0 JSON; parts that are already 1.0 stay unchanged."""
    return [_lift_part(part) for part in parts] if isinstance(parts, list) else parts


def message_json(message: Message) -> dict[str, Any]:
    """A message as 0.3 JSON."""
    written: dict[str, Any] = {
        "kind": "message",
        "messageId": message.message_id,
        "role": ROLES[message.role],
        "parts": parts_json(message.parts),
    }
    add_member(written, "contextId", message.context_id)
    add_member(written, "taskId", message.task_id)
    add_member(written, "metadata", message.metadata)
    add_member(written, "extensions", message.extensions)
    add_member(written, "referenceTaskIds", message.reference_task_ids)
    return written


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    """An artifact as 0.3 JSON."""
    written: dict[str, Any] = {"artifactId": artifact.artifact_id, "parts": parts_json(artifact.parts)}
    add_member(written, "name", artifact.name)
    add_member(written, "description", artifact.description)
    add_member(written, "metadata", artifact.metadata)
    add_member(written, "extensions", artifact.extensions)
    return written


def task_json(task: Task) -> dict[str, Any]:
    """A task as 0.3 JSON."""
    written: dict[str, Any] = {"kind": "task", "id": task.id, "contextId": task.context_id, "status": _status_json(task.status)}
    add_member(written, "artifacts", [artifact_json(artifact) for artifact in task.artifacts])
    add_member(written, "history", [message_json(message) for message in task.history])
    add_member(written, "metadata", task.metadata)
    return written


def event_json(event: Task | Message | TaskStatusUpdateEvent | TaskArtifactUpdateEvent) -> dict[str, Any]:
    """A result of message/send or message/stream as flat 0.3 JSON with a `kind`.

    `final` is true where 0.3 ends a stream: at terminal and interrupted states.
    """
    if isinstance(event, Task):
        return task_json(event)
    if isinstance(event, Message):
        return message_json(event)
    written: dict[str, Any] = {"taskId": event.task_id, "contextId": event.context_id}
    if isinstance(event, TaskStatusUpdateEvent):
        written.update(kind="status-update", status=_status_json(event.status), final=event.status.state in TERMINAL | INTERRUPTED)
    else:
        written.update(kind="artifact-update", artifact=artifact_json(event.artifact), append=event.append, lastChunk=event.last_chunk)
    add_member(written, "metadata", event.metadata)
    return written


def _status_json(status: TaskStatus) -> dict[str, Any]:
    written: dict[str, Any] = {"state": STATES[status.state]}
    if isinstance(status.message, Message):
        written["message"] = message_json(status.message)
    add_member(written, "timestamp", status.timestamp)
    return written


def parts_json(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Parts as 0.3 JSON."""
    return [_part_json(part) for part in parts]


def _part_json(part: Part) -> dict[str, Any]:
    written: dict[str, Any]
    metadata, homeless = part.metadata, {"mediaType": part.media_type, "filename": part.filename}
    if part.text is not UNSET:
        written = {"kind": "text", "text": part.text}
    elif part.data is not UNSET:
        written = {"kind": "data", "data": part.data}
        if not isinstance(part.data, dict):
            written["data"] = {"value": part.data}
            metadata = {**(metadata or {}), _COMPAT_KEY: True}
    else:
        written, homeless = {"kind": "file", "file": _file_json(part)}, {}
    metadata = with_carried_members(metadata, homeless)
    if not isinstance(metadata, UnsetType):
        written["metadata"] = metadata
    return written


def with_carried_members(metadata: dict[str, Any] | UnsetType, unsupported: Mapping[str, Any]) -> dict[str, Any] | UnsetType:
    """The metadata with members that the other version does not have, under CARRIED_KEY."""
    carried = {name: value for name, value in unsupported.items() if value}
    return {**(metadata or {}), CARRIED_KEY: carried} if carried else metadata


def restore_carried_members(part_or_message: dict[str, Any], *names: str) -> dict[str, Any]:
    """Moves members from the metadata's CARRIED_KEY to a part or message, unless it has them itself."""
    metadata = part_or_message.get("metadata")
    metadata_values = metadata.get(CARRIED_KEY) if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata_values, dict):
        return part_or_message
    left = {name: value for name, value in metadata.items() if name != CARRIED_KEY}
    carried = {name: metadata_values[name] for name in names if _has_member_type(name, metadata_values.get(name))}
    other_members = {name: value for name, value in part_or_message.items() if name != "metadata"}
    return {**carried, **other_members, **({"metadata": left} if left else {})}


def _file_json(part: Part) -> dict[str, Any]:
    written: dict[str, Any] = {"bytes": part.raw} if part.raw is not UNSET else {"uri": part.url}
    add_member(written, "mimeType", part.media_type)
    add_member(written, "name", part.filename)
    return written


def add_member(written: dict[str, Any], name: str, value: Any) -> None:
    """Sets a member unless its value is unset or empty; empty metadata are set too."""
    if value is not UNSET and (value or isinstance(value, dict)):
        written[name] = value


def _lift_configuration(configuration: dict[str, Any]) -> dict[str, Any]:
    blocking = configuration.get("blocking")
    if blocking is not None and not isinstance(blocking, bool):
        raise v1.BadMessage("configuration.blocking", "must be true or false")
    lifted: dict[str, Any] = {name: configuration[name] for name in ("acceptedOutputModes", "historyLength") if name in configuration}
    lifted["returnImmediately"] = blocking is False
    if configuration.get("pushNotificationConfig") is not None:
        lifted["taskPushNotificationConfig"] = lift_push_config(configuration["pushNotificationConfig"])
    return lifted


def _lift_part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("kind") or part.get("type")
    lifter = _LIFTERS.get(kind) if isinstance(kind, str) else None
    return lifter(part) if lifter else part


def _has_member_type(name: str, value: Any) -> bool:
    if name == "referenceTaskIds":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return isinstance(value, str)


def _lift_text(part: dict[str, Any]) -> dict[str, Any]:
    return restore_carried_members(_present_members(part, "text", "mediaType", "filename", "metadata"), *_UNSUPPORTED_MEMBERS)


def _lift_data(part: dict[str, Any]) -> dict[str, Any]:
    lifted = restore_carried_members(_present_members(part, "mediaType", "filename", "metadata"), *_UNSUPPORTED_MEMBERS)
    metadata, data = lifted.get("metadata"), part.get("data")
    if isinstance(metadata, dict) and metadata.get(_COMPAT_KEY) is True and isinstance(data, dict) and set(data) == {"value"}:
        data = data["value"]
        lifted["metadata"] = {name: value for name, value in metadata.items() if name != _COMPAT_KEY}
        if not lifted["metadata"]:
            del lifted["metadata"]
    return {**lifted, "data": data} if "data" in part else lifted


def _lift_file(part: dict[str, Any]) -> dict[str, Any]:
    file = part.get("file")
    if not isinstance(file, dict):
        return _present_members(part, "raw", "url", "mediaType", "filename", "metadata")
    lifted = _present_members(part, "metadata")
    for name, sources in _FILE_FIELDS:
        found = next((file[source] for source in sources if file.get(source) is not None), None)
        if found is not None:
            lifted[name] = found
    return lifted


def _present_members(part: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: part[name] for name in names if part.get(name) is not None}


_FILE_FIELDS: Final = (
    ("raw", ("bytes", "fileWithBytes")),
    ("url", ("uri", "fileWithUri")),
    ("mediaType", ("mimeType", "mediaType")),
    ("filename", ("name", "filename")),
)
_LIFTERS: Final[Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "text": _lift_text,
    "data": _lift_data,
    "file": _lift_file,
}
