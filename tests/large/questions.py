"""What both gateways are asked, and how long they take: one question after the other, in turns."""

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import Pipe, get_context
from typing import Any

from tests.bench.echo_agents import AGENTS
from tests.bench.interlock import SERVER, Home
from tests.bench.processes import BenchFailure, Running

AGENT = AGENTS["/a2a"]
MODERN = "2026-07-28"
_ids = count(1_000_000_000)


@dataclass
class Side:
    """One of the two gateways, with a connection and a token, and a task that GetTask asks for."""

    name: str
    home: Home
    running: Running
    token: str
    task_id: str = ""
    usual: str = ""  # the token of a person with as many tasks as most have; that of `token` has six of seven tasks
    started_s: float = 0.0
    connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def ask(self, path: str, document: Any = None, headers: dict[str, str] | None = None, token: str = "") -> bytes:
        """Returns an answer. It is not decoded: that would take this process longer than the gateway. Raises BenchFailure."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=60)
        sent = {"Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json", **(headers or {})}
        self.connection.request("GET" if document is None else "POST", path, None if document is None else json.dumps(document), sent)
        response = self.connection.getresponse()
        body = response.read()
        if response.status >= 300 or b'"error":' in body[:200]:
            raise BenchFailure(f"{self.name} {path}: {response.status} {body[:500]!r}")
        return body

    def rpc(self, path: str, method: str, params: dict[str, Any], headers: dict[str, str], token: str = "") -> bytes:
        return self.ask(path, {"jsonrpc": "2.0", "id": next(_ids), "method": method, "params": params}, headers, token)

    def mcp(self, method: str, token: str = "", **params: Any) -> bytes:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "large", "version": "1"},
        }
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        headers |= {"Mcp-Name": params["name"]} if "name" in params else {}
        return self.rpc("/mcp", method, {**params, "_meta": meta}, headers, token)

    def a2a(self, method: str, agent: str = AGENT, path: str = "", token: str = "", **params: Any) -> bytes:
        return self.rpc(path or f"/agents/{agent}", method, params, {"A2A-Version": "1.0"}, token)

    def send(self, agent: str = AGENT, token: str = "") -> bytes:
        message = {"messageId": f"m-{next(_ids)}", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
        return self.a2a("SendMessage", agent, token=token, message=message)

    def call(self) -> bytes:
        return self.mcp("tools/call", name=f"{SERVER}_echo", arguments={"text": "hello"})


NEXT_CURSOR = re.compile(rb'"nextCursor":"([^"]+)"')
QUESTIONS: dict[str, Callable[[Side], Any]] = {
    "send": Side.send,
    "call": Side.call,
    "get_task": lambda side: side.a2a("GetTask", id=side.task_id),
    "list_tasks": lambda side: side.a2a("ListTasks", token=side.usual, pageSize=20),
    "list_tasks_failed": lambda side: side.a2a("ListTasks", token=side.usual, pageSize=20, status="TASK_STATE_FAILED"),
    "list_tasks_busiest": lambda side: side.a2a("ListTasks", pageSize=20),
    "list_tasks_completed_busiest": lambda side: side.a2a("ListTasks", pageSize=20, status="TASK_STATE_COMPLETED"),
    "list_tasks_failed_busiest": lambda side: side.a2a("ListTasks", pageSize=20, status="TASK_STATE_FAILED"),
    "api_tasks": lambda side: side.ask("/api/tasks?limit=20"),
    "tools_page": lambda side: side.mcp("tools/list"),
    "front_door_card": lambda side: side.a2a("GetExtendedAgentCard", agent="interlock"),
    "catalog": lambda side: side.ask("/.well-known/ai-catalog.json"),
    "agents_page": lambda side: side.ask("/api/agents?limit=5"),  # the empty gateway has six, so that both pages are full
    "search_agents": lambda side: side.ask("/ard/search", {"query": {"text": "subject42"}}),
}


def _search_tools(side: Side) -> bytes:
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call"}
    headers["Mcp-Name"] = "search_tools"
    params = {"name": "search_tools", "arguments": {"query": "approve an invoice"}, "_meta": meta}
    return side.rpc("/mcp?mode=search", "tools/call", params, headers)


QUESTIONS["search_tools"] = _search_tools


def seconds_of(ask: Callable[[], Any]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


@contextmanager
def neighbour(side: Side, token: str) -> Iterator[list[float]]:
    """Another person who calls a tool again and again, in a process of their own.

    When the block has ended, the list has how long each call took that began in it, in seconds.
    """
    other, taken = Side(side.name, side.home, side.running, token), list[float]()
    ours, theirs = Pipe()
    process = get_context("fork").Process(target=_call_until_told, args=(other, theirs), daemon=True)
    process.start()
    ours.recv()  # their connection is open
    began = time.monotonic()
    try:
        yield taken
    finally:
        ended = time.monotonic()
        ours.send("end")
        taken += [seconds for at, seconds in ours.recv() if began <= at <= ended]
        process.join()


def _call_until_told(side: Side, pipe: Any) -> None:
    """Calls a tool until the pipe has a message. Sends when each call began and how long it took."""
    side.call()
    pipe.send("begun")
    taken = []
    while not pipe.poll():
        taken.append((time.monotonic(), seconds_of(side.call)))
    pipe.send(taken)
