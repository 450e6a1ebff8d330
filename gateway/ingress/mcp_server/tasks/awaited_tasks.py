"""Tools that a legacy server runs as tasks only, for clients without tasks: the gateway starts the task and waits for its result."""

import asyncio
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Raw, Struct
from msgspec.structs import replace

from adapters.contract import UpstreamFault
from adapters.mcp_client.exchange.http import LATE_TEXT
from adapters.mcp_client.wire.eras import decode_checked
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest, envelope_of
from adapters.upstream.targets import EgressRefused
from gateway.calls.server_calls import ServerCalls
from gateway.concurrency.background import run_in_background
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.tasks.store import ServerTask
from gateway.ingress.mcp_server.tasks.wire import CANCEL_METHOD, RELATED_TASK_KEY
from gateway.storage.database import ReadFailed, WriteFailed

TASK_SECONDS = 600.0  # after which a task is canceled
POLL_SECONDS, POLL_MAX = 0.25, 5.0  # between two polls; grows with each poll
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class _PolledStatus(Struct):
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]


_decode_status = msgspec.json.Decoder(_PolledStatus).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class AwaitedTasks:
    """Waits for tasks that no client knows, so each is canceled with its call."""

    def __init__(self, server_calls: ServerCalls) -> None:
        self._server_calls = server_calls

    async def wait_for_result(self, message: ClientMessage, task: ServerTask, request: McpRequest) -> McpAnswer:
        """Returns the result of a task that `request` started, in its session. The server's questions go to the request's client.

        Raises what ServerCalls.call raises, and UpstreamFault when the task does not end in time.
        """
        try:
            async with asyncio.timeout(TASK_SECONDS):
                return await self._poll_result(message, task, request)
        except TimeoutError:
            self._cancel_in_background(message, task, request)
            raise UpstreamFault(LATE_TEXT, f"the task did not end in {TASK_SECONDS:.0f} seconds") from None
        except asyncio.CancelledError:
            self._cancel_in_background(message, task, request)
            raise

    async def _poll_result(self, message: ClientMessage, task: ServerTask, request: McpRequest) -> McpAnswer:
        pause = POLL_SECONDS
        while True:
            status: _PolledStatus = decode_checked((await self._send_request(message, task, request, "tasks/get")).result, _decode_status)
            if status.status == "cancelled":
                raise UpstreamFault("The server cancelled the call", "its task is cancelled")
            if status.status != "working":  # a task that waits for input asks on the stream of its result
                answer = await self._send_request(message, task, request, "tasks/result")
                return replace(answer, result=_without_related_task(answer.result))
            await asyncio.sleep(pause)
            pause = min(POLL_MAX, 1.5 * pause)

    async def _send_request(self, message: ClientMessage, task: ServerTask, request: McpRequest, method: str) -> McpAnswer:
        """Sends a request about the task on behalf of the client whose call started it."""
        params = encode({"taskId": task.server_task_id, "_meta": dict(message.trace_context.headers)})
        request_id = f"{message.id}-{method}"
        task_request = replace(request, id=request_id, name=task.server_task_id, method=method, params=params, headers={})
        task_request = replace(task_request, raw=envelope_of(request_id, method, Raw(params)))
        return await self._server_calls.call(
            message.caller, task.build_call(task_request, message.trace_context, is_cancel=method == CANCEL_METHOD)
        )

    def _cancel_in_background(self, message: ClientMessage, task: ServerTask, request: McpRequest) -> None:
        async def cancel() -> None:
            try:
                await self._send_request(message, task, request, CANCEL_METHOD)
            except (UpstreamFault, McpRefused, EgressRefused, WriteFailed, ReadFailed) as error:
                log.info("server_task_cancel_failed", server=task.server, error=type(error).__name__)

        run_in_background(cancel(), "server_task_cancel_failed", server=task.server)


def server_task_id_of(result: bytes) -> str | None:
    """Returns the server's id of a new task, or None for a result that is not a task."""
    inner = _decode_members(result).get("task")
    if inner is None or bytes(inner)[:1] != b"{":
        return None
    task: dict[str, Any] = decode_checked(inner, _decode_object)
    return task["taskId"] if isinstance(task.get("taskId"), str) else None


def _without_related_task(result: bytes) -> bytes:
    """Returns the result without the server's own task id."""
    members: dict[str, Any] = dict(_decode_members(result))
    if "_meta" in members:
        remaining_meta = {name: value for name, value in _decode_members(members["_meta"]).items() if name != RELATED_TASK_KEY}
        members = {name: value for name, value in members.items() if name != "_meta"} | (
            {"_meta": remaining_meta} if remaining_meta else {}
        )
    return encode(members)
