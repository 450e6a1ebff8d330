"""An agent on loopback that speaks A2A as LangGraph's server does: a context is a thread, and any answer there resumes the thread."""

import json
from typing import Any


class ThreadAgent:
    """Asks `pay N`; every other message is answered at once. `paid`: what was paid by the answers."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self._open: dict[str, str] = {}  # thread -> what it asks for
        self._runs = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        request = json.loads(body)
        told = {"jsonrpc": "2.0", "id": request["id"], "result": {"task": self._task(request["params"]["message"])}}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})

    def _task(self, message: Any) -> dict[str, Any]:
        text = " ".join(part.get("text", "") for part in message["parts"])
        self._runs += 1
        thread = message.get("contextId") or f"thread-{self._runs}"
        task = {"id": message.get("taskId") or f"{thread}:run-{self._runs}", "contextId": thread}
        if message.get("taskId") and thread in self._open:
            self.paid.append(f"{self._open.pop(thread)} {text}")
            return {**task, "status": {"state": "TASK_STATE_COMPLETED"}, "artifacts": [{"artifactId": "a", "parts": [{"text": "paid"}]}]}
        if text.startswith("pay"):
            self._open[thread] = text
            question = {"artifactId": "q", "name": "Interrupt", "parts": [{"data": {"id": f"i-{self._runs}", "value": f"{text}?"}}]}
            return {**task, "status": {"state": "TASK_STATE_INPUT_REQUIRED"}, "artifacts": [question]}
        self._open.pop(thread, None)
        return {**task, "status": {"state": "TASK_STATE_COMPLETED"}, "artifacts": [{"artifactId": "a", "parts": [{"text": "hello"}]}]}
