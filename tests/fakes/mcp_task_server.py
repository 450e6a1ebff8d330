"""An MCP server of 2026-07-28 whose tool is a task for whoever takes tasks: it asks a name, then gives a resource that greets."""

import json
from typing import Any

TASKS = "io.modelcontextprotocol/tasks"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
TIMES = {"createdAt": "2026-07-28T00:00:00Z", "lastUpdatedAt": "2026-07-28T00:00:01Z", "ttlMs": 60000, "pollIntervalMs": 50}
QUESTION = {
    "method": "elicitation/create",
    "params": {"mode": "form", "message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}},
}

LISTS: dict[str, dict[str, Any]] = {
    "server/discover": {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}, "extensions": {TASKS: {}}},
        "serverInfo": {"name": "desk", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "greet", "inputSchema": {"type": "object"}}]},
}


class TaskServer:
    """Its ids are easy to guess, as those of careless servers are. `heard` are the requests."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.names: list[str] = []  # what Mcp-Name said
        self.tasks: dict[str, dict[str, Any]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = json.loads((await receive()).get("body", b""))
        self.heard.append(request)
        self.names.append(dict(scope["headers"]).get(b"mcp-name", b"").decode())
        result = self._answer(request["method"], request["params"])
        said = {"result": result} if result is not None else {"error": {"code": -32602, "message": "no such task"}}
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], **said}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method in LISTS:
            return {"resultType": "complete", **LISTS[method], "ttlMs": 0, "cacheScope": "private"}
        if method == "tools/call":
            return self._called(params)
        task = self.tasks.get(params.get("taskId", ""))
        if task is None:
            return None
        if method == "tasks/get":
            return {"resultType": "complete", **task}
        if method == "tasks/cancel":
            task["status"] = "cancelled"
            task.pop("inputRequests", None)
        elif "who" in params["inputResponses"]:
            name = params["inputResponses"]["who"]["content"]["name"]
            link = {"type": "resource_link", "uri": "note://1", "name": "note"}
            task |= {"status": "completed", "result": {"content": [{"type": "text", "text": f"hello {name}"}, link]}}
            task.pop("inputRequests")
        return {"resultType": "complete"}

    def _called(self, params: dict[str, Any]) -> dict[str, Any]:
        if TASKS not in params["_meta"][CAPABILITIES].get("extensions", {}):
            return {"resultType": "complete", "content": [{"type": "text", "text": "at once"}]}
        own = f"task-{len(self.tasks) + 1}"
        self.tasks[own] = {"taskId": own, "status": "input_required", **TIMES, "inputRequests": {"who": QUESTION}}
        return {"resultType": "task", "taskId": own, "status": "working", **TIMES}
