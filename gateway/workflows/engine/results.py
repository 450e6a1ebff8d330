"""What a task that a step caused comes to: the step's output, or the fault that it ends with."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET

from adapters.contract import AGENT_LATE, Failed
from adapters.mcp_client.agent import RESULT_ARTIFACT
from adapters.task import Message, Part, Role, Task, TaskState, text_of
from gateway.tasks.contracts.skills import CONTRACT_BROKEN
from gateway.tasks.turns.recorder import GATEWAY_FAILURE
from gateway.tasks.turns.transitions import ERROR_METADATA
from gateway.workflows.interpreter.errors import OWN, Fault, WorkflowError, standard_error
from gateway.workflows.problems import Problem

FAULT_MEDIA_TYPE: Final = "application/problem+json"
MISFIT_TEXT: Final = "The workflow no longer fits what it calls, so it starts no new runs."
DETAIL_MAX: Final = 1000  # characters of an agent's words in a fault
FAILURE_TYPES: Final[Mapping[str, str]] = {AGENT_LATE: "timeout", CONTRACT_BROKEN: "validation"}


def own_error(kind: str, status: int, title: str, detail: str, instance: str) -> WorkflowError:
    """An error of one of the gateway's own types, such as "outcome-unknown"."""
    return WorkflowError(Fault(OWN + kind, status, title, detail[:DETAIL_MAX], instance))


def check_completed(task: Task, target: str, instance: str) -> None:
    """Raises WorkflowError unless the task completed. `target` names the agent or tool in the error's text."""
    if task.status.state is TaskState.COMPLETED:
        return
    message = task.status.message
    text = (text_of(message.parts) if isinstance(message, Message) else "") or f"ended as {task.status.state.value}"
    reason = _failure_reason(message)
    detail = f"{target}: {text}"[:DETAIL_MAX]
    if reason == GATEWAY_FAILURE:
        raise own_error("outcome-unknown", 500, "Outcome Unknown", detail, instance)
    agent_said_so = not reason or task.status.state is not TaskState.FAILED
    raise standard_error("runtime" if agent_said_so else FAILURE_TYPES.get(reason, "communication"), detail, instance)


def _failure_reason(message: Any) -> str:
    """The kind of the failure where the gateway says it; empty where the agent itself reported the failure."""
    metadata = message.metadata if isinstance(message, Message) else UNSET
    error = metadata.get(ERROR_METADATA) if isinstance(metadata, dict) else None
    return str(error.get("reason", "")) if isinstance(error, dict) else ""


def a2a_result(task: Task) -> Any:
    """The task as `message/send` of A2A 1.0 returns it."""
    return msgspec.to_builtins(task)


def agent_output(task: Task) -> Any:
    """What an agent answered: the first data part of its artifacts or its message, else all of its text."""
    message = task.status.message
    parts = [part for artifact in task.artifacts for part in artifact.parts]
    parts = parts or (list(message.parts) if isinstance(message, Message) else [])
    data = next((part.data for part in parts if part.data is not UNSET), UNSET)
    return text_of(tuple(parts)) if data is UNSET else data


def tool_output(task: Task) -> Any:
    """What a tool returned: its structured content, else all of its text."""
    parts = _tool_parts(task)
    return parts[0].data if parts and parts[0].data is not UNSET else text_of(parts)


def computed_value(task: Task) -> Any:
    """The value of the last expression of a computation."""
    structured = tool_output(task)
    return structured.get("value") if isinstance(structured, Mapping) else structured


def http_content(task: Task) -> Any:
    """The content of a response: JSON where it is some, else its text."""
    found = tool_output(task)
    try:
        return msgspec.json.decode(found) if isinstance(found, str) else found
    except (msgspec.DecodeError, RecursionError):
        return found


def mcp_result(task: Task) -> dict[str, Any]:
    """The result of `tools/call` in MCP's form, as far as a document can use it: texts and structured content."""
    parts = _tool_parts(task)
    content = [{"type": "text", "text": part.text} for part in parts if isinstance(part.text, str)]
    structured = {"structuredContent": parts[0].data} if parts and parts[0].data is not UNSET else {}
    return {"content": content, **structured}


def _tool_parts(task: Task) -> tuple[Part, ...]:
    return next((artifact.parts for artifact in task.artifacts if artifact.artifact_id == RESULT_ARTIFACT), ())


def misfit_ending(problems: tuple[Problem, ...]) -> Failed:
    """The refusal of a new run, with each thing that no longer fits."""
    first = "; ".join(f"{each.path or '/'} (line {each.line}) {each.reason}" for each in problems[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    words = f"{MISFIT_TEXT} {first}{more}"
    found = [{"line": each.line, "path": each.path, "reason": each.reason} for each in problems]
    parts = (Part(text=words), Part(data={"problems": found}, media_type=FAULT_MEDIA_TYPE))
    return Failed(words, Message("misfit", Role.AGENT, parts), rejected=True)


def fault_ending(fault: Fault) -> Failed:
    """A run that faulted, in words, with the problem details (RFC 7807) as data."""
    words = f"{fault.title or fault.type} at {fault.instance or '/'}: {fault.detail or ''}".rstrip(": ")
    shown = {name: value for name in Fault.__struct_fields__ if (value := getattr(fault, name)) is not UNSET}
    parts = (Part(text=words), Part(data=shown, media_type=FAULT_MEDIA_TYPE))
    return Failed(words, Message(f"fault-{fault.status}", Role.AGENT, parts))
