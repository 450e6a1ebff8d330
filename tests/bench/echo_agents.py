"""The A2A agents of the benchmark: they say what they hear, whole or in pieces, in 1.0 or in 0.3."""

import itertools
from collections.abc import Iterator
from typing import Any

from tests.bench.answers import LISTED, PIECES

AGENTS = {"/a2a": "echo-agent", "/streaming": "streaming-agent", "/burst": "burst-agent", "/older": "older-agent"}
PAUSES = {"/streaming": 0.005, "/burst": 0.0}  # seconds between the events of a stream
WAITS = "wait: "  # how a text begins after which the agent asks, and waits for an answer
WAITING = "waiting-"  # how the ids of such tasks begin
_counter = itertools.count(1)
_AT = "2026-11-01T00:00:00Z"


class Refused(Exception):
    """A request that this upstream does not take: HTTP status, JSON-RPC code and message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def answer_a2a(request: dict[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
    """The result of SendMessage: a completed task, or one that waits; and of GetTask: a task of that id. Raises Refused."""
    _check_version(headers)
    if request["method"] == "GetTask":
        asked = request["params"]["id"]
        return _waiting(asked, "context-0") if asked.startswith(WAITING) else _task(asked, "context-0")
    if request["method"] == "ListTasks":
        return _TASK_PAGE
    if request["method"] != "SendMessage":
        raise Refused(200, -32601, "no such method")
    message = request["params"]["message"]
    task_id, context_id = _ids(message)
    if message["parts"][0]["text"].startswith(WAITS):
        return {"task": _waiting(WAITING + task_id, context_id)}
    artifact = {"artifactId": f"artifact-{task_id}", "parts": message["parts"]}
    return {"task": {**_task(task_id, context_id), "artifacts": [artifact]}}


def answer_a2a_0_3(request: dict[str, Any], _headers: dict[bytes, bytes]) -> dict[str, Any]:
    """The result of message/send of 0.3: a completed task. Raises Refused."""
    if request["method"] != "message/send":
        raise Refused(200, -32601, "no such method")
    message = request["params"]["message"]
    task_id, context_id = _ids(message)
    artifact = {"artifactId": f"artifact-{task_id}", "parts": message["parts"]}
    status = {"state": "completed", "timestamp": _AT}
    return {"kind": "task", "id": task_id, "contextId": context_id, "status": status, "artifacts": [artifact]}


def answer_stream(request: dict[str, Any], headers: dict[bytes, bytes]) -> Iterator[dict[str, Any]]:
    """The results of SendStreamingMessage: the text in pieces. Raises Refused, before the first."""
    _check_version(headers)
    if request["method"] != "SendStreamingMessage":
        raise Refused(200, -32601, "no such method")
    message = request["params"]["message"]
    return _events(*_ids(message), message["parts"][0]["text"])


def _events(task_id: str, context_id: str, text: str) -> Iterator[dict[str, Any]]:
    about = {"taskId": task_id, "contextId": context_id}
    yield {"task": {"id": task_id, "contextId": context_id, "status": _status("SUBMITTED")}}
    yield {"statusUpdate": {**about, "status": _status("WORKING")}}
    for number in range(PIECES):
        piece = text[len(text) * number // PIECES : len(text) * (number + 1) // PIECES]
        artifact = {"artifactId": "echo", "parts": [{"text": piece}]}
        yield {"artifactUpdate": {**about, "artifact": artifact, "append": number > 0, "lastChunk": number == PIECES - 1}}
    yield {"statusUpdate": {**about, "status": _status("COMPLETED")}}


def _ids(message: dict[str, Any]) -> tuple[str, str]:
    number = next(_counter)
    return f"task-{number}", message.get("contextId") or f"context-{number}"


def _task(task_id: str, context_id: str) -> dict[str, Any]:
    return {"id": task_id, "contextId": context_id, "status": _status("COMPLETED")}


def _waiting(task_id: str, context_id: str) -> dict[str, Any]:
    return {"id": task_id, "contextId": context_id, "status": _status("INPUT_REQUIRED")}


def _status(state: str) -> dict[str, Any]:
    return {"state": f"TASK_STATE_{state}", "timestamp": _AT}


_TASK_PAGE = {
    "tasks": [_task(f"t_{number:026}", f"c_{number:026}") for number in range(LISTED)],
    "nextPageToken": "",
    "pageSize": LISTED,
    "totalSize": LISTED,
}


def _check_version(headers: dict[bytes, bytes]) -> None:
    if headers.get(b"a2a-version") != b"1.0":
        raise Refused(200, -32009, "only A2A 1.0 is spoken here")


def agent_card(address: str, path: str = "/a2a") -> dict[str, Any]:
    """The card of the agent at `path`. `address`: scheme, host and port."""
    url = f"{address}{path}"
    interface = {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    older_interface = {"protocolVersion": "0.3.0", "url": url, "preferredTransport": "JSONRPC"}
    return {
        "name": f"Echo agent at {path}",
        "description": "Says what it hears.",
        "version": "1.0.0",
        **(older_interface if path == "/older" else {"supportedInterfaces": [interface]}),
        "capabilities": {"streaming": path in PAUSES, "pushNotifications": False},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "echo", "name": "Echo", "description": "Says what it hears.", "tags": ["echo"]}],
    }
