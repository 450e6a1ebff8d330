"""Tasks of servers of 2025-11-25 for clients of 2026-07-28: begun, shown, answered and ended in the words of the extension.

Such a server asks what a task asks on the stream of `tasks/result`, so somebody has to have that open while a person thinks: the process
that a client asked when the task was waiting. What is asked is kept, so that any process shows it and takes the answer.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Raw, Struct

from adapters.mcp_client.wire.eras import checked
from adapters.mcp_client.wire.messages import INVALID_PARAMS, McpRefused, McpRequest, envelope_of
from adapters.mcp_client.wire.peer import PeerRefused
from gateway.calls.broker import Broker
from gateway.ingress.http.errors import TooManyWaiting
from gateway.ingress.mcp_server.elicitation.server_questions import Question, check_askable
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.sessions import holder
from gateway.ingress.mcp_server.tasks.store import ServerTask, ServerTasks
from gateway.ingress.mcp_server.tasks.wire import CANCEL, ENDED, RELATED
from gateway.storage.database import NotRead
from gateway.storage.mailbox import Mailbox
from policies.ids import new_id

THINK_SECONDS = 600.0  # for which a person may think about a question
FIRST_SECONDS = 2.0  # for which a client that asks waits for what a task that waits asks
IDLE_SECONDS = 10.0  # after which a result that asks nothing is not waited for any more; whoever asks for the task begins again
ALL_MAX, HOLDER_MAX = 1000, 20  # results that are waited for
ANSWER_MAX = 1 << 20  # bytes
ASKABLE = ("elicitation", "sampling", "roots")
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class _Shown(Struct, rename="camel"):
    """A Task of 2025-11-25."""

    task_id: str
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]
    created_at: str
    last_updated_at: str
    ttl: int | float | None = None
    poll_interval: int | float | None = None
    status_message: str | None = None


_shown = msgspec.json.Decoder(_Shown).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def askable(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """What of them a server of the initialize era is told, at each request about a task alike."""
    return {name: capabilities[name] for name in ASKABLE if isinstance(capabilities.get(name), dict)}


async def begun(text: Raw, named: Callable[[str], Awaitable[str]]) -> bytes:
    """CreateTaskResult of 2026-07-28 for what a server says of a new task; `named` keeps the server's id, and gives ours."""
    said: _Shown = checked(text, _shown)
    return encode({"resultType": "task", **_newer(said, await named(said.task_id))})


class OlderServerTasks:
    """`process` is ours; `lives` tells of another whether it is still there."""

    def __init__(self, broker: Broker, kept: ServerTasks, mailbox: Mailbox, process: str, lives: Callable[[str], Awaitable[bool]]) -> None:
        self._broker = broker
        self._kept = kept
        self._mailbox = mailbox
        self._process = process
        self._lives = lives
        self._waiting: dict[str, _Waiting] = {}
        self._holders: Counter[str] = Counter()

    async def detailed(self, asked: Asked, task: ServerTask) -> dict[str, Any]:
        """DetailedTask, with the server's names in its result. Raises BadEnvelope for questions that the client can't be asked."""
        said: _Shown = checked(await self._send(asked, task, "tasks/get", _Silent(task.capabilities)), _shown)
        shown = _newer(said, task.id)
        if said.status == "input_required":
            questions = await self._questions(asked, task)
            check_askable(asked.capabilities, questions)
            return {**shown, "inputRequests": questions} if questions else {**shown, "status": "working"}
        if said.status not in ("completed", "failed"):
            return shown
        try:
            result: dict[str, Any] = checked(await self._send(asked, task, "tasks/result", _Silent(task.capabilities)), _object)
        except McpRefused as refused:
            if said.status != "failed":
                raise
            return {**shown, "error": {"code": refused.code, "message": refused.public}}
        result.pop("resultType", None)
        return {**shown, "status": "completed", "result": _unrelated(result)}  # what a tool says of itself is a result, of isError too

    async def update(self, asked: Asked, task: ServerTask, responses: Mapping[str, Any]) -> None:
        """Answers; those to no open question mean nothing. Ruled on like any request about it. Raises BadEnvelope."""
        await self._send(asked, task, "tasks/get", _Silent(task.capabilities))
        for key, given in responses.items():
            if not isinstance(given, dict):
                continue
            answer = encode(given)
            if len(answer) > ANSWER_MAX:
                raise BadEnvelope(INVALID_PARAMS, f"an answer is larger than {ANSWER_MAX} bytes")
            if await self._kept.answered(task, key):
                await self._mailbox.send(_address(task, key), answer, THINK_SECONDS)

    async def cancel(self, asked: Asked, task: ServerTask) -> None:
        """Asks for the end; one that has ended already stays as it is."""
        try:
            await self._send(asked, task, "tasks/cancel", _Silent(task.capabilities))
        except McpRefused as refused:
            if refused.code != INVALID_PARAMS:
                raise
        waiting = self._waiting.get(task.id)
        if waiting is not None:
            waiting.work.cancel()

    async def close(self) -> None:
        works = [waiting.work for waiting in self._waiting.values()]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    async def _questions(self, asked: Asked, task: ServerTask) -> dict[str, Question]:
        """What the task asks now, wherever it is waited for. Raises what ended the waiting, if it has ended."""
        found = await self._open(task)
        if found:
            return found
        waiting = self._waiting.get(task.id) or self._begin(asked, task)
        await asyncio.wait([waiting.work, waiting.asked], timeout=FIRST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if waiting.work.done() and not waiting.work.cancelled():
            waiting.work.result()
        return await self._open(task)

    async def _open(self, task: ServerTask) -> dict[str, Question]:
        """Those that somebody waits for."""
        found: dict[str, Question] = {}
        for key, process, question in await self._kept.questions(task):
            if process == self._process or await self._is_there(process):
                found[key] = question
            else:
                await self._kept.answered(task, key)  # never by anybody: whoever asked is no more
        return found

    async def _is_there(self, process: str) -> bool:
        try:
            return await self._lives(process)
        except NotRead:
            return True  # as far as one can see

    def _begin(self, asked: Asked, task: ServerTask) -> "_Waiting":
        whose = holder(asked.caller)
        if len(self._waiting) >= ALL_MAX or self._holders[whose] >= HOLDER_MAX:
            raise TooManyWaiting
        waiting = self._waiting[task.id] = _Waiting(task, self._kept, self._mailbox, self._process)
        self._holders[whose] += 1

        def over(work: "asyncio.Task[None]") -> None:
            del self._waiting[task.id]
            self._holders[whose] -= 1
            if not self._holders[whose]:
                del self._holders[whose]
            if not work.cancelled() and (error := work.exception()) is not None:
                log.info("server_task_not_waited_for", server=task.server, task_id=task.id, error=type(error).__name__)

        waiting.begin(self._send(asked, task, "tasks/result", waiting))
        waiting.work.add_done_callback(over)
        return waiting

    async def _send(self, asked: Asked, task: ServerTask, method: str, peer: "_Silent | _Waiting") -> bytes:
        """A request about the task, in the session that it was begun in. Raises what the broker raises."""
        params = encode({"taskId": task.own, "_meta": dict(asked.trail.headers)})
        request_id = f"{asked.id}-{method}"
        request = McpRequest(request_id, task.own, envelope_of(request_id, method, Raw(params)), params, True, method, peer=peer)
        return (await self._broker.reach(asked.caller, task.call(request, asked.trail, stops=asked.method == CANCEL))).result


class _Silent(Struct, frozen=True):
    """Somebody with these capabilities, who hears and answers nothing now."""

    capabilities: Mapping[str, Any]

    async def notify(self, method: str, params: Raw) -> None:
        return None

    async def ask(self, method: str, params: Raw) -> Raw:
        raise PeerRefused(-32601, "Nothing can be asked here")


class _Waiting:
    """The Peer of a result that is waited for: keeps what is asked, and waits for the answers."""

    work: "asyncio.Task[None]"

    def __init__(self, task: ServerTask, kept: ServerTasks, mailbox: Mailbox, process: str) -> None:
        self.capabilities = task.capabilities
        self.asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = task
        self._kept = kept
        self._mailbox = mailbox
        self._process = process
        self._open = 0

    def begin(self, result: Awaitable[bytes]) -> None:
        self.work = asyncio.create_task(self._while_it_asks(asyncio.ensure_future(result)))

    async def notify(self, method: str, params: Raw) -> None:
        return None

    async def ask(self, method: str, params: Raw) -> Raw:
        key, question = new_id("q"), Question(method, Raw(encode(_unrelated(checked(params, _object)))))
        answer: bytes | None = None
        self._open += 1
        try:
            await self._kept.ask(self._task, key, self._process, question)
            if not self.asked.done():
                self.asked.set_result(None)
            answer = await self._mailbox.wait(_address(self._task, key), THINK_SECONDS)
            return Raw(answer)
        except TimeoutError:
            raise PeerRefused(-32001, "The client did not answer in time") from None
        finally:
            self._open -= 1
            if answer is None:
                await asyncio.shield(self._kept.answered(self._task, key))

    async def _while_it_asks(self, result: "asyncio.Future[bytes]") -> None:
        """Until the result is there, or nothing was asked for a while: then nobody need wait for it."""
        try:
            while not result.done():
                await asyncio.wait([result], timeout=IDLE_SECONDS)
                if not self._open:
                    break
            if result.done():
                result.result()
        finally:
            result.cancel()
            await asyncio.gather(result, return_exceptions=True)


def _newer(said: _Shown, task_id: str) -> dict[str, Any]:
    """A Task of 2026-07-28 without what became of it."""
    more = {"statusMessage": said.status_message} if said.status_message and said.status not in ENDED - {"failed"} else {}
    poll = {"pollIntervalMs": said.poll_interval} if said.poll_interval is not None else {}
    times = {"createdAt": said.created_at, "lastUpdatedAt": said.last_updated_at, "ttlMs": said.ttl}
    return {"taskId": task_id, "status": said.status, **more, **times, **poll}


def _unrelated(members: dict[str, Any]) -> dict[str, Any]:
    """Without the server's own id of the task in `_meta`."""
    meta = members.get("_meta")
    rest = {name: value for name, value in members.items() if name != "_meta"}
    kept = {name: value for name, value in meta.items() if name != RELATED} if isinstance(meta, dict) else {}
    return {**rest, "_meta": kept} if kept else rest


def _address(task: ServerTask, key: str) -> str:
    return f"task/{task.id}/{key}"
