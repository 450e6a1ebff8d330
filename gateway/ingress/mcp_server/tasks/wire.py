"""Tasks in the formats of MCP: the extension io.modelcontextprotocol/tasks, and tasks of 2025-11-25."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from adapters.mcp_client.wire.messages import META_PREFIX, MISSING_CAPABILITY
from adapters.task import TERMINAL, Message, Task, TaskArtifactUpdateEvent, TaskState, text_of
from gateway.ingress.mcp_server.elicitation.agent_questions import questions_of
from gateway.ingress.mcp_server.protocol.content import file_block, file_summary, files_of, status_text_of
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.tasks.log import TaskRecord, to_rfc3339
from gateway.tasks.log import stream_response as streamed
from gateway.tasks.turns.transitions import ERROR_METADATA

TASKS_EXTENSION = META_PREFIX + "tasks"
RELATED_TASK_KEY = META_PREFIX + "related-task"
TASKS_CAPABILITY: Mapping[str, Any] = {"extensions": {TASKS_EXTENSION: {}}}
LEGACY_TASKS_CAPABILITY: Mapping[str, Any] = {"tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}
CANCEL_METHOD = "tasks/cancel"
LEGACY_TASKS_VERSION = "2025-11-25"  # the only legacy revision with tasks
POLL_MS = 1000
AGENT_FAILED_CODE = -32015  # the code of a call whose agent fails
STATUS_TEXT_MAX = 1000  # characters of a status message
LEGACY_NAMES = {"ttlMs": "ttl", "pollIntervalMs": "pollInterval"}
encode = msgspec.json.Encoder().encode
ENDED_STATUSES = frozenset({"completed", "failed", "cancelled"})
STATUSES = ENDED_STATUSES | {"working", "input_required"}


def declares_tasks(capabilities: Mapping[str, Any]) -> bool:
    """Returns whether a client declared the extension."""
    extensions = capabilities.get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(TASKS_EXTENSION), dict)


def check_declares_tasks(capabilities: Mapping[str, Any], problem: str) -> None:
    """Raises BadEnvelope (-32021, SEP-2663) unless the client declared the extension."""
    if not declares_tasks(capabilities):
        raise BadEnvelope(MISSING_CAPABILITY, problem, {"requiredCapabilities": TASKS_CAPABILITY})


def created_task(record: TaskRecord) -> dict[str, Any]:
    """Returns a task without its outcome, for CreateTaskResult."""
    task = record.to_task(0)
    status = _mcp_status(task)
    status_text = status_text_of(task)
    return {
        "taskId": task.id,
        "status": status,
        **({"statusMessage": status_text[:STATUS_TEXT_MAX]} if status_text and status != "completed" else {}),
        "createdAt": to_rfc3339(record.row.created),
        "lastUpdatedAt": to_rfc3339(record.row.updated),
        "ttlMs": None,
        "pollIntervalMs": POLL_MS,
    }


def detailed_task(record: TaskRecord, answered_keys: Container[str] = ()) -> dict[str, Any]:
    """Returns a DetailedTask. `answered_keys` are questions whose answers wait for the other answers."""
    shown = created_task(record)
    match shown["status"]:
        case "input_required":
            open_now = {key: question for key, question in questions_of(record).items() if key not in answered_keys}
            return {**shown, "inputRequests": open_now} if open_now else {**shown, "status": "working"}
        case "completed":
            return {**shown, "result": tool_result(record)}
        case "failed":
            return {**shown, "error": {"code": AGENT_FAILED_CODE, "message": shown.get("statusMessage", "The agent failed.")}}
    return shown


def legacy_task(task_document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a Task of 2025-11-25, whose outcome is requested separately."""
    apart = ("resultType", "result", "error", "inputRequests")
    return {LEGACY_NAMES.get(name, name): value for name, value in task_document.items() if name not in apart}


def tool_result(record: TaskRecord, version: str = "") -> dict[str, Any]:
    """Returns an agent's task as a tool result: text, data, files and the task. A task that failed has isError.

    `version` is the client's revision in the legacy era.
    """
    task = record.to_task()
    part_lists = [artifact.parts for artifact in task.artifacts]
    if isinstance(task.status.message, Message):
        part_lists.append(task.status.message.parts)
    text = "\n".join(part for part in (*_artifact_texts(record), status_text_of(task)) if part)
    data = [part.data for parts in part_lists for part in parts if part.data is not UNSET]
    files = list(files_of(task))
    state = task.status.state
    content: dict[str, Any] = {"task_id": task.id, "context_id": task.context_id, "state": state.value, "text": text}
    content |= ({"data": data} if data else {}) | ({"files": [file_summary(part) for _, part in files]} if files else {})
    shown = [{"type": "text", "text": each} for each in (text, *(encode(one).decode() for one in data)) if each]
    shown += [file_block(uri, part, version) for uri, part in files]
    failed = state in TERMINAL and state is not TaskState.COMPLETED
    return {"content": shown or [{"type": "text", "text": ""}], "structuredContent": content, "isError": failed}


def _artifact_texts(record: TaskRecord) -> Iterator[str]:
    """Yields the text of each artifact; pieces that were appended are one text."""
    found: dict[str, str] = {}
    for event in record.events:
        streamed_event = streamed(record.row, event) if event.kind == "artifact" else None
        if streamed_event is not None and isinstance(update := streamed_event.artifact_update, TaskArtifactUpdateEvent):
            name, text = update.artifact.artifact_id, text_of(update.artifact.parts)
            found[name] = found.get(name, "") + text if update.append else text
    yield from found.values()


def _mcp_status(task: Task) -> str:
    """Returns the MCP status. An agent that reports its failure has a result with isError; `failed` means that the call itself failed."""
    match task.status.state:
        case TaskState.INPUT_REQUIRED:
            return "input_required"
        case TaskState.CANCELED:
            return "cancelled"
        case TaskState.COMPLETED | TaskState.REJECTED:
            return "completed"
        case TaskState.FAILED:
            return "failed" if _has_call_failed(task) else "completed"
    return "working"


def _has_call_failed(task: Task) -> bool:
    message = task.status.message
    return isinstance(message, Message) and message.metadata is not UNSET and ERROR_METADATA in message.metadata
