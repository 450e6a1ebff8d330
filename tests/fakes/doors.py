"""Every door by which a person or an agent gets something done, knocked at with any token: was it let in, and was anything done."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from a2a.client.errors import A2AClientError

from tests.fakes import a2a_doors
from tests.fakes.house import CAPABILITIES, House
from tests.fakes.mcp_wire import EVENTS, document, stream
from tests.fakes.reference_clients import GRPC, client_of, request

A2A = (*a2a_doors.DOORS, *GRPC)
MCP = ("mcp-2026", "mcp-2025", "mcp-sse")
DOORS = (*A2A, *MCP, "api")
CALL = {"name": "check", "arguments": {}}
HELLO = {"capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


@dataclass(frozen=True)
class Knock:
    """`admitted`: the token was taken; `done`: something happened for it; `text`: all that was answered."""

    admitted: bool
    done: bool
    text: str


def resource(door: str, agent: str = "sales") -> str:
    """What a token has to be for there, as a path."""
    return f"/agents/{agent}" if door in A2A else "/mcp/inventory"


async def knock(home: House, door: str, token: str, agent: str = "sales", headers: Mapping[str, str] | None = None) -> Knock:
    """A message to the agent `sales`, a call of the server `inventory`, or a list of one's tasks."""
    more = dict(headers or {})
    if door in GRPC:
        return await _grpc(home, door, token, agent, more)
    if door in A2A:
        params = {"message": a2a_doors.message_of(door, "hi")}
        return _said(await a2a_doors.ask(home, door, "send", params, token=token, agent=agent, headers=more), "completed")
    authorization = {"authorization": f"Bearer {token}", **more}
    if door == "api":
        return _said(await home.http.get("/api/tasks", headers=authorization), '"items"')
    if door == "mcp-sse":
        return await _sse(home, authorization)
    sent = {"accept": EVENTS, **authorization}
    if door == "mcp-2026":
        sent |= {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "check"}
        return _said(await _post(home, document("tools/call", {**CALL, "_meta": CAPABILITIES}), sent), '"result"')
    hello = await _post(home, document("initialize", {**HELLO, "protocolVersion": "2025-11-25"}), sent)
    if "mcp-session-id" not in hello.headers:
        return _said(hello, '"never"')
    return _said(await _post(home, document("tools/call", CALL), sent | {"mcp-session-id": hello.headers["mcp-session-id"]}), '"result"')


async def _post(home: House, body: Any, headers: Mapping[str, str], path: str = "/mcp/inventory") -> httpx.Response:
    return await home.http.post(path, json=body, headers=headers)


def _said(answer: httpx.Response, sign: str) -> Knock:
    refused = answer.status_code in (401, 431)
    return Knock(not refused, answer.status_code == 200 and sign in answer.text.lower() and '"error"' not in answer.text, answer.text)


async def _grpc(home: House, door: str, token: str, agent: str, headers: dict[str, str]) -> Knock:
    async with client_of(home, door, agent=agent, headers={"authorization": f"Bearer {token}", **headers}) as client:
        try:
            answer = await client.send_message(request("hi"))
        except (A2AClientError, grpc.aio.AioRpcError) as error:
            failure = error if isinstance(error, grpc.aio.AioRpcError) else error.__cause__
            code = failure.code() if isinstance(failure, grpc.aio.AioRpcError) else None
            refused = code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)
            return Knock(not refused, False, f"{error!r} {failure!r}")
    return Knock(True, "TASK_STATE_COMPLETED" in str(answer), str(answer))


async def _sse(home: House, headers: dict[str, str]) -> Knock:
    async with stream(home, "nobody", None, headers, "/mcp/inventory", "GET") as events:
        if events.answer.status_code != 200:
            await events.answer.aread()
            return _said(events.answer, '"never"')
        address = await events.address()
        await _post(home, document("initialize", {**HELLO, "protocolVersion": "2024-11-05"}), headers, address)
        await events.next()
        taken = await _post(home, document("tools/call", CALL, 2), headers, address)
        if taken.status_code != 202:
            return _said(taken, '"never"')
        answer = json.dumps(await events.next())
        return Knock(True, '"result"' in answer, answer)
