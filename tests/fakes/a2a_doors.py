"""The doors of A2A over HTTP in both versions, asked in each one's own words, and what each says of an error."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.fakes.house import House

DOORS = ("jsonrpc-1.0", "jsonrpc-0.3", "rest-1.0", "rest-0.3")
RPC = {
    "jsonrpc-1.0": {
        "send": "SendMessage",
        "stream": "SendStreamingMessage",
        "get": "GetTask",
        "list": "ListTasks",
        "cancel": "CancelTask",
        "subscribe": "SubscribeToTask",
        "card": "GetExtendedAgentCard",
    },
    "jsonrpc-0.3": {
        "send": "message/send",
        "stream": "message/stream",
        "get": "tasks/get",
        "cancel": "tasks/cancel",
        "subscribe": "tasks/resubscribe",
        "card": "agent/getAuthenticatedExtendedCard",
    },
}
VERBS = {"send": "POST", "stream": "POST", "get": "GET", "list": "GET", "cancel": "POST", "subscribe": "POST", "card": "GET"}
PATHS = {
    "rest-1.0": {"send": "/message:send", "stream": "/message:stream", "list": "/tasks", "card": "/extendedAgentCard"},
    "rest-0.3": {"send": "/v1/message:send", "stream": "/v1/message:stream", "card": "/v1/card"},
}


@dataclass(frozen=True)
class Said:
    """An error as a binding words it: HTTP status, JSON-RPC code or google.rpc name, and the reason of its ErrorInfo."""

    status: int
    code: int | str
    reason: str


def message_of(door: str, text: str, **more: Any) -> dict[str, Any]:
    """A message in the words of a door. `more`: members that all versions have."""
    if door == "jsonrpc-0.3":
        return {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": text}], **more}
    parts = "content" if door == "rest-0.3" else "parts"
    return {"messageId": "m1", "role": "ROLE_USER", parts: [{"text": text}], **more}


def version_of(door: str) -> str:
    return door.rpartition("-")[2]


async def ask(home: House, door: str, act: str, params: Mapping[str, Any], **more: Any) -> httpx.Response:
    """One request. `params` has a message, or the id of a task and what else is asked. `more`: user, agent, token, headers, body."""
    agent = more.get("agent", "sales")
    token = more.get("token", home.token(more.get("user", "alice")))
    headers = {"authorization": f"Bearer {token}", "A2A-Version": version_of(door), **more.get("headers", {})}
    if door.startswith("jsonrpc"):
        body = more.get("body") or json.dumps({"jsonrpc": "2.0", "id": 7, "method": RPC[door][act], "params": dict(params)})
        return await home.http.post(f"/agents/{agent}", content=body, headers={"content-type": "application/json", **headers})
    rest = dict(params)
    task = f"{'/v1' if door.endswith('0.3') else ''}/tasks/{rest.pop('id', '')}"
    path = PATHS[door].get(act) or task + {"get": "", "cancel": ":cancel", "subscribe": ":subscribe"}[act]
    if VERBS[act] == "GET":
        return await home.http.get(f"/agents/{agent}{path}", params=rest, headers=headers)
    body = more.get("body") or json.dumps(rest)
    return await home.http.post(f"/agents/{agent}{path}", content=body, headers={"content-type": "application/json", **headers})


def result(door: str, answer: httpx.Response) -> Any:
    """What was answered, without its envelope; a task of a send without its wrapper too."""
    document = answer.json()
    found = document["result"] if door.startswith("jsonrpc") else document
    return found["task"] if isinstance(found, dict) and "task" in found else found


def said(door: str, answer: httpx.Response) -> Said:
    error = answer.json()["error"]
    details = error["data" if door.startswith("jsonrpc") else "details"]
    reason = details[0].get("reason", "BAD_REQUEST" if details[0]["@type"].endswith("BadRequest") else "")
    return Said(answer.status_code, error["code"] if door.startswith("jsonrpc") else error["status"], reason)


def events(answer: httpx.Response) -> list[tuple[int, Any]]:
    """The numbers of a stream's events and their data, out of any JSON-RPC envelope."""
    assert answer.headers["content-type"] == "text/event-stream", answer.text
    found = []
    for frame in answer.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if "data" in lines:
            data = json.loads(lines["data"])
            found.append((int(lines["id"]), data.get("result", data)))
    return found


def state_of(task: Any) -> str:
    """Of any version, in capitals."""
    return str(task["status"]["state"]).upper().replace("-", "_").removeprefix("TASK_STATE_").replace("CANCELLED", "CANCELED")
