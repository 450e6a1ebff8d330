"""The gateway as any outside program reaches it: over HTTP, with a bearer token."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from examples.demo.screen import StepFailed

REVISION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": REVISION,
    "io.modelcontextprotocol/clientInfo": {"name": "demo", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Outside:
    """One person with their token."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)

    def register(self, path: str, **document: Any) -> Any:
        """POST /api/agents or /api/servers. Raises StepFailed unless it was created."""
        return _answer(self._client.post(path, json=document), httpx.codes.CREATED)

    def get(self, path: str) -> Any:
        return _answer(self._client.get(path), httpx.codes.OK)

    def send(self, agent: str, text: str) -> dict[str, Any]:
        """A2A 1.0 SendMessage, which waits for the end: the task."""
        message = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": [{"text": text}]}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
        answer = _answer(self._client.post(f"/agents/{agent}", json=body, headers={"A2A-Version": "1.0"}), httpx.codes.OK)
        if "task" not in answer.get("result", {}):
            raise StepFailed(f"the answer of {agent} holds no task: {answer}")
        task: dict[str, Any] = answer["result"]["task"]
        return task

    def call_tool(self, server: str, tool: str, **arguments: Any) -> Any:
        """MCP tools/call: the result, or the error."""
        params = {"name": tool, "arguments": arguments, "_meta": META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {
            "MCP-Protocol-Version": REVISION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
            "Accept": "application/json, text/event-stream",
        }
        answer = _answer(self._client.post(f"/mcp/{server}", json=body, headers=headers), httpx.codes.OK)
        return answer.get("result") or answer["error"]

    def decisions(self, task_id: str) -> list[dict[str, Any]]:
        """Every decision of the task and of all that it caused, in the order in which they were made."""
        trace = self.get(f"/api/tasks/{task_id}/trace")
        return [self.get(f"/api/decisions/{decision}") for decision in dict.fromkeys(members(trace, "decision_id"))]


def members(value: Any, name: str) -> Iterator[str]:
    """Every text called `name` in a JSON value, in document order."""
    if isinstance(value, dict):
        if isinstance(value.get(name), str) and value[name]:
            yield value[name]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from members(item, name)


def parts_of(task: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The text and the data of a task's artifacts."""
    parts = [part for artifact in task.get("artifacts", []) for part in artifact["parts"]]
    text = " ".join(part["text"] for part in parts if "text" in part)
    return text, next((part["data"] for part in parts if "data" in part), {})


def _answer(response: httpx.Response, expected: int) -> Any:
    if response.status_code != expected:
        raise StepFailed(f"{response.request.method} {response.request.url} answered {response.status_code}: {response.text[:500]}")
    return response.json()
