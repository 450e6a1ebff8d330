"""The valid requests of MCP and A2A that are changed at random: every method of both eras, versions and bindings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
_BOTH = f"{JSON}, text/event-stream"
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "fuzz", "version": "1"},
}
LEGACY = "2025-11-25"
INITIALIZE = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "fuzz", "version": "1"}}


@dataclass(frozen=True, slots=True)
class Seed:
    """One valid request: the body as a JSON value, None for none."""

    path: str
    headers: dict[str, str]
    body: Any
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Known:
    """Names and ids of a gateway, so that requests reach more than its lookups."""

    agent: str
    server: str
    task: str
    session: str


def every_seed(known: Known) -> list[Seed]:
    return [*_modern_mcp(known), *_legacy_mcp(known), *_a2a(known), *_a2a_0_3(known), *_rest(known)]


def rpc(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _modern_mcp(known: Known) -> Iterator[Seed]:
    """MCP 2026-07-28: headers repeat the method and the name."""
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("server/discover", {}, ""),
        ("tools/list", {}, ""),
        ("tools/call", {"name": "echo", "arguments": {"text": "hello"}}, "echo"),
        ("resources/list", {}, ""),
        ("resources/templates/list", {}, ""),
        ("resources/read", {"uri": "echo://one"}, "echo://one"),
        ("prompts/list", {}, ""),
        ("prompts/get", {"name": "greet", "arguments": {}}, "greet"),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": "b"}}, ""),
        ("tasks/get", {"taskId": known.task}, known.task),
        ("tasks/update", {"taskId": known.task, "inputResponses": {}}, known.task),
        ("tasks/cancel", {"taskId": known.task}, known.task),
        ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, ""),
    ]
    for method, params, name in calls:
        headers = {"Content-Type": JSON, "Accept": _BOTH, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
        if name:
            headers["Mcp-Name"] = name
        yield Seed(f"/mcp/{known.server}", headers, rpc(method, {**params, "_meta": _META}))
        yield Seed("/mcp", headers, rpc(method, {**params, "_meta": _META}))


def _legacy_mcp(known: Known) -> Iterator[Seed]:
    """MCP of the initialize era, in an open session."""
    headers = {"Content-Type": JSON, "Accept": _BOTH, "MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": known.session}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("ping", {}),
        ("tools/list", {}),
        ("tools/call", {"name": f"{known.server}_echo", "arguments": {"text": "hello"}}),
        ("resources/list", {}),
        ("resources/subscribe", {"uri": "echo://one"}),
        ("prompts/list", {}),
        ("logging/setLevel", {"level": "info"}),
        ("tasks/get", {"taskId": known.task}),
        ("tasks/result", {"taskId": known.task}),
        ("tasks/list", {}),
    ]
    for method, params in calls:
        yield Seed("/mcp", headers, rpc(method, params))
    without_session = {name: value for name, value in headers.items() if name != "Mcp-Session-Id"}
    yield Seed("/mcp", without_session, rpc("initialize", INITIALIZE))
    yield Seed("/mcp", headers, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    yield Seed("/mcp", headers, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    yield Seed("/mcp", headers, {"jsonrpc": "2.0", "id": 7, "result": {"action": "accept", "content": {}}})
    yield Seed("/mcp", {**headers, "MCP-Protocol-Version": "2025-03-26"}, [rpc("ping", {}), rpc("tools/list", {})])


def _a2a(known: Known) -> Iterator[Seed]:
    headers = {"Content-Type": JSON, "Accept": _BOTH, "A2A-Version": "1.0"}
    message = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    hook = {
        "taskId": known.task,
        "id": "hook",
        "url": "http://127.0.0.1:9/hook",
        "authentication": {"scheme": "Bearer", "credentials": "x"},
    }
    calls: list[tuple[str, dict[str, Any]]] = [
        ("SendMessage", {"message": message, "configuration": {"returnImmediately": False}}),
        ("SendMessage", {"message": {**message, "parts": [{"data": {"a": [1, 2]}, "mediaType": JSON}, {"raw": "aGk=", "filename": "f"}]}}),
        ("SendStreamingMessage", {"message": message}),
        ("GetTask", {"id": known.task, "historyLength": 3}),
        ("ListTasks", {"pageSize": 5, "status": "TASK_STATE_COMPLETED"}),
        ("CancelTask", {"id": known.task}),
        ("SubscribeToTask", {"id": known.task}),
        ("CreateTaskPushNotificationConfig", hook),
        ("GetTaskPushNotificationConfig", {"taskId": known.task, "id": "hook"}),
        ("ListTaskPushNotificationConfigs", {"taskId": known.task}),
        ("DeleteTaskPushNotificationConfig", {"taskId": known.task, "id": "hook"}),
        ("GetExtendedAgentCard", {}),
    ]
    for method, params in calls:
        yield Seed(f"/agents/{known.agent}", headers, rpc(method, params))


def _a2a_0_3(known: Known) -> Iterator[Seed]:
    headers = {"Content-Type": JSON, "Accept": _BOTH, "A2A-Version": "0.3"}
    message = {"kind": "message", "messageId": "m-1", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("message/send", {"message": message, "configuration": {"blocking": True}}),
        ("message/stream", {"message": message}),
        ("tasks/get", {"id": known.task}),
        ("tasks/cancel", {"id": known.task}),
        ("tasks/resubscribe", {"id": known.task}),
        ("tasks/pushNotificationConfig/set", {"taskId": known.task, "pushNotificationConfig": {"url": "http://127.0.0.1:9/hook"}}),
        ("tasks/pushNotificationConfig/list", {"id": known.task}),
        ("agent/getAuthenticatedExtendedCard", {}),
    ]
    for method, params in calls:
        yield Seed(f"/agents/{known.agent}", headers, rpc(method, params))


def _rest(known: Known) -> Iterator[Seed]:
    """The HTTP+JSON binding of A2A 1.0, whose errors are HTTP statuses."""
    headers = {"Content-Type": "application/a2a+json", "Accept": f"application/a2a+json, {_BOTH}", "A2A-Version": "1.0"}
    agent = f"/agents/{known.agent}"
    message = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    yield Seed(f"{agent}/message:send", headers, {"message": message})
    yield Seed(f"{agent}/message:stream", headers, {"message": message})
    yield Seed(f"{agent}/tasks/{known.task}:cancel", headers, {})
    yield Seed(f"{agent}/tasks/{known.task}:subscribe", headers, None, "GET")
    yield Seed(f"{agent}/tasks/{known.task}", headers, None, "GET")
    yield Seed(f"{agent}/tasks?pageSize=3&status=TASK_STATE_COMPLETED", headers, None, "GET")
    yield Seed(f"{agent}/tasks/{known.task}/pushNotificationConfigs", headers, {"id": "hook", "url": "http://127.0.0.1:9/hook"})
