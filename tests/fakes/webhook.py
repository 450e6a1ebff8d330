"""A webhook on loopback that notes what it gets and answers as it is told."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Notified:
    path: str
    headers: dict[str, str]  # lower-case names
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def what(self) -> str:
        """The state or the text that a StreamResponse tells, in short."""
        told = self.json
        if "statusUpdate" in told:
            return str(told["statusUpdate"]["status"]["state"]).removeprefix("TASK_STATE_").lower()
        noun = told["artifactUpdate"]["artifact"] if "artifactUpdate" in told else told["message"]
        return str(noun["parts"][0]["text"])


class Webhook:
    """An ASGI application. `answers` are the statuses of the next answers; then 204."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.got: list[Notified] = []

    @property
    def told(self) -> list[str]:
        return [notified.what for notified in self.got]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        self.got.append(Notified(scope["path"], headers, body))
        status = self.answers.pop(0) if self.answers else 204
        await send({"type": "http.response.start", "status": status, "headers": [(b"location", b"http://127.0.0.1:1/")]})
        await send({"type": "http.response.body", "body": b""})
