"""An agent on loopback that speaks A2A as Strands does: only a data part answers its interrupt, and a text is refused while it waits."""

import json
from typing import Any

INTERRUPT = {"interrupts": [{"interruptId": "i-1", "name": "approval", "reason": "Refund?"}]}


class StrictAgent:
    """`heard`: what reached it, as JSON-RPC. `said`: its answer to the interrupt, once it has one."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.said = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        request = json.loads(body)
        self.heard.append(request)
        told = {"jsonrpc": "2.0", "id": request["id"], **self._answer(request["method"], request["params"].get("message") or {})}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})

    def _answer(self, method: str, message: Any) -> dict[str, Any]:
        given = [part["data"]["interruptResponse"] for part in message.get("parts", ()) if "interruptResponse" in part.get("data", {})]
        if message.get("taskId") and not given:
            return {"error": {"code": -32602, "message": "Task is awaiting an interrupt response and cannot accept a new message"}}
        if method == "CancelTask":
            return {"error": {"code": -32002, "message": "Task is not cancelable in its current state"}}
        self.said = given[0]["response"] if given else self.said
        task: dict[str, Any] = {"id": "task-1", "contextId": "context-1", "status": self._status()}
        if self.said:
            task["artifacts"] = [{"artifactId": "a", "parts": [{"text": f"refund: {self.said}"}]}]
        return {"result": {"task": task} if method == "SendMessage" else task}

    def _status(self) -> dict[str, Any]:
        if self.said:
            return {"state": "TASK_STATE_COMPLETED"}
        parts = [{"text": "Agent requires input"}, {"data": INTERRUPT}]
        message = {"messageId": "m-1", "role": "ROLE_AGENT", "parts": parts, "taskId": "task-1", "contextId": "context-1"}
        return {"state": "TASK_STATE_INPUT_REQUIRED", "message": message}
