"""Tasks of servers of 2025-11-25 for clients of 2026-07-28, in terms of the tasks extension.

Such a server asks its questions on the stream of `tasks/result`, so one process must keep that request open while a person answers. It is
the process that a client asked when the task was waiting. Questions are stored, so that any process shows them and accepts the answers.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Raw, Struct

from adapters.mcp_client.wire.eras import decode_checked
from adapters.mcp_client.wire.messages import INVALID_PARAMS, McpRefused, McpRequest, envelope_of
from adapters.mcp_client.wire.peer import PeerRefused
from gateway.calls.server_calls import ServerCalls
from gateway.ingress.http.errors import TooManyWaiting
from gateway.ingress.mcp_server.elicitation.server_questions import InputRequest, check_askable
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.sessions import holder_of
from gateway.ingress.mcp_server.tasks.store import ServerTask, ServerTaskStore
from gateway.ingress.mcp_server.tasks.wire import CANCEL_METHOD, ENDED_STATUSES, RELATED_TASK_KEY
from gateway.storage.database import ReadFailed
from gateway.storage.mailbox import ProcessMailbox
from policies.ids import new_id

ANSWER_SECONDS = 600.0  # a question waits that long for its answer
IDLE_SECONDS = 10.0  # a waiter without open questions ends after that; the next tasks/get starts another
WAITERS_MAX, WAITERS_PER_HOLDER = 1000, 20  # open tasks/result requests
ANSWER_BYTES_MAX = 1 << 20  # bytes
ASKABLE_CAPABILITIES = ("elicitation", "sampling", "roots")
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class _LegacyTask(Struct, rename="camel"):
    """A Task of 2025-11-25."""

    task_id: str
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]
    created_at: str
    last_updated_at: str
    ttl: int | float | None = None
    poll_interval: int | float | None = None
    status_message: str | None = None


_decode_task = msgspec.json.Decoder(_LegacyTask).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def askable_capabilities(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the capabilities that a server of the legacy era is sent, equal in all requests about a task."""
    return {name: capabilities[name] for name in ASKABLE_CAPABILITIES if isinstance(capabilities.get(name), dict)}


async def create_task_result(server_result: Raw, store_task: Callable[[str], Awaitable[str]]) -> bytes:
    """Returns CreateTaskResult of 2026-07-28 for a server's new task. `store_task` stores the server's id and returns the gateway's."""
    legacy_task: _LegacyTask = decode_checked(server_result, _decode_task)
    return encode({"resultType": "task", **_modern_task(legacy_task, await store_task(legacy_task.task_id))})


class LegacyServerTasks:
    """Serves such tasks. `process` is this process; `is_process_alive` returns whether another one still runs."""

    def __init__(
        self,
        server_calls: ServerCalls,
        task_store: ServerTaskStore,
        mailbox: ProcessMailbox,
        process: str,
        is_process_alive: Callable[[str], Awaitable[bool]],
        *,
        first_question_seconds: float,
    ) -> None:
        """`first_question_seconds`: how long tasks/get waits for the first question of a waiting task."""
        self._server_calls = server_calls
        self._task_store = task_store
        self._mailbox = mailbox
        self._process = process
        self._is_process_alive = is_process_alive
        self._first_question_seconds = first_question_seconds
        self._waiters: dict[str, _ResultWaiter] = {}
        self._waiters_per_holder: Counter[str] = Counter()

    async def detailed_task(self, message: ClientMessage, task: ServerTask) -> dict[str, Any]:
        """Returns a DetailedTask, whose result has the server's own names.

        Raises BadEnvelope for questions that the client can't be asked.
        """
        legacy_task: _LegacyTask = decode_checked(
            await self._send_request(message, task, "tasks/get", _SilentPeer(task.capabilities)), _decode_task
        )
        shown = _modern_task(legacy_task, task.id)
        if legacy_task.status == "input_required":
            questions = await self._open_questions(message, task)
            check_askable(message.capabilities, questions)
            return {**shown, "inputRequests": questions} if questions else {**shown, "status": "working"}
        if legacy_task.status not in ("completed", "failed"):
            return shown
        try:
            result: dict[str, Any] = decode_checked(
                await self._send_request(message, task, "tasks/result", _SilentPeer(task.capabilities)), _decode_object
            )
        except McpRefused as refused:
            if legacy_task.status != "failed":
                raise
            return {**shown, "error": {"code": refused.code, "message": refused.public}}
        result.pop("resultType", None)
        return {
            **shown,
            "status": "completed",
            "result": _without_related_task(result),
        }  # a tool's result with isError is a result too

    async def update(self, message: ClientMessage, task: ServerTask, responses: Mapping[str, Any]) -> None:
        """Accepts answers; those to unknown questions are ignored. Authorized like any request about the task. Raises BadEnvelope."""
        await self._send_request(message, task, "tasks/get", _SilentPeer(task.capabilities))
        for key, response in responses.items():
            if not isinstance(response, dict):
                continue
            answer = encode(response)
            if len(answer) > ANSWER_BYTES_MAX:
                raise BadEnvelope(INVALID_PARAMS, f"an answer is larger than {ANSWER_BYTES_MAX} bytes")
            if await self._task_store.close_question(task, key):
                await self._mailbox.send(_answer_address(task, key), answer, ANSWER_SECONDS)

    async def cancel(self, message: ClientMessage, task: ServerTask) -> None:
        """Cancels the task; one that has ended stays as it is."""
        try:
            await self._send_request(message, task, "tasks/cancel", _SilentPeer(task.capabilities))
        except McpRefused as refused:
            if refused.code != INVALID_PARAMS:
                raise
        waiting = self._waiters.get(task.id)
        if waiting is not None:
            waiting.task_of_result.cancel()

    async def close(self) -> None:
        works = [waiting.task_of_result for waiting in self._waiters.values()]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    async def _open_questions(self, message: ClientMessage, task: ServerTask) -> dict[str, InputRequest]:
        """Returns the task's open questions, asked at any process. Raises the error of a waiter that has ended."""
        found = await self._read_open_questions(task)
        if found:
            return found
        waiting = self._waiters.get(task.id) or self._start_waiter(message, task)
        await asyncio.wait(
            [waiting.task_of_result, waiting.first_question],
            timeout=self._first_question_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if waiting.task_of_result.done() and not waiting.task_of_result.cancelled():
            waiting.task_of_result.result()
        return await self._read_open_questions(task)

    async def _read_open_questions(self, task: ServerTask) -> dict[str, InputRequest]:
        """Returns the stored questions that a living process waits for."""
        found: dict[str, InputRequest] = {}
        for key, process, question in await self._task_store.open_questions(task):
            if process == self._process or await self._is_alive(process):
                found[key] = question
            else:
                await self._task_store.close_question(task, key)  # the process that asked has ended, so no answer can reach it
        return found

    async def _is_alive(self, process: str) -> bool:
        try:
            return await self._is_process_alive(process)
        except ReadFailed:
            return True  # unknown, so show the question

    def _start_waiter(self, message: ClientMessage, task: ServerTask) -> "_ResultWaiter":
        whose = holder_of(message.caller)
        if len(self._waiters) >= WAITERS_MAX or self._waiters_per_holder[whose] >= WAITERS_PER_HOLDER:
            raise TooManyWaiting
        waiting = self._waiters[task.id] = _ResultWaiter(task, self._task_store, self._mailbox, self._process)
        self._waiters_per_holder[whose] += 1

        def remove_waiter(work: "asyncio.Task[None]") -> None:
            del self._waiters[task.id]
            self._waiters_per_holder[whose] -= 1
            if not self._waiters_per_holder[whose]:
                del self._waiters_per_holder[whose]
            if not work.cancelled() and (error := work.exception()) is not None:
                log.info("server_task_wait_failed", server=task.server, task_id=task.id, error=type(error).__name__)

        waiting.start(self._send_request(message, task, "tasks/result", waiting))
        waiting.task_of_result.add_done_callback(remove_waiter)
        return waiting

    async def _send_request(self, message: ClientMessage, task: ServerTask, method: str, peer: "_SilentPeer | _ResultWaiter") -> bytes:
        """Sends a request about the task, in the session that created it. Raises what ServerCalls.call raises."""
        params = encode({"taskId": task.server_task_id, "_meta": dict(message.trace_context.headers)})
        request_id = f"{message.id}-{method}"
        request = McpRequest(request_id, task.server_task_id, envelope_of(request_id, method, Raw(params)), params, True, method, peer=peer)
        return (
            await self._server_calls.call(
                message.caller, task.build_call(request, message.trace_context, is_cancel=message.method == CANCEL_METHOD)
            )
        ).result


class _SilentPeer(Struct, frozen=True):
    """A client with these capabilities that can't be notified or asked now."""

    capabilities: Mapping[str, Any]

    async def notify(self, method: str, params: Raw) -> None:
        return None

    async def ask(self, method: str, params: Raw) -> Raw:
        raise PeerRefused(-32601, "Nothing can be asked here")


class _ResultWaiter:
    """The McpPeer of an open tasks/result: stores questions, and waits for their answers."""

    task_of_result: "asyncio.Task[None]"

    def __init__(self, task: ServerTask, task_store: ServerTaskStore, mailbox: ProcessMailbox, process: str) -> None:
        self.capabilities = task.capabilities
        self.first_question: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = task
        self._task_store = task_store
        self._mailbox = mailbox
        self._process = process
        self._open_count = 0

    def start(self, result: Awaitable[bytes]) -> None:
        self.task_of_result = asyncio.create_task(self._wait_while_asking(asyncio.ensure_future(result)))

    async def notify(self, method: str, params: Raw) -> None:
        return None

    async def ask(self, method: str, params: Raw) -> Raw:
        key, question = new_id("q"), InputRequest(method, Raw(encode(_without_related_task(decode_checked(params, _decode_object)))))
        answer: bytes | None = None
        self._open_count += 1
        try:
            await self._task_store.write_question(self._task, key, self._process, question)
            if not self.first_question.done():
                self.first_question.set_result(None)
            answer = await self._mailbox.wait_for(_answer_address(self._task, key), ANSWER_SECONDS)
            return Raw(answer)
        except TimeoutError:
            raise PeerRefused(-32001, "The client did not answer in time") from None
        finally:
            self._open_count -= 1
            if answer is None:
                await asyncio.shield(self._task_store.close_question(self._task, key))

    async def _wait_while_asking(self, result: "asyncio.Future[bytes]") -> None:
        """Waits for the result. Gives up when no question was open for IDLE_SECONDS, since the result can be requested again."""
        try:
            while not result.done():
                await asyncio.wait([result], timeout=IDLE_SECONDS)
                if not self._open_count:
                    break
            if result.done():
                result.result()
        finally:
            result.cancel()
            await asyncio.gather(result, return_exceptions=True)


def _modern_task(legacy_task: _LegacyTask, task_id: str) -> dict[str, Any]:
    """Returns a Task of 2026-07-28 without its outcome."""
    more = (
        {"statusMessage": legacy_task.status_message}
        if legacy_task.status_message and legacy_task.status not in ENDED_STATUSES - {"failed"}
        else {}
    )
    poll = {"pollIntervalMs": legacy_task.poll_interval} if legacy_task.poll_interval is not None else {}
    times = {"createdAt": legacy_task.created_at, "lastUpdatedAt": legacy_task.last_updated_at, "ttlMs": legacy_task.ttl}
    return {"taskId": task_id, "status": legacy_task.status, **more, **times, **poll}


def _without_related_task(members: dict[str, Any]) -> dict[str, Any]:
    """Returns the members without the server's own task id in `_meta`."""
    meta = members.get("_meta")
    rest = {name: value for name, value in members.items() if name != "_meta"}
    remaining_meta = {name: value for name, value in meta.items() if name != RELATED_TASK_KEY} if isinstance(meta, dict) else {}
    return {**rest, "_meta": remaining_meta} if remaining_meta else rest


def _answer_address(task: ServerTask, key: str) -> str:
    return f"task/{task.id}/{key}"
