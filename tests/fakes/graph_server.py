"""A graph on loopback that speaks as a LangGraph Agent Server does: it greets, asks, fails, takes long or answers with an object.

A thread holds the interrupts of its last run. An answer by its id is for that interrupt alone, and the graph asks again where that one
is not open; a bare answer is for whichever interrupt is open. New input drops what was open.
"""

import asyncio
import json
from typing import Any

INTERRUPT = {"id": "i-1", "value": {"question": "Refund 42 EUR?"}, "response_schema": None}
DECISION = {"type": "object", "properties": {"approve": {"type": "boolean"}, "note": {"type": "string"}}, "required": ["approve"]}


class GraphServer:
    """`bodies` are of all runs, with their threads. `decided`: each question that was answered, with its answer. `secret`: the key that it
    wants to see.
    """

    def __init__(self, secret: str = "") -> None:
        self.secret = secret
        self.bodies: list[tuple[str, Any]] = []
        self.canceled = asyncio.Event()
        self.working = asyncio.Event()
        self.go_on = asyncio.Event()
        self.threads = 0
        self.open: dict[str, list[dict[str, Any]]] = {}  # thread -> its interrupts
        self.values: dict[str, Any] = {}  # thread -> its state after its last run that answered
        self.asked = 0
        self.decided: list[tuple[str, Any]] = []
        self.at_once = 0
        self.most = 0
        self.schema: Any = None
        self.several = False
        self.refuses = 0  # the status with which it refuses answers; 0: it takes them
        self.busy = 0  # the status with which it refuses every run; 0: it runs them
        self.status = "success"  # of a run whose stream has ended; a number: that of the answer when somebody asks

    def forget(self) -> None:
        """Loses all threads, as a restart of the development server does."""
        self.open.clear()

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
        await self._answer(scope["path"], json.loads(body or b"null"), send)

    async def _answer(self, path: str, said: Any, send: Any) -> None:
        thread = path.split("/")[2] if path.startswith("/threads/") else ""
        if path == "/assistants/search":
            found = [{"assistant_id": "a-1", "name": "echo", "description": "Echoes."}] if said["graph_id"] == "echo" else []
            await _whole(send, 200, found)
        elif path == "/threads":
            self.threads += 1
            self.open[f"thread-{self.threads}"] = []
            await _whole(send, 200, {"thread_id": f"thread-{self.threads}"})
        elif thread not in self.open:
            await _whole(send, 404, {"detail": "Thread or assistant not found."})
        elif path.endswith("/runs/stream") and self.refuses and "command" in said:
            await _whole(send, self.refuses, {"detail": "the answer is not taken"})
        elif path.endswith("/runs/stream") and self.busy:
            await _whole(send, self.busy, {"detail": "no run is begun"})
        elif path.endswith("/runs/stream"):
            self.bodies.append((thread, said))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            try:
                await self._run(path, said, send)
            finally:
                self.at_once -= 1
        elif path.endswith("/cancel"):
            self.canceled.set()
            await _whole(send, 200, {})
        elif "/runs/" not in path:
            await self._thread(path, thread, send)
        else:
            status = "interrupted" if self.canceled.is_set() else "running" if self.at_once else self.status
            await _whole(send, int(status) if status.isdigit() else 200, {"run_id": "run-1", "status": status})

    async def _thread(self, path: str, thread: str, send: Any) -> None:
        """Of a thread: how it stands, or that what it waits for is dropped."""
        if path.endswith("/state"):
            self.open[thread] = []
        waits = self.open[thread]
        status = "interrupted" if waits else "idle"
        interrupts, values = {"task-1": waits} if waits else {}, self.values.get(thread)
        await _whole(send, 200, {"thread_id": thread, "status": status, "values": values, "interrupts": interrupts})

    async def _run(self, path: str, said: Any, send: Any) -> None:
        place, thread = path.removesuffix("/stream") + "/run-1", path.split("/")[2]
        kind = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"content-location", place.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        asked = {"messages": [_message("human", json.dumps(said.get("input")), "h")]}
        await _event(send, "metadata", {"run_id": "run-1"})
        await _event(send, "values", asked)
        if "command" in said:
            await self._go_on(send, asked, thread, said["command"]["resume"])
        else:
            self.open[thread] = []
            await self._begin(send, asked, said["input"], thread)
        await send({"type": "http.response.body", "body": b""})

    async def _go_on(self, send: Any, asked: Any, thread: str, resume: Any) -> None:
        waits = self.open[thread]
        known = {each["id"] for each in waits}
        given = resume if isinstance(resume, dict) and any(len(name) > 2 and name[:2] == "i-" for name in resume) else {}
        answers = {name: value for name, value in given.items() if name in known} if given else {each["id"]: resume for each in waits[:1]}
        self.decided += [(_question(each), answers[each["id"]]) for each in waits if each["id"] in answers]
        self.open[thread] = left = [each for each in waits if each["id"] not in answers]
        if left:
            await _event(send, "updates", {"__interrupt__": left})
            await _event(send, "values", {**asked, "__interrupt__": left})
        else:
            told = next(iter(answers.values())) if len(answers) == 1 else answers
            await self._say(send, asked, thread, f"decision was: {json.dumps(told, sort_keys=True)}")

    async def _begin(self, send: Any, asked: Any, given: Any, thread: str) -> None:
        text = given["messages"][0]["content"] if "messages" in given else ""
        if text.startswith(("approve", "pay")):
            if text.startswith("pay wait"):
                self.working.set()
                await self.go_on.wait()
            question = {"question": f"Pay {text.split()[-1]}?"} if text.startswith("pay") else INTERRUPT["value"]
            waits = [{"id": self._id(), "value": question, "response_schema": self.schema}]
            if self.several:
                waits.append({"id": self._id(), "value": "Which account?", "response_schema": {"enum": ["A", "B"]}})
            self.open[thread] = waits
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
            await self._say(send, asked, thread, f"echo: {text}")

    def _id(self) -> str:
        self.asked += 1
        return f"i-{self.asked}"

    async def _say(self, send: Any, asked: Any, thread: str, text: str) -> None:
        answer = _message("ai", text, "m-1")
        self.values[thread] = {"messages": [*asked["messages"], answer]}
        await _event(send, "messages", [{**answer, "type": "AIMessageChunk"}, {"langgraph_node": "work"}])
        await _event(send, "updates", {"work": {"messages": [answer]}})
        await _event(send, "values", self.values[thread])


def _question(interrupt: dict[str, Any]) -> str:
    value = interrupt["value"]
    return str(value["question"] if isinstance(value, dict) else value)


def _message(kind: str, text: str, name: str) -> dict[str, Any]:
    figures = {"usage_metadata": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}} if kind == "ai" else {}
    return {"type": kind, "content": text, "id": name, **figures}


async def _event(send: Any, name: str, data: Any) -> None:
    body = f"event: {name}\r\ndata: {json.dumps(data)}\r\n\r\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _whole(send: Any, status: int, value: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
