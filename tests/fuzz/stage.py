"""The gateway that is fuzzed: a process of its own, with one of most things in it."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.interlock import AGENT, SERVER, Home, await_ready, register, send_request
from tests.bench.processes import BenchFailure, Running, asgi_server
from tests.fuzz.requests import INITIALIZE, JSON, LEGACY, Known, rpc

_WORKFLOW = "document: {dsl: 1.0.3, namespace: fuzz, name: waits, version: 1.0.0}\ndo:\n- wait: {wait: {hours: 1}}\n"
_ADDED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/api/workflows", {"document": _WORKFLOW}),
    ("PUT", "/api/state/orders/1", {"count": 1}),
    ("POST", "/api/memory", {"text": "the kettle is blue", "scope": "person"}),
    ("POST", "/api/claims", {"subject": "order:1"}),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """`names`: values of path parameters of /api that exist."""

    running: Running
    operator: str
    member: str
    known: Known
    names: dict[str, list[str]]


@contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """A gateway with an agent, a server, a workflow, a task, a session, a value, a claim and a fact. Raises BenchFailure."""
    with asgi_server("tests.bench.echo:app", folder) as upstream:
        home = Home.fresh(folder / "home")
        operator, member = home.admin_token(), home.tokens("member", 1)[0]
        with home.serving() as running:
            await_ready(running)
            register(running, operator, upstream)
            known = Known(AGENT, SERVER, _task_of(running, member), _session_of(running, member))
            yield Stage(running, operator, member, known, _add_things(running, operator, known))


def _task_of(running: Running, token: str) -> str:
    message = {"messageId": "m-0", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    status, body = send_request(running, f"/agents/{AGENT}", token, rpc("SendMessage", {"message": message}), {"A2A-Version": "1.0"})
    if status != 200:
        raise BenchFailure(f"SendMessage: {status} {body[:500]!r}")
    return str(json.loads(body)["result"]["task"]["id"])


def _session_of(running: Running, token: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    headers = {"Content-Type": JSON, "Accept": f"{JSON}, text/event-stream", "Authorization": f"Bearer {token}"}
    connection.request("POST", "/mcp", json.dumps(rpc("initialize", INITIALIZE)), headers)
    session = connection.getresponse().headers.get("Mcp-Session-Id")
    connection.close()
    if not session:
        raise BenchFailure(f"initialize of {LEGACY} gave no session")
    return session


def _add_things(running: Running, token: str, known: Known) -> dict[str, list[str]]:
    answers = {}
    for method, path, document in _ADDED:
        status, body = send_request(running, path, token, document, method=method)
        if status >= 300:
            raise BenchFailure(f"{method} {path}: {status} {body[:500]!r}")
        answers[path] = json.loads(body)
    return {
        "name": [known.agent, known.server, "waits"],
        "task_id": [known.task],
        "key": ["orders/1", "orders/2"],
        "subject": ["order:1"],
        "claim_id": [str(answers["/api/claims"]["id"])],
        "workflow": ["waits"],
        "seq": ["1", "2"],
    }
