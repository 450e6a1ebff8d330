"""Sessions of the initialize era: tool calls in them, and the memory of each, alone and with its GET stream open."""

import asyncio
import dataclasses
import json
from typing import Any

from tests.bench.figures import Run, Sessions
from tests.bench.interlock import exchange, send_request
from tests.bench.processes import BenchFailure, resident_mb
from tests.bench.rounds import LoadClient, Plan, Target, measure_rows
from tests.bench.workload import SESSION_VERSION as VERSION

_SETTLE = 2.0  # seconds until all is quiet
_AT_ONCE = 32
_WARM = 64  # what the first of all cost is not theirs
_CLIENT = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "interlock-bench", "version": "1"}}


def session_runs(client: LoadClient, plan: Plan, plain: list[Target], gateway: Target) -> list[Run]:
    """Calls in a session of each person's own, through to a server of the same era. Raises BenchFailure."""
    opened = [_session_of(gateway, token) for token in gateway.tokens]
    targets = [dataclasses.replace(target, sessions=opened) for target in (*plain, gateway)]
    return measure_rows(client, dataclasses.replace(plan, workloads=("mcp_session",)), targets)


def _session_of(gateway: Target, token: str) -> str:
    """The id of a new session. Raises BenchFailure."""
    path, accepted = gateway.paths["mcp_session"], {"Accept": "application/json, text/event-stream"}
    document = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _CLIENT}
    status, body, headers = exchange(gateway.running, path, token, document, accepted)
    session = headers.get("mcp-session-id", "")
    if status != 200 or not session:
        raise BenchFailure(f"no session: HTTP {status} {body[:500]!r}")
    named = {**accepted, "Mcp-Session-Id": session, "MCP-Protocol-Version": VERSION}
    send_request(gateway.running, path, token, {"jsonrpc": "2.0", "method": "notifications/initialized"}, named)
    return session


def measure_sessions(plan: Plan, gateway: Target) -> Sessions:
    """Raises BenchFailure."""
    return asyncio.run(_Clients(gateway).measure(plan.sessions))


class _Clients:
    """Clients of the legacy era, each with a session of its own at /mcp."""

    def __init__(self, gateway: Target) -> None:
        self._gateway = gateway
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def measure(self, count: int) -> Sessions:
        tokens = [self._gateway.tokens[number % len(self._gateway.tokens)] for number in range(count)]
        for token, session in await asyncio.gather(*(self._open(token) for token in tokens[:_WARM])):
            (await self._listen(token, session)).close()
        before = await self._resident_mb()
        opened = await asyncio.gather(*(self._open(token) for token in tokens))
        held = await self._resident_mb()
        streams = await asyncio.gather(*(self._listen(token, session) for token, session in opened))
        listening = await self._resident_mb()
        for writer in streams:
            writer.close()
        return Sessions(count, (held - before) * 1e3 / count, (listening - before) * 1e3 / count)

    async def _resident_mb(self) -> float:
        await asyncio.sleep(_SETTLE)
        return resident_mb(self._gateway.running.pid)

    async def _open(self, token: str) -> tuple[str, str]:
        """The person's token, and the id of a session that has listed the tools once."""
        async with self._turns:
            head, _ = await self._post(token, "", {"id": 1, "method": "initialize", "params": _CLIENT})
            session = head.partition("mcp-session-id: ")[2].partition("\r\n")[0]
            await self._post(token, session, {"method": "notifications/initialized"})
            _, body = await self._post(token, session, {"id": 2, "method": "tools/list"})
        if not session or "tools" not in json.loads(body).get("result", {}):
            raise BenchFailure(f"no session: {body[:500]!r}")
        return token, session

    async def _post(self, token: str, session: str, message: dict[str, Any]) -> tuple[str, bytes]:
        """The line with the session's id, if there is one, and the body of the answer."""
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        reader, writer = await self._send(token, session, "POST", body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        names = head.lower()
        length = names.partition("content-length: ")[2].partition("\r\n")[0]
        answer = await reader.readexactly(int(length)) if length else b""
        writer.close()
        place = names.find("mcp-session-id: ")
        return (f"mcp-session-id: {head[place + 16 :]}" if place >= 0 else ""), answer

    async def _listen(self, token: str, session: str) -> asyncio.StreamWriter:
        """A GET stream whose head was read."""
        async with self._turns:
            reader, writer = await self._send(token, session, "GET", b"")
            head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise BenchFailure(f"no stream: {head[:500]!r}")
        return writer

    async def _send(self, token: str, session: str, method: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = self._gateway.running.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = {
            "Host": f"127.0.0.1:{port}",
            "Authorization": f"Bearer {token}",
            "Accept": "text/event-stream" if method == "GET" else "application/json, text/event-stream",
            **({"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}),
            **({"Mcp-Session-Id": session, "MCP-Protocol-Version": VERSION} if session else {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{method} /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        return reader, writer
