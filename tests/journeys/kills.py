"""A gateway that is killed at its work, again and again: real processes, real sockets, and a test that remembers what it was told."""

import asyncio
import base64
import copy
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from sqlalchemy import text

from gateway.storage.database import engine_for
from policies.audit.heads import read_heads
from policies.audit.proof import Proof, read_rows, verify_chains
from policies.delegation.chain import Principal
from policies.ids import now_us
from policies.keys.signing import SigningKeys
from policies.tokens.verifier import DEVELOPMENT_ISSUER, mint_development_token
from tests.bench.echo import answer_request, body_of, reply
from tests.bench.processes import environment
from tests.fakes.a2a_agents import serving
from tests.fakes.ports import free_port
from tests.fakes.waiting import until

USERS = ("first", "second")
VERSION = {"A2A-Version": "1.0"}
MCP = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "echo"}
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
READS_INPUT = """@id("reads-input")
forbid(principal, action, resource) when { context has input && context.input has text && context.input.text == "" };
"""
TERMINAL = {"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"}
CUT = "The gateway stopped while the agent was working; the outcome is not known."
Hook = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effect:
    """What an upstream was made to do: `task_id` for an agent, the digest of the arguments for a tool."""

    at: int
    what: str
    task_id: str = ""
    digest: str = ""


@dataclass(slots=True)
class Told:
    """What a client was told of one task of its own."""

    user: str
    text: str
    state: str = ""
    artifacts: set[str] = field(default_factory=set)


class Upstream:
    """An agent and a tool server. A text that begins with `slow` is not answered as long as the gate is shut."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.gate = asyncio.Event()
        self.slow = 0
        self.on_effect: Hook = lambda _: None
        self.on_answer: Hook = lambda _: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers, body = dict(scope["headers"]), await body_of(receive)
        request = json.loads(body)
        if scope["path"] == "/mcp":
            if request["method"] == "tools/call":
                arguments = request["params"]["arguments"]
                digest = hashlib.sha256(msgspec.json.encode(arguments, order="sorted")).hexdigest()
                self._note(Effect(now_us(), arguments["text"], digest=digest))
            await reply(send, *answer_request("/mcp", headers, body))
            return
        said = request["params"]["message"]["parts"][0]["text"]
        self._note(Effect(now_us(), said, task_id=_claims(headers[b"authorization"].decode())["task"]))
        if said.startswith("slow"):
            self.slow += 1
            await self.gate.wait()
        await reply(send, *answer_request("/a2a", headers, body))
        self.on_answer(said)

    def _note(self, effect: Effect) -> None:
        self.effects.append(effect)
        self.on_effect(effect.what)


def _claims(bearer: str) -> dict[str, Any]:
    part = bearer.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


class Gateway:
    """One home, and the process that serves it: started, killed, started again."""

    def __init__(self, folder: Path, database_url: str, upstream_url: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.database_url = database_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "policies").mkdir(parents=True)
        (folder / "policies" / "input.cedar").write_text(READS_INPUT)
        card = {
            "name": "echo",
            "description": "Says what it hears.",
            "version": "1",
            "supportedInterfaces": [{"url": f"{upstream_url}a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
            "capabilities": {},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [{"id": "echo", "name": "Echo", "description": "Says what it hears.", "tags": ["echo"]}],
        }
        settings = {
            "agents": [{"name": "agent", "card": card}],
            "servers": [{"name": "server", "url": f"{upstream_url}mcp"}],
            "policies": str(folder / "policies"),
            "database": {"url": database_url},
        }
        (folder / "interlock.yaml").write_text(json.dumps(settings))

    def configure(self, **settings: Any) -> None:
        """Sets members of interlock.yaml, which the next start reads."""
        file = self.folder / "interlock.yaml"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    def sibling(self) -> "Gateway":
        """Another process on the same home and database, at a port of its own. Only PostgreSQL takes two processes."""
        sibling = copy.copy(self)
        sibling.port, sibling._process = free_port(), None
        sibling.url = f"http://127.0.0.1:{sibling.port}"
        return sibling

    @property
    def _environment(self) -> dict[str, str]:
        return environment(INTERLOCK_HOME=str(self.data), INTERLOCK_PORT=str(self.port))

    def start(self) -> None:
        with (self.folder / "gateway.log").open("ab") as log:
            command = [sys.executable, "-m", "gateway", "serve"]
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As a power cut for the process: no handler runs."""
        os.kill(self.pid, signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it, and waits until it is gone."""
        if self._process is None or self._process.poll() is not None:
            return 0
        self._process.send_signal(number)
        return self._process.wait(timeout=120)

    def wait(self) -> None:
        """Until a killed process is gone."""
        assert self._process is not None
        self._process.wait(timeout=120)

    def verify(self) -> "subprocess.Popen[str]":
        """`interlock audit verify`, begun."""
        command = [sys.executable, "-m", "gateway", "audit", "verify", "--json"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def log(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")[-4000:]

    def tokens(self, public_url: str = "") -> dict[str, str]:
        """A token of each user, for `public_url` where the gateway is not called by its own address."""
        keys, url = SigningKeys.open(self.data), public_url or self.url
        return {user: mint_development_token(keys, Principal("default", DEVELOPMENT_ISSUER, user), url, None, 3600) for user in USERS}

    def heads(self) -> list[str]:
        return read_heads(self.data / "audit.heads")

    @contextmanager
    def reading(self) -> Iterator[Any]:
        engine = engine_for(self.database_url)
        with engine.connect() as connection:
            yield connection.execution_options(interlock_read=True)
        engine.dispose()

    def proof(self, rows: list[dict[str, Any]] | None = None) -> Proof:
        with self.reading() as connection:
            return verify_chains(read_rows(connection) if rows is None else rows, self.heads(), SigningKeys.open(self.data))


class Clients:
    """Load, in a bounded loop. All that it is told it remembers; what breaks off it forgives."""

    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession, seed: int) -> None:
        self._gateway = gateway
        self._http = http
        self._random = random.Random(seed)
        self._name = f"r{seed}"
        self._tokens: dict[str, str] = {}
        self.told: dict[str, Told] = {}
        self.answers = 0
        self.refused: list[str] = []

    async def run(self, width: int, each: int, slow: bool = False) -> None:
        self._tokens = self._gateway.tokens()
        await asyncio.gather(*(self._client(number, each, slow) for number in range(width)))

    async def _client(self, number: int, each: int, slow: bool) -> None:
        acts = [self._send, self._start, self._stream] + ([] if slow else [self._call])
        for turn in range(each):
            user = USERS[(number + turn) % 2]
            said = f"{'slow' if slow else 'fast'} {user} {self._name}.{number}.{turn}"
            try:
                await self._random.choice(acts)(user, said)
            except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
                return  # the gateway was killed

    async def _rpc(self, user: str, path: str, method: str, params: Any, headers: dict[str, str]) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        sent = {"authorization": f"Bearer {self._tokens[user]}", **headers}
        async with self._http.post(f"{self._gateway.url}{path}", json=body, headers=sent) as answer:
            document = await answer.json()
        self.answers += 1
        if "error" in document:
            self.refused.append(json.dumps(document["error"]))
            return None
        return document["result"]

    async def _call(self, user: str, said: str) -> None:
        params = {"name": "echo", "arguments": {"text": said}, "_meta": META}
        result = await self._rpc(user, "/mcp/server", "tools/call", params, MCP)
        assert result is None or result["content"][0]["text"] == said

    async def _send(self, user: str, said: str, immediately: bool = False) -> None:
        params = _message(said) | {"configuration": {"returnImmediately": immediately}}
        result = await self._rpc(user, "/agents/agent", "SendMessage", params, VERSION)
        if result is not None:
            self._remember(user, said, result)

    async def _start(self, user: str, said: str) -> None:
        await self._send(user, said, immediately=True)

    async def _stream(self, user: str, said: str) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": _message(said)}
        headers = {"authorization": f"Bearer {self._tokens[user]}", **VERSION}
        async with self._http.post(f"{self._gateway.url}/agents/agent", json=body, headers=headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    self._remember(user, said, json.loads(line[6:])["result"])
        self.answers += 1

    def _remember(self, user: str, said: str, result: dict[str, Any]) -> None:
        for event in result.values():
            told = self.told.setdefault(event.get("taskId") or event["id"], Told(user, said))
            told.state = event.get("status", {}).get("state") or told.state
            pieces = event.get("artifacts", []) + ([event["artifact"]] if "artifact" in event else [])
            told.artifacts |= {part["text"] for piece in pieces for part in piece["parts"]}

    async def get(self, user: str, task_id: str) -> Any:
        return await self._rpc(user, "/agents/agent", "GetTask", {"id": task_id}, VERSION)


def _message(said: str) -> dict[str, Any]:
    return {"message": {"messageId": said, "role": "ROLE_USER", "parts": [{"text": said}]}}


@dataclass(slots=True)
class Town:
    """A gateway that can be killed, its upstream, and all that was ever told to its clients."""

    gateway: Gateway
    upstream: Upstream
    http: aiohttp.ClientSession
    told: dict[str, Told] = field(default_factory=dict)

    async def start(self) -> float:
        """Returns after how many seconds it was ready."""
        began = time.monotonic()
        self.gateway.start()
        await until(lambda: is_ready(self.http, self.gateway), seconds=120, every=0.03)
        return time.monotonic() - began


async def is_ready(http: aiohttp.ClientSession, gateway: Gateway) -> bool:
    try:
        async with http.get(f"{gateway.url}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, ConnectionError):
        return False


@asynccontextmanager
async def town(folder: Path, database_url: str) -> AsyncIterator[Town]:
    upstream = Upstream()
    timeout = aiohttp.ClientTimeout(total=120)
    async with serving(upstream) as url, aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        gateway = Gateway(folder, database_url, url)
        try:
            yield Town(gateway, upstream, http)
        finally:
            upstream.gate.set()
            gateway.stop(signal.SIGKILL)


def tasks_in(gateway: Gateway) -> dict[str, tuple[str, str, list[tuple[int, str, str]]]]:
    """Of each task in the database: state, runner, and its log as (number, kind, body)."""
    with gateway.reading() as connection:
        events = connection.execute(text("SELECT task_id, seq, kind, body FROM task_events ORDER BY task_id, seq")).all()
        rows = connection.execute(text("SELECT id, state, runner FROM tasks")).all()  # second, so that the task of each event is there
    found: dict[str, tuple[str, str, list[tuple[int, str, str]]]] = {row.id: (row.state, row.runner, []) for row in rows}
    for event in events:
        found[event.task_id][2].append((event.seq, event.kind, event.body))
    return found


def decisions_in(gateway: Gateway) -> tuple[dict[str, int], dict[str, int]]:
    """When the first decision that allowed it was made: by task, and by digest of arguments."""
    tasks: dict[str, int] = {}
    digests: dict[str, int] = {}
    with gateway.reading() as connection:
        bodies = connection.execute(text("SELECT body FROM audit WHERE kind = 'decision' ORDER BY at DESC")).scalars().all()
    for record in map(json.loads, bodies):
        if record["allowed"]:
            (tasks if record["action"] == "invokeAgent" else digests)[record["task_id"] or record["arguments"]] = record["at"]
    return tasks, digests
