"""A gateway's HTTP side, as far as a command line can tell: scripted answers on a loopback port, requests kept."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.fakes.quiet_server import QuietServer


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    body: Any


@dataclass(frozen=True)
class Answer:
    """`body` is JSON unless it is text; `cut` ends the connection before the body is complete."""

    body: Any = None
    status: int = 200
    content_type: str = "application/json"
    cut: bool = False


@dataclass(frozen=True)
class Events:
    """Server-sent events, numbered from 1; who comes back for more waits a moment only."""

    messages: tuple[Any, ...]

    def __str__(self) -> str:
        texts = [f"id: {number}\nretry: 1\ndata: {json.dumps(message)}\n\n" for number, message in enumerate(self.messages, 1)]
        return "".join(texts)


def stream(*events: Any, cut: bool = False) -> Answer:
    return Answer(Events(events), content_type="text/event-stream", cut=cut)


def _addressed(message: Any, asked: Any) -> Any:
    """A JSON-RPC answer with the id of its request."""
    if isinstance(message, Events):
        return Events(tuple(_addressed(one, asked) for one in message.messages))
    is_answer = isinstance(message, dict) and message.get("jsonrpc") and "method" not in message
    return {**message, "id": asked["id"]} if is_answer and isinstance(asked, dict) and "id" in asked else message


@dataclass
class GatewayApi:
    """`answers` by "METHOD /path" (with the query, where there is one), those for one JSON-RPC method by "METHOD /path method".

    A list gives one after another, the last for ever."""

    url: str = ""
    answers: dict[str, Answer | list[Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, what: str, body: Any = None, status: int = 200) -> None:
        self.answers[what] = Answer(body, status)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        place = f"{asked.method} {asked.path}"
        method = asked.body.get("method") if isinstance(asked.body, dict) else None
        found = self.answers.get(f"{place} {method}") or self.answers.get(place)
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        return found or Answer({"title": "Unknown", "status": 404, "detail": "There is no such thing.", "reason_id": "unknown"}, 404)


@contextmanager
def gateway_api() -> Iterator[GatewayApi]:
    api = GatewayApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            length = int(self.headers.get("content-length", 0))
            raw = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, json.loads(raw) if raw else None)
            answer = api.answer(asked)
            told = _addressed(answer.body, asked.body)
            body = str(told) if isinstance(told, (str, Events)) else "" if told is None else json.dumps(told)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(body.encode()) + (1 if answer.cut else 0)))
            self.end_headers()
            self.wfile.write(body.encode())
            self.close_connection = answer.cut

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = QuietServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
