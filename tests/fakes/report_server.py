"""A service of somebody's own on loopback: it writes reports, slowly, and asks before it does what matters; and a webhook that chats."""

import asyncio
import json
from typing import Any

REPORT = {
    "text": "Ada pays.",
    "files": [{"href": "files/ada.csv", "title": "ada.csv", "type": "text/csv"}],
    "sources": [{"link": "https://crm.corp.example/ada", "name": "CRM"}],
}


class ReportServer:
    """`secret` is the credential that it wants to see; `said` are the bodies of its requests with their method and path."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.said: list[tuple[str, Any]] = []
        self.approved: bool | None = None
        self.stopped = False
        self.polls = 0
        self.working = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        place = f"{scope['method']} {scope['raw_path'].decode()}"
        self.said.append((place, json.loads(body or b"null")))
        if self.secret not in (headers.get("authorization"), headers.get("x-webhook-key")):
            await _answer(send, 401, {"detail": "who is there, in /srv/reports?"})
            return
        status, told = self._told(place, self.said[-1][1])
        await _answer(send, status, told)

    def _told(self, place: str, said: Any) -> tuple[int, Any]:
        if place == "GET /api/health":
            return 200, {"ok": True}
        if place == "POST /api/runs":
            return 200, {"id": "run/7", "state": "queued"}
        if place == "GET /api/runs/run%2F7":
            return 200, self._standing()
        if place == "POST /api/runs/run%2F7/approvals/a-1":
            self.approved = said["approved"]
            return 200, {"id": "run/7", "state": "running"}
        if place == "POST /api/runs/run%2F7/stop":
            self.stopped = True
            return 200, {"id": "run/7", "state": "stopped"}
        if place == "POST /webhook/helpdesk/chat":
            return 200, {"output": f"you said {said['chatInput']}"}
        return (200, "name,pays\nada,yes") if place == "GET /api/files/ada.csv" else (404, {})

    def _standing(self) -> Any:
        self.polls += 1
        question = next(said["question"] for place, said in self.said if place == "POST /api/runs")
        if self.stopped:
            return {"id": "run/7", "state": "stopped"}
        if question == "fail":
            return {"id": "run/7", "state": "finished", "error": {"code": "E7 in /srv/reports"}}
        if question == "slow" or self.polls == 1:
            self.working.set()
            return {"id": "run/7", "state": "running", "step": "looking"}
        if self.approved is None:
            return {"id": "run/7", "state": "running", "approvals": [{"id": "a-1", "open": True, "question": "Look at Ada's account?"}]}
        report = REPORT if self.approved else {"text": "Nobody let me look."}
        return {"id": "run/7", "state": "finished", "report": report, "usage": {"model": "m-1", "in": 3, "out": 4}}


async def _answer(send: Any, status: int, told: Any) -> None:
    kind, body = (b"text/csv", told.encode()) if isinstance(told, str) else (b"application/json", json.dumps(told).encode())
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})
