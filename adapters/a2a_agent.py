"""An agent that speaks A2A over JSON-RPC, in 1.0 or 0.3 as its card says."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from msgspec import structs

from adapters.a2a_wire import rpc
from adapters.a2a_wire.reading import Reading
from adapters.a2a_wire.tolerant import UnknownState
from adapters.contract import Adapter, Call, Event, Turn, UpstreamFault, VendorRef
from adapters.egress import Egress
from adapters.sse import SseReader
from adapters.task import INTERRUPTED, TERMINAL, Message, Task, TaskState

ANSWER_LIMIT: Final = 8 << 20  # bytes
_POLL_FIRST: Final = 0.05  # seconds
_POLL_MAX: Final = 2.0
_POLL_GROWTH: Final = 1.6


@dataclass(frozen=True, slots=True)
class _Peer:
    """Where and how one call goes."""

    url: str
    tenant: str
    dialect: rpc.Dialect
    streams: bool


class A2AAgent:
    """Reads from `call.target.facts`: version, streaming, interface (a URL) and tenant.

    A peer that doesn't know 1.0 methods although its card says so is spoken to in 0.3 from then on.
    """

    def __init__(self, egress: Egress, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._egress = egress
        self._pause = pause
        self._ids = itertools.count(1)
        self._older: set[str] = set()  # URLs that turned out to speak 0.3 only

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Sends the message, then asks for the task until it ends. Raises UpstreamFault."""
        reading = Reading(turn.ref)
        async with aclosing(self._sent(turn, call, reading)) as events:
            async for event in events:
                yield event
        delay = _POLL_FIRST
        while not reading.ended:
            await self._pause(delay)
            delay = min(delay * _POLL_GROWTH, _POLL_MAX)
            for event in reading.events(await self._task(call, reading.task_id)):
                yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """True only when the agent shows the task as canceled; one that ended otherwise meanwhile is not."""
        if not ref.task_id:
            return False
        task = await self._task(call, ref.task_id, cancel=True)
        delay = _POLL_FIRST
        while task.status.state not in TERMINAL | INTERRUPTED:
            await self._pause(delay)
            delay = min(delay * _POLL_GROWTH, _POLL_MAX)
            task = await self._task(call, ref.task_id)
        return task.status.state is TaskState.CANCELED

    async def _sent(self, turn: Turn, call: Call, reading: Reading) -> AsyncGenerator[Event, None]:
        """What the send itself brings: all of a stream, or one answer. Without an ending, the task is known afterwards."""
        stream = turn.stream
        while True:
            peer = self._peer(call)
            answers = self._streamed if stream and peer.streams else self._answered
            try:
                async with aclosing(answers(peer, turn, call, reading)) as events:
                    async for event in events:
                        yield event
                break
            except rpc.PeerError as error:
                if reading.task_id or not self._speaks_otherwise(peer, error, stream):
                    raise
                stream = stream and peer.dialect is not self._peer(call).dialect  # another version first, then without
            except UnknownState as unknown:
                for event in reading.heard_of(unknown):
                    yield event
                break
        if not reading.ended and not reading.task_id:
            raise UpstreamFault("The agent's answer broke off", "the stream had no event")

    def _speaks_otherwise(self, peer: _Peer, error: rpc.PeerError, stream: bool) -> bool:
        """Whether a refused method is worth another try, in the older version or without streaming: nothing was done yet."""
        streamed = stream and peer.streams
        if error.code == rpc.METHOD_NOT_FOUND and peer.dialect is rpc.V1:
            self._older.add(peer.url)
            return True
        if error.code == rpc.METHOD_NOT_FOUND and not streamed:
            self._older.discard(peer.url)
        return streamed and error.code in (rpc.METHOD_NOT_FOUND, rpc.UNSUPPORTED_OPERATION)

    async def _answered(self, peer: _Peer, turn: Turn, call: Call, reading: Reading) -> AsyncGenerator[Event, None]:
        body, request_id = await self._ask(peer, call, peer.dialect.send, self._params(peer, turn))
        for event in reading.events(rpc.read_event(body, request_id)):
            yield event

    async def _streamed(self, peer: _Peer, turn: Turn, call: Call, reading: Reading) -> AsyncGenerator[Event, None]:
        request_id = next(self._ids)
        body = rpc.request_bytes(request_id, peer.dialect.stream, self._params(peer, turn))
        headers = _headers(peer, call, "text/event-stream")
        async with self._egress.stream("POST", peer.url, headers=headers, body=body, timeout=_remaining(call)) as answer:
            if answer.status != 200 or not answer.headers.get("content-type", "").startswith("text/event-stream"):
                whole = await answer.read(ANSWER_LIMIT)
                if answer.status != 200:
                    raise rpc.http_fault(answer.status, whole)
                for event in reading.events(rpc.read_event(whole, request_id)):
                    yield event
                return
            sse = SseReader(ANSWER_LIMIT)
            async with aclosing(_until_cut(answer)) as chunks:
                async for chunk in chunks:
                    for sent in sse.feed(chunk):
                        for event in reading.events(rpc.read_event(sent.data, request_id)):
                            yield event
                        if reading.ended:
                            return

    async def _task(self, call: Call, task_id: str, cancel: bool = False) -> Task:
        peer = self._peer(call)
        params = {"id": task_id, "tenant": peer.tenant} if peer.tenant else {"id": task_id}
        try:
            body, request_id = await self._ask(peer, call, peer.dialect.cancel if cancel else peer.dialect.get, params)
            task = rpc.read_task(body, request_id)
        except rpc.PeerError as error:
            if not self._speaks_otherwise(peer, error, stream=False):
                raise
            return await self._task(call, task_id, cancel)
        if task.id != task_id:
            raise UpstreamFault("The agent answered about another task")
        return task

    async def _ask(self, peer: _Peer, call: Call, method: str, params: Any) -> tuple[bytes, int]:
        request_id = next(self._ids)
        answer = await self._egress.request(
            "POST",
            peer.url,
            headers=_headers(peer, call, "application/json"),
            body=rpc.request_bytes(request_id, method, params),
            timeout=_remaining(call),
            limit=ANSWER_LIMIT,
            idempotent=method == peer.dialect.get,
        )
        if answer.status != 200:
            raise rpc.http_fault(answer.status, answer.body)
        return answer.body, request_id

    def _peer(self, call: Call) -> _Peer:
        facts = call.target.facts
        url = facts.get("interface") or call.target.url
        older = str(facts.get("version", "1.0")).startswith("0.") or url in self._older
        return _Peer(url, "" if older else facts.get("tenant", ""), rpc.V03 if older else rpc.V1, bool(facts.get("streaming")))

    @staticmethod
    def _params(peer: _Peer, turn: Turn) -> Any:
        return peer.dialect.send_params(_outgoing(turn), turn.accepted_output_modes, peer.tenant)


def _outgoing(turn: Turn) -> Message:
    """The message under its own id, in the agent's conversation: ids of ours mean nothing to it and stay here."""
    ref = turn.ref or VendorRef()
    return structs.replace(turn.message, context_id=ref.context_id, task_id=ref.task_id, reference_task_ids=())


async def _until_cut(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The chunks up to where the connection broke: the task is asked for then, since it may go on without a listener."""
    try:
        async for chunk in chunks:
            yield chunk
    except UpstreamFault:
        return


def _headers(peer: _Peer, call: Call, accept: str) -> dict[str, str]:
    return {**call.headers, **peer.dialect.headers, "Content-Type": "application/json", "Accept": accept}


def _remaining(call: Call) -> float:
    return max(call.deadline - asyncio.get_running_loop().time(), 0.001)


_: type[Adapter] = A2AAgent
