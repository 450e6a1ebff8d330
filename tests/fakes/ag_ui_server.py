"""An agent on loopback that speaks AG-UI, remembers nothing, and says how many messages it was shown."""

import json
from typing import Any


class AgUiServer:
    """`bodies` are of all runs."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] != "POST":
            await send({"type": "http.response.start", "status": 405, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        said = json.loads(body)
        self.bodies.append(said)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        run = {"threadId": said["threadId"], "runId": said["runId"]}
        text = {"type": "TEXT_MESSAGE_CONTENT", "messageId": f"a-{len(self.bodies)}", "delta": f"{len(said['messages'])} messages"}
        events = [{"type": "RUN_STARTED", **run}, text, {"type": "STATE_SNAPSHOT", "snapshot": {"runs": len(self.bodies)}}]
        for event in (*events, {"type": "RUN_FINISHED", **run}):
            await send({"type": "http.response.body", "body": f"data: {json.dumps(event)}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
