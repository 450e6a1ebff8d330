"""A2A 0.3 in ProtoJSON: the bodies of 0.3 over HTTP+JSON, and the messages of 0.3 over gRPC.

A message's `referenceTaskIds` are carried in its metadata, like the members described in `v03`. A file's bytes are its base64 text, as
in the reference implementation, so that its JSON is base64 of base64; bytes that are no base64 inside are taken as they are.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from adapters.a2a_client.wire import v03
from adapters.task import (
    INTERRUPTED,
    TERMINAL,
    Artifact,
    Message,
    Part,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

_CANCELED: Final = "TASK_STATE_CANCELLED"  # as 0.3 spells it
_SNAKE: Final = re.compile(r"_([a-z])")


def build_send_params(
    message: Message, modes: tuple[str, ...], push_url: str = "", metadata: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The SendMessageRequest, blocking. `push_url`: where to push; the agent then need not wait for the task's end."""
    configuration: dict[str, Any] = {"blocking": not push_url}
    if modes:
        configuration["acceptedOutputModes"] = modes
    if push_url:
        configuration["pushNotification"] = {"url": push_url}
    return {"message": message_json(message), "configuration": configuration, **({"metadata": metadata} if metadata else {})}


def message_json(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"messageId": message.message_id, "role": message.role.value, "content": _parts_json(message.parts)}
    v03.add_member(written, "contextId", message.context_id)
    v03.add_member(written, "taskId", message.task_id)
    v03.add_member(written, "metadata", v03.with_carried_members(message.metadata, {"referenceTaskIds": message.reference_task_ids}))
    v03.add_member(written, "extensions", message.extensions)
    return written


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    return {**v03.artifact_json(artifact), "parts": _parts_json(artifact.parts)}


def task_json(task: Task) -> dict[str, Any]:
    written: dict[str, Any] = {"id": task.id, "contextId": task.context_id, "status": _status_json(task.status)}
    v03.add_member(written, "artifacts", [artifact_json(artifact) for artifact in task.artifacts])
    v03.add_member(written, "history", [message_json(message) for message in task.history])
    v03.add_member(written, "metadata", task.metadata)
    return written


def event_json(event: Task | Message | TaskStatusUpdateEvent | TaskArtifactUpdateEvent) -> dict[str, Any]:
    """A SendMessageResponse or StreamResponse. `final` is true where 0.3 ends a stream: at terminal and interrupted states."""
    if isinstance(event, Task):
        return {"task": task_json(event)}
    if isinstance(event, Message):
        return {"message": message_json(event)}
    written: dict[str, Any] = {"taskId": event.task_id, "contextId": event.context_id}
    v03.add_member(written, "metadata", event.metadata)
    if isinstance(event, TaskStatusUpdateEvent):
        written.update(status=_status_json(event.status), final=event.status.state in TERMINAL | INTERRUPTED)
        return {"statusUpdate": written}
    written.update(artifact=artifact_json(event.artifact), append=event.append, lastChunk=event.last_chunk)
    return {"artifactUpdate": written}


def lift_event(value: Any) -> Any:
    """A task, message or event, wrapped or not, converted towards 0.3's JSON-RPC form, for `tolerant` to read."""
    if not isinstance(value, dict):
        return value
    members = with_json_names(value)
    for name, lift in _EVENT_LIFTERS.items():
        if "kind" not in members and isinstance(members.get(name), dict):
            return {"message" if name == "msg" else name: lift(members[name])}
    return _lift_task(value) if "status" in value else lift_message(value)


def with_json_names(value: dict[str, Any]) -> dict[str, Any]:
    """The members with ProtoJSON names; the names of the .proto file are accepted too."""
    return {_SNAKE.sub(lambda found: found[1].upper(), name): member for name, member in value.items()}


def _status_json(status: TaskStatus) -> dict[str, Any]:
    written: dict[str, Any] = {"state": _CANCELED if status.state is TaskState.CANCELED else status.state.value}
    if isinstance(status.message, Message):
        written["message"] = message_json(status.message)
    v03.add_member(written, "timestamp", status.timestamp)
    return written


def _parts_json(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    return [_part_json(part) for part in v03.parts_json(parts)]


def _part_json(part: dict[str, Any]) -> dict[str, Any]:
    """A part of 0.3's JSON-RPC as 0.3's ProtoJSON."""
    written: dict[str, Any] = {"metadata": part["metadata"]} if "metadata" in part else {}
    match part["kind"]:
        case "text":
            written["text"] = part["text"]
        case "data":
            written["data"] = {"data": part["data"]}
        case _:
            file = {new: part["file"][old] for old, new in _FILE.items() if old in part["file"]}
            if "fileWithBytes" in file:
                file["fileWithBytes"] = base64.b64encode(file["fileWithBytes"].encode()).decode()
            written["file"] = file
    return written


def lift_message(message: Any) -> Any:
    """A message converted towards 0.3's JSON-RPC form."""
    if not isinstance(message, dict):
        return message
    lifted = with_json_names(message)
    if "content" in lifted and "parts" not in lifted:
        lifted["parts"] = lifted.pop("content")
    return _lift_parts(v03.restore_carried_members(lifted, "referenceTaskIds"))


def _lift_artifact(artifact: Any) -> Any:
    return _lift_parts(with_json_names(artifact)) if isinstance(artifact, dict) else artifact


def _lift_task(task: dict[str, Any]) -> dict[str, Any]:
    members = with_json_names(task)
    lifted = {**members, "status": _lift_status(members.get("status"))}
    for name, lift in (("artifacts", _lift_artifact), ("history", lift_message)):
        if isinstance(lifted.get(name), list):
            lifted[name] = [lift(member) for member in lifted[name]]
    return lifted


def _lift_status(status: Any) -> Any:
    if not isinstance(status, dict) or "message" not in status:
        return status
    return {**status, "message": lift_message(status["message"])}


def _lift_status_update(update: dict[str, Any]) -> dict[str, Any]:
    return {**with_json_names(update), "status": _lift_status(update.get("status"))}


def _lift_artifact_update(update: dict[str, Any]) -> dict[str, Any]:
    return {**with_json_names(update), "artifact": _lift_artifact(update.get("artifact"))}


def _lift_parts(holder: dict[str, Any]) -> dict[str, Any]:
    parts = holder.get("parts")
    return {**holder, "parts": [_lift_part(part) for part in parts]} if isinstance(parts, list) else holder


def _lift_part(part: Any) -> Any:
    if not isinstance(part, dict) or "kind" in part:
        return part
    if "text" in part:
        return {**part, "kind": "text"}
    data, file = part.get("data"), part.get("file")
    if isinstance(data, dict):
        return {**part, "kind": "data", "data": data.get("data", {})}
    if not isinstance(file, dict):
        return part
    file_members = with_json_names(file)
    lifted = {old: file_members[new] for old, new in _FILE.items() if new in file_members}
    if "bytes" in lifted:
        lifted["bytes"] = _base64_of(lifted["bytes"])
    return {**part, "kind": "file", "file": lifted}


def _base64_of(text: Any) -> Any:
    """The base64 of a file, from ProtoJSON's base64 of that text or of the bytes."""
    try:
        inner = base64.b64decode(text, validate=True).decode("ascii")
        base64.b64decode(inner, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return text
    return inner


_FILE: Final = {"bytes": "fileWithBytes", "uri": "fileWithUri", "mimeType": "mimeType", "name": "name"}
_EVENT_LIFTERS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "task": _lift_task,
    "msg": lift_message,
    "message": lift_message,
    "statusUpdate": _lift_status_update,
    "artifactUpdate": _lift_artifact_update,
}
