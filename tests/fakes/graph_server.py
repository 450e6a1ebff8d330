"""A graph on loopback that speaks as a LangGraph Agent Server does: it greets, asks, fails, takes long or answers with an object."""

import asyncio
import json
from typing import Any

INTERRUPT = {"id": "i-1", "value": {"question": "Refund 42 EUR?"}, "response_schema": None}
DECISION = {"type": "object", "properties": {"approve": {"type": "boolean"}, "note": {"type": "string"}}, "required": ["approve"]}


class GraphServer:
    """`bodies` are of all runs, `users` nothing: who asks is not in the protocol. `secret` is the key that it wants to see."""

    def __init__(self, secret: str = "") -> None:
        self.secret = secret
        self.bodies: list[tuple[str, Any]] = []
        self.canceled = asyncio.Event()
        self.working = asyncio.Event()
        self.go_on = asyncio.Event()
        self.threads = 0
        self.at_once = 0
        self.most = 0
        self.schema: Any = None
        self.several = False
        self.status = "success"  # of a run whose stream has ended; a number: that of the answer when somebody asks

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        self.headers = headers
        if self.secret and headers.get("x-api-key") != self.secret:
            await _whole(send, 401, {"detail": f"bad key {headers.get('x-api-key')} in /srv/keys"})
            return
        path, said = scope["path"], json.loads(body or b"null")
        if path == "/assistants/search":
            found = [{"assistant_id": "a-1", "name": "echo", "description": "Echoes."}] if said["graph_id"] == "echo" else []
            await _whole(send, 200, found)
        elif path == "/threads":
            self.threads += 1
            await _whole(send, 200, {"thread_id": f"thread-{self.threads}"})
        elif path.endswith("/runs/stream"):
            self.bodies.append((path.split("/")[2], said))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            try:
                await self._run(path, said, send)
            finally:
                self.at_once -= 1
        elif path.endswith("/cancel"):
            self.canceled.set()
            await _whole(send, 200, {})
        elif "/runs/" in path:
            status = "interrupted" if self.canceled.is_set() else "running" if self.at_once else self.status
            await _whole(send, int(status) if status.isdigit() else 200, {"run_id": "run-1", "status": status})
        else:
            await _whole(send, 404, {"detail": "Not Found"})

    async def _run(self, path: str, said: Any, send: Any) -> None:
        place = path.removesuffix("/stream") + "/run-1"
        kind = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"content-location", place.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        asked = {"messages": [_message("human", json.dumps(said.get("input")), "h")]}
        await _event(send, "metadata", {"run_id": "run-1"})
        await _event(send, "values", asked)
        if "command" in said:
            await self._say(send, asked, f"decision was: {json.dumps(said['command']['resume'], sort_keys=True)}")
        else:
            await self._begin(send, asked, said["input"])
        await send({"type": "http.response.body", "body": b""})

    async def _begin(self, send: Any, asked: Any, given: Any) -> None:
        text = given["messages"][0]["content"] if "messages" in given else ""
        if text.startswith("approve"):
            waits = [{**INTERRUPT, "response_schema": self.schema}]
            if self.several:
                waits.append({"id": "i-2", "value": "Which account?", "response_schema": {"enum": ["A", "B"]}})
            await _event(send, "updates", {"__interrupt__": waits})
            await _event(send, "values", {**asked, "__interrupt__": waits})
        elif text.startswith("fail"):
            await _event(send, "error", {"error": "ValueError", "message": "exploded in /srv/agents/app.py"})
        elif text.startswith("slow"):
            self.working.set()
            await self.canceled.wait()
        else:
            if text.startswith("wait"):
                self.working.set()
                await self.go_on.wait()
            await asyncio.sleep(0)
            await self._say(send, asked, f"echo: {text}")

    async def _say(self, send: Any, asked: Any, text: str) -> None:
        answer = _message("ai", text, "m-1")
        await _event(send, "messages", [{**answer, "type": "AIMessageChunk"}, {"langgraph_node": "work"}])
        await _event(send, "updates", {"work": {"messages": [answer]}})
        await _event(send, "values", {"messages": [*asked["messages"], answer]})


def _message(kind: str, text: str, name: str) -> dict[str, Any]:
    figures = {"usage_metadata": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}} if kind == "ai" else {}
    return {"type": kind, "content": text, "id": name, **figures}


async def _event(send: Any, name: str, data: Any) -> None:
    body = f"event: {name}\r\ndata: {json.dumps(data)}\r\n\r\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _whole(send: Any, status: int, value: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
