"""The upstream of a soak: the echo server and agent of the benchmark, and an agent whose streams say a number every few seconds."""

import asyncio
import itertools
import json
import os
from typing import Any

from tests.bench.echo import Receive, Scope, Send, app, body_of, reply

PATH = "/ticking"
COUNT_VARIABLE, SECONDS_VARIABLE = "SOAK_TICKS", "SOAK_TICK_SECONDS"
_TICKS, _SECONDS = int(os.environ.get(COUNT_VARIABLE, "6")), float(os.environ.get(SECONDS_VARIABLE, "5"))
_numbers = itertools.count(1)


def card(address: str) -> dict[str, Any]:
    interface = {"url": f"{address}{PATH}", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    return {
        "name": "Ticking agent",
        "description": "Says a number every few seconds.",
        "version": "1.0.0",
        "supportedInterfaces": [interface],
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "tick", "name": "Tick", "description": "Says a number every few seconds.", "tags": ["tick"]}],
    }


async def ticking(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI, HTTP only."""
    if scope["path"] == PATH and scope["method"] == "POST":
        await _stream(json.loads(await body_of(receive)), send)
    elif scope["path"].startswith(PATH):
        host, port = scope["server"]
        await reply(send, 200, json.dumps(card(f"http://{host}:{port}")).encode())
    else:
        await app(scope, receive, send)


async def _stream(request: dict[str, Any], send: Send) -> None:
    task = {"taskId": (name := f"tick-{next(_numbers)}"), "contextId": request["params"]["message"].get("contextId") or name}

    async def say(event: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": event}).encode()
        await send({"type": "http.response.body", "body": b"data: %s\n\n" % data, "more_body": True})

    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await say({"task": {"id": task["taskId"], "contextId": task["contextId"], "status": {"state": "TASK_STATE_WORKING"}}})
    for number in range(_TICKS):
        await asyncio.sleep(_SECONDS)
        artifact = {"artifactId": f"tick-{number}", "parts": [{"text": f"tick {number} of {_TICKS}"}]}
        await say({"artifactUpdate": {**task, "artifact": artifact}})
    await say({"statusUpdate": {**task, "status": {"state": "TASK_STATE_COMPLETED"}}})
    await send({"type": "http.response.body", "body": b""})
