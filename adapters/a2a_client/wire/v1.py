"""The A2A 1.0 JSON-RPC wire format: validation of callers' requests and of agents' responses."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from adapters.task import (
    Artifact,
    Message,
    Part,
    PushConfig,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskStatus,
    TaskStatusUpdateEvent,
    encode,
)
from registry.names import InvalidMember

ID_LIMIT: Final = 256  # characters
PARTS_LIMIT: Final = 1000
REFERENCES_LIMIT: Final = 100
DEPTH_LIMIT: Final = 64
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_ERROR_TEXT: Final = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_MEMBER: Final = re.compile(r"(missing required|contains unknown) field `(?P<name>[^`]*)`")
OPAQUE_MEMBERS: Final = frozenset({"data", "metadata"})  # their members are the sender's own
_SNAKE: Final = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")
S = TypeVar("S")


class BadMessage(InvalidMember, ValueError):
    """A request violates A2A. `field` is its path in the parameters; `problem` says why and quotes nothing."""


class Configuration(Struct, frozen=True, rename="camel"):
    """SendMessageConfiguration (s3.2.2). `history_length`: None = the server's default, 0 = none, n = the last n."""

    accepted_output_modes: tuple[str, ...] = ()
    history_length: int | None = None
    return_immediately: bool = False
    task_push_notification_config: PushConfig | None = None


class SendParams(Struct, frozen=True, rename="camel"):
    """SendMessageRequest (s3.2.1)."""

    message: Message
    configuration: Configuration = Configuration()
    metadata: dict[str, Any] | UnsetType = UNSET
    tenant: str = ""


class TaskParams(Struct, frozen=True, rename="camel"):
    """GetTaskRequest, CancelTaskRequest and SubscribeToTaskRequest (s3.1.3-6)."""

    id: str
    history_length: int | None = None
    tenant: str = ""


def read_send_params(params: Any) -> SendParams:
    """Reads the decoded `params` of SendMessage and SendStreamingMessage. Raises BadMessage."""
    read = convert_params(params, SendParams)
    check_message(read.message, "message")
    _check_history_length(read.configuration.history_length, "configuration.historyLength")
    return read


def read_task_params(params: Any) -> TaskParams:
    """Reads the decoded `params` of GetTask, CancelTask and SubscribeToTask. Raises BadMessage."""
    read = convert_params(params, TaskParams)
    check_id(read.id, "id")
    if not read.id:
        raise BadMessage("id", "is empty")
    _check_history_length(read.history_length, "historyLength")
    return read


def check_message(message: Message, where: str) -> None:
    """Checks what types do not express (s4.1.4, s4.1.6). Raises BadMessage with a path below `where`."""
    if not message.message_id:
        raise BadMessage(f"{where}.messageId", "is empty")
    check_id(message.message_id, f"{where}.messageId")
    check_id(message.context_id, f"{where}.contextId")
    check_id(message.task_id, f"{where}.taskId")
    if len(message.reference_task_ids) > REFERENCES_LIMIT:
        raise BadMessage(f"{where}.referenceTaskIds", f"names more than {REFERENCES_LIMIT} tasks")
    for task_id in message.reference_task_ids:
        check_id(task_id, f"{where}.referenceTaskIds")
    if not message.parts:
        raise BadMessage(f"{where}.parts", "is empty: a message needs at least one part")
    if len(message.parts) > PARTS_LIMIT:
        raise BadMessage(f"{where}.parts", f"has more than {PARTS_LIMIT} parts")
    for index, part in enumerate(message.parts):
        problem = part_problem(part)
        if problem:
            raise BadMessage(f"{where}.parts[{index}]", problem)


def part_problem(part: Part) -> str:
    """Why `part` is invalid, or the empty string. Exactly one of text, raw, url and data must be set."""
    content_count = (part.text is not UNSET) + (part.raw is not UNSET) + (part.url is not UNSET) + (part.data is not UNSET)
    if content_count != 1:
        return "needs one of text, raw, url and data" if not content_count else "has more than one of text, raw, url and data"
    if part.raw is not UNSET and not _BASE64.fullmatch(part.raw):
        return "has raw content that is not base64"
    return ""


def clean_member(response: StreamResponse) -> Task | Message | TaskStatusUpdateEvent | TaskArtifactUpdateEvent | None:
    """The only member of a response decoded by type; None unless it is complete 1.0: then `tolerant` has to read it."""
    artifact, status, task, message = response.artifact_update, response.status_update, response.task, response.message
    if (artifact is UNSET) + (status is UNSET) + (task is UNSET) + (message is UNSET) != 3:
        return None
    if artifact is not UNSET:
        return artifact if _is_clean_artifact_update(artifact) else None
    if status is not UNSET:
        return status if _is_clean_status_update(status) else None
    if task is not UNSET:
        return task if is_clean_task(task) else None
    return message if message is not UNSET and _is_clean_message(message) else None


def only_member(response: StreamResponse) -> Task | Message | TaskStatusUpdateEvent | TaskArtifactUpdateEvent:
    """The only member of a clean response."""
    for member in (response.task, response.message, response.status_update, response.artifact_update):
        if not isinstance(member, UnsetType):
            return member
    raise ValueError("a response without a member is not clean")


def is_bounded(value: Any, depth: int = DEPTH_LIMIT) -> bool:
    """Whether a JSON value is at most `depth` deep and has finite numbers, so that every client can read it."""
    if not isinstance(value, dict | list):
        return not isinstance(value, float) or math.isfinite(value)
    level: list[Any] = [value]
    for _ in range(depth):
        members = [member for each in level for member in (each.values() if isinstance(each, dict) else each)]
        if any(isinstance(member, float) and not math.isfinite(member) for member in members):
            return False
        level = [member for member in members if isinstance(member, dict | list)]
        if not level:
            return True
    return False


def send_result(outcome: Task | Message) -> StreamResponse:
    """The result of SendMessage, wrapped by its kind (s9.4.1). Encode it with `task.encode`."""
    return StreamResponse(task=outcome) if isinstance(outcome, Task) else StreamResponse(message=outcome)


def result_bytes(request_id: Any, result: Any) -> bytes:
    """A JSON-RPC response. `request_id` is the caller's, of any JSON type."""
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (encode(request_id), encode(result))


def error_bytes(request_id: Any, code: int, message: str, data: Iterable[dict[str, Any]] = ()) -> bytes:
    """A JSON-RPC error; `data` are google.rpc details with `@type` (s9.5)."""
    error: dict[str, Any] = {"code": code, "message": message}
    details = list(data)
    if details:
        error["data"] = details
    return b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (encode(request_id), encode(error))


def is_clean_task(task: Task) -> bool:
    """Whether a task decoded by type is complete 1.0."""
    return (
        bool(task.id)
        and _is_clean_status(task.status)
        and all(map(_is_clean_artifact, task.artifacts))
        and all(map(_is_clean_message, task.history))
        and (task.metadata is UNSET or is_bounded(task.metadata))
    )


def _is_clean_artifact_update(update: TaskArtifactUpdateEvent) -> bool:
    return bool(update.task_id) and _is_clean_artifact(update.artifact) and (update.metadata is UNSET or is_bounded(update.metadata))


def _is_clean_status_update(update: TaskStatusUpdateEvent) -> bool:
    return bool(update.task_id) and _is_clean_status(update.status) and (update.metadata is UNSET or is_bounded(update.metadata))


def _is_clean_status(status: TaskStatus) -> bool:
    if status.timestamp and not status.timestamp.endswith("Z"):
        return False
    return status.message is UNSET or _is_clean_message(status.message)


def _is_clean_message(message: Message) -> bool:
    return bool(message.message_id) and _are_clean_parts(message.parts) and (message.metadata is UNSET or is_bounded(message.metadata))


def _is_clean_artifact(artifact: Artifact) -> bool:
    return bool(artifact.artifact_id) and _are_clean_parts(artifact.parts) and (artifact.metadata is UNSET or is_bounded(artifact.metadata))


def _are_clean_parts(parts: tuple[Part, ...]) -> bool:
    for part in parts:
        if part_problem(part):
            return False
        if (part.data is not UNSET and not is_bounded(part.data)) or (part.metadata is not UNSET and not is_bounded(part.metadata)):
            return False
    return bool(parts)


def convert_params(params: Any, kind: type[S]) -> S:
    """Converts decoded params to a request type, ignoring unknown members. Raises BadMessage."""
    if not isinstance(params, dict):
        raise BadMessage("params", "must be an object")
    params = with_json_names(params)
    try:
        return msgspec.convert(params, kind)
    except msgspec.ValidationError:
        pass
    try:  # ProtoJSON: null means absent
        return msgspec.convert(without_nulls(params), kind)
    except msgspec.ValidationError as error:
        raise bad_message_from(error) from None


def without_nulls(value: Any) -> Any:
    """The JSON without null members, except inside `data` and `metadata`, where null is a value."""
    if isinstance(value, dict):
        return {
            name: member if name in OPAQUE_MEMBERS else without_nulls(member)
            for name, member in value.items()
            if member is not None or name == "data"
        }
    if isinstance(value, list):
        return [without_nulls(member) for member in value]
    return value


def bad_message_from(error: msgspec.ValidationError) -> BadMessage:
    """The BadMessage for a decoding error, with the field's path and without the caller's value."""
    found = _ERROR_TEXT.match(str(error))
    problem, path = (found["what"], found["path"] or "") if found else ("is invalid", "")
    member = _MEMBER.search(problem)
    if member:
        return BadMessage(f"{path}.{member['name']}".lstrip("."), "is missing")
    if problem.startswith("Invalid enum value"):
        return BadMessage(path or "params", "is not one of the values that A2A knows")
    return BadMessage(path or "params", f"has the wrong type ({problem[0].lower()}{problem[1:]})" if problem else "is invalid")


def check_id(text: str, where: str) -> None:
    """Raises BadMessage unless an id is short and printable."""
    if len(text) > ID_LIMIT or not text.isprintable():
        raise BadMessage(where, f"is longer than {ID_LIMIT} characters, or has unprintable ones")


def _check_history_length(length: int | None, where: str) -> None:
    if length is not None and length < 0:
        raise BadMessage(where, "is negative")


def with_json_names(value: Any) -> Any:
    """The JSON with every member renamed to its JSON name (A2A 1.0 s5.5: readers accept the names of the .proto file too).

    Returns the same object if nothing changes.
    """
    return _rename_members(value) if _has_proto_names(value) else value


def to_json_name(name: str) -> str:
    return _SNAKE.sub(lambda found: found[1].upper(), name)


def _has_proto_names(value: Any) -> bool:
    nested = [value]
    for each in nested:  # the list grows during the loop
        if type(each) is dict:
            for name, member in each.items():
                if "_" in name:
                    return True
                if (type(member) is dict or type(member) is list) and name not in OPAQUE_MEMBERS:
                    nested.append(member)
        else:
            nested += [member for member in each if type(member) is dict or type(member) is list]
    return False


def _rename_members(value: Any) -> Any:
    if isinstance(value, dict):
        renamed = {
            to_json_name(name): member if name in OPAQUE_MEMBERS else _rename_members(member)
            for name, member in value.items()
            if "_" in name
        }
        return {
            **renamed,
            **{name: member if name in OPAQUE_MEMBERS else _rename_members(member) for name, member in value.items() if "_" not in name},
        }
    return [_rename_members(member) for member in value] if isinstance(value, list) else value
