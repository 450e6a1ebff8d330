"""Tools that an older server only calls as tasks, for clients that take none: the gateway begins the task, and waits for its result."""

import asyncio
from dataclasses import replace
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Raw, Struct

from adapters.contract import UpstreamFault
from adapters.mcp_client.exchange.http import LATE
from adapters.mcp_client.wire.eras import checked
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest, envelope_of
from adapters.upstream.targets import EgressRefused
from gateway.background import let_go
from gateway.calls.broker import Broker
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.tasks.store import ServerTask
from gateway.ingress.mcp_server.tasks.wire import CANCEL, RELATED
from gateway.storage.database import NotKept, NotRead

WAIT_SECONDS = 600.0  # for a task to end; then it is cancelled
POLL_SECONDS, POLL_MAX = 0.25, 5.0  # between two looks: longer while nothing happens
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class _Status(Struct):
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]


_status = msgspec.json.Decoder(_Status).decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class AwaitedTasks:
    """Nobody but the call knows of such a task, so it ends with the call."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def result(self, asked: Asked, task: ServerTask, request: McpRequest) -> McpAnswer:
        """The result of a task that `request` began, in whose session it is. What the server asks goes to the request's client.

        Raises what the broker raises, and UpstreamFault when the task does not end in time.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await self._settled(asked, task, request)
        except TimeoutError:
            self._cancel(asked, task, request)
            raise UpstreamFault(LATE, f"the task did not end in {WAIT_SECONDS:.0f} seconds") from None
        except asyncio.CancelledError:
            self._cancel(asked, task, request)
            raise

    async def _settled(self, asked: Asked, task: ServerTask, request: McpRequest) -> McpAnswer:
        pause = POLL_SECONDS
        while True:
            status: _Status = checked((await self._send(asked, task, request, "tasks/get")).result, _status)
            if status.status == "cancelled":
                raise UpstreamFault("The server cancelled the call", "its task is cancelled")
            if status.status != "working":  # one that waits for input asks on the stream of its result
                answer = await self._send(asked, task, request, "tasks/result")
                return replace(answer, result=_unrelated(answer.result))
            await asyncio.sleep(pause)
            pause = min(POLL_MAX, 1.5 * pause)

    async def _send(self, asked: Asked, task: ServerTask, request: McpRequest, method: str) -> McpAnswer:
        """A request about the task, as of the client that began it."""
        params = encode({"taskId": task.own, "_meta": dict(asked.trail.headers)})
        request_id = f"{asked.id}-{method}"
        about = replace(request, id=request_id, name=task.own, method=method, params=params, headers={})
        about = replace(about, raw=envelope_of(request_id, method, Raw(params)))
        return await self._broker.reach(asked.caller, task.call(about, asked.trail, stops=method == CANCEL))

    def _cancel(self, asked: Asked, task: ServerTask, request: McpRequest) -> None:
        async def cancel() -> None:
            try:
                await self._send(asked, task, request, CANCEL)
            except (UpstreamFault, McpRefused, EgressRefused, NotKept, NotRead) as error:
                log.info("server_task_not_cancelled", server=task.server, error=type(error).__name__)

        let_go(cancel(), "server_task_not_cancelled", server=task.server)


def own_task_of(result: bytes) -> str | None:
    """The server's id of a new task; None for a result that is none."""
    inner = _members(result).get("task")
    if inner is None or bytes(inner)[:1] != b"{":
        return None
    task: dict[str, Any] = checked(inner, _object)
    return task["taskId"] if isinstance(task.get("taskId"), str) else None


def _unrelated(result: bytes) -> bytes:
    """Without the server's own id of the task."""
    members: dict[str, Any] = dict(_members(result))
    if "_meta" in members:
        kept = {name: value for name, value in _members(members["_meta"]).items() if name != RELATED}
        members = {name: value for name, value in members.items() if name != "_meta"} | ({"_meta": kept} if kept else {})
    return encode(members)
