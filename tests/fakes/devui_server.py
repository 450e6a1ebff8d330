"""DevUI on loopback with one workflow object for everybody, as the Microsoft Agent Framework serves workflows.

Open requests belong to the object. Each run saves all of them as the checkpoint of its conversation, and answers go on from the
conversation's last checkpoint: requests that were open then are told again before any executor is at work.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


class DevUiServer:
    """Asks `pay N`; any other text is echoed. `decided`: each question that was answered, with its answer.

    `forget` loses what is open, as a restart does. `again`: an id that the next run asks under, in place of a new one.
    """

    def __init__(self) -> None:
        self.decided: list[tuple[str, Any]] = []
        self.bodies: list[Any] = []
        self.again = ""
        self.refuses = ""  # why it takes no answer
        self._open: dict[str, str] = {}  # request -> question
        self._checkpoints: dict[str, dict[str, str]] = {}  # of conversations
        self._asked = 0
        self._runs = asyncio.Lock()

    def forget(self) -> None:
        self._open, self._checkpoints = {}, {name: {} for name in self._checkpoints}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        path, said = scope["path"], json.loads(body or b"null")
        if path.endswith("/info"):
            await _whole(send, {"name": "payer", "type": "workflow", "description": "Pays.", "input_schema": {"type": "string"}})
        elif path == "/v1/conversations":
            name = f"conv_{len(self._checkpoints) + 1}"
            self._checkpoints[name] = {}
            await _whole(send, {"id": name, "object": "conversation"})
        elif path.endswith("/cancel"):
            await _whole(send, {"status": "not_found", "response_id": path.split("/")[-2]})
        else:
            self.bodies.append(said)
            async with self._runs:
                await self._stream(send, said)

    async def _stream(self, send: Any, said: Json) -> None:
        name = f"resp_{len(self.bodies)}"
        answers = _answers(said["input"])
        events = self._answered(said["conversation"], answers) if answers else self._begun(said["conversation"], said["input"])
        response: Json = {"id": name, "status": "in_progress", "error": None, "output": []}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await _event(send, {"type": "response.created", "response": response})
        failed = False
        for event in events:
            failed = failed or event["type"] == "error"
            await _event(send, event)
        status = "failed" if failed else "completed"
        error = {"code": "server_error", "message": "ValueError"} if failed else None
        await _event(send, {"type": f"response.{status}", "response": {**response, "status": status, "error": error}})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _begun(self, conversation: str, text: str) -> Iterator[Json]:
        yield _acts("added")
        if text.startswith("pay"):
            self._asked += 1
            request, self.again = self.again or f"r-{self._asked}", ""
            self._open[request] = f"{text}?"
            yield _request(request, f"{text}?")
        else:
            yield _output(f"echo: {text}")
        yield _acts("done")
        self._checkpoints[conversation] = dict(self._open)

    def _answered(self, conversation: str, answers: Json) -> Iterator[Json]:
        self._open = dict(self._checkpoints.get(conversation, {}))
        yield from (_request(request, question) for request, question in self._open.items() if request not in answers)
        if self.refuses or answers.keys() - self._open.keys():
            why = self.refuses or f"Response provided for unknown request ID: {next(iter(answers))}"
            yield {"type": "error", "code": None, "message": f"Failed to send HIL responses: {why}"}
            return
        yield _acts("added")
        for request, value in answers.items():
            question = self._open.pop(request)
            self.decided.append((question, value))
            yield _output(f"{question} {value}")
        yield _acts("done")
        self._checkpoints[conversation] = dict(self._open)


def _answers(given: Any) -> Json:
    """The responses in an input, by their requests."""
    contents = [block for message in given if isinstance(message, dict) for block in message["content"]] if isinstance(given, list) else []
    found = (block["responses"] for block in contents if block["type"] == "workflow_hil_response")
    return {request: told["response"] for responses in found for request, told in responses.items()}


def _acts(what: str) -> Json:
    item = {
        "type": "executor_action",
        "id": "exec_gate_1",
        "executor_id": "gate",
        "status": "in_progress" if what == "added" else "completed",
    }
    return {"type": f"response.output_item.{what}", "item": {**item, "metadata": {} if what == "added" else None}}


def _request(request: str, question: str) -> Json:
    told = {"request_id": request, "source_executor_id": "gate", "request_data": {"question": question}}
    return {"type": "response.request_info.requested", **told, "response_schema": {"type": "string"}}


def _output(text: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    item = {
        "type": "message",
        "id": f"msg_{text}",
        "role": "assistant",
        "content": content,
        "metadata": {"workflow_output_kind": "terminal"},
    }
    return {"type": "response.output_item.done", "item": item}


async def _event(send: Any, event: Json) -> None:
    await send({"type": "http.response.body", "body": f"data: {json.dumps(event)}\n\n".encode(), "more_body": True})


async def _whole(send: Any, value: Json) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
