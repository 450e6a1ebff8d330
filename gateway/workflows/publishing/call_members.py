"""Members of calls that have no effect here: a document with one is refused, so that its author does not rely on it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.workflows.dsl.determinism import COMPUTE
from gateway.workflows.dsl.document import A2aCall, CallA2a, CallFunction, CallMcp, CallOpenApi, Document, McpCall, TaskBase
from gateway.workflows.dsl.loading import pointer
from gateway.workflows.dsl.walk import tasks

Found = Iterator[tuple[str, str]]
MESSAGE_METHODS: Final = ("message/send", "message/stream")
TOOL_METHOD: Final = "tools/call"
FUNCTION_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "gateway.agent": frozenset({"agent", "agents", "skill", "input"}),
    "gateway.tool": frozenset({"tool", "arguments"}),
    COMPUTE: frozenset({"code", "inputs"}),
}
MESSAGE_MEMBERS: Final = frozenset({"role", "parts", "kind", "messageId"})
A2A_REASONS: Final[Mapping[str, str]] = {
    "tasks/get": "the gateway follows the task of a step itself, and its output is that task",
    "tasks/list": "a document reaches the tasks of its own steps alone, whose outputs it has",
    "tasks/cancel": "the gateway cancels the task of a step that times out, or loses in a fork",
    "tasks/resubscribe": "the gateway follows the task of a step itself, also after a restart",
    "tasks/pushNotificationConfig/set": "the gateway itself is told of the tasks of steps",
    "tasks/pushNotificationConfig/get": "the gateway itself is told of the tasks of steps",
    "tasks/pushNotificationConfig/list": "the gateway itself is told of the tasks of steps",
    "tasks/pushNotificationConfig/delete": "the gateway itself is told of the tasks of steps",
    "agent/getAuthenticatedExtendedCard": "the registry has the agent's card",
}
MCP_REASONS: Final[Mapping[str, str]] = {
    "tools/list": "a document names the tools that it calls",
    "prompts/list": "prompts are for people and models, and steps call tools",
    "prompts/get": "prompts are for people and models, and steps call tools",
    "resources/list": "steps call tools; offer the data by one",
    "resources/read": "steps call tools; offer the data by one",
    "resources/templates/list": "steps call tools; offer the data by one",
}
OWN_CONTEXT: Final = "the gateway gives each step a conversation and a task of its own"


def unused_members(document: Document) -> Found:
    """The place and the reason of every member that would have no effect."""
    for placed in tasks(document):
        yield from _of_task(placed.task, placed.path)


def _of_task(task: TaskBase, path: str) -> Found:
    match task:
        case CallA2a(with_=call):
            yield from _of_a2a(call, f"{path}/with")
        case CallMcp(with_=call):
            yield from _of_mcp(call, f"{path}/with")
        case CallOpenApi(with_=call) if call.authentication is not None:
            yield f"{path}/with/authentication", "carries credentials; they belong to the registered agent or server"
        case CallFunction(call=name, with_=given) if name in FUNCTION_MEMBERS:
            known = FUNCTION_MEMBERS[name]
            yield from _unknown(given, known, f"{path}/with", f"is not known to `{name}`, which has {', '.join(sorted(known))}")


def _of_a2a(call: A2aCall, path: str) -> Found:
    if call.method not in MESSAGE_METHODS:
        yield f"{path}/method", f"is not run: {A2A_REASONS[call.method]}"
        return
    if isinstance(call.parameters, str):
        return
    yield from _unknown(call.parameters, frozenset({"message"}), f"{path}/parameters", f"is not passed on: {OWN_CONTEXT}")
    message = call.parameters.get("message")
    if isinstance(message, Mapping):
        yield from _unknown(message, MESSAGE_MEMBERS, f"{path}/parameters/message", f"is not passed on: {OWN_CONTEXT}")


def _of_mcp(call: McpCall, path: str) -> Found:
    if call.method != TOOL_METHOD:
        yield f"{path}/method", f"is not run: {MCP_REASONS[call.method]}"
        return
    if call.timeout is not None:
        yield f"{path}/timeout", "is not run: the `timeout` of the task is"
    if call.client is not None:
        yield f"{path}/client", "is not passed on: the gateway is the client, under its own name"
    if call.transport.options:
        yield f"{path}/transport/options", "is not passed on: the registered server says how it is reached"
    if call.transport.http is not None and call.transport.http.headers:
        yield f"{path}/transport/http/headers", "is not passed on: headers belong to the registered server"
    if isinstance(call.parameters, Mapping):
        yield from _unknown(call.parameters, frozenset({"name", "arguments"}), f"{path}/parameters", "is not passed on to the tool")


def _unknown(given: Mapping[str, Any], known: frozenset[str], path: str, reason: str) -> Found:
    for name in given:
        if name not in known:
            yield path + pointer(name), reason
