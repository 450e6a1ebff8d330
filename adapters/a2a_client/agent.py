"""The adapter for A2A agents, in the binding and version that the agent's card names."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Final

from msgspec import structs

from adapters.a2a_client.cancellation import cancel_task, request_cancellation
from adapters.a2a_client.peers import A2APeers, url_of
from adapters.a2a_client.push_wakeups import PushWakeup, PushWakeups
from adapters.a2a_client.wire.reading import A2ATurnReader
from adapters.a2a_client.wire.tolerant import UnknownState
from adapters.a2a_client.wire.transport import ANSWER_LIMIT, UNSUPPORTED_OPERATION, PeerError, PeerEvents, Transport
from adapters.contract import (
    Adapter,
    AnswerRefused,
    BatchingAdapter,
    Call,
    CannotReattach,
    Event,
    InvalidAnswer,
    Reattachable,
    Stoppable,
    Turn,
    Unreachable,
    UpstreamFault,
    VendorRef,
    Watcher,
)
from adapters.task import INTERRUPTED, Message, Task
from adapters.upstream.egress import Egress
from adapters.upstream.request_signing import Signer

_POLL_FIRST: Final = 0.05  # seconds
_POLL_MAX: Final = 2.0
_POLL_GROWTH: Final = 1.6
_POLL_SHARE: Final = 0.02  # of the turn's duration so far, between two polls of a long turn
_POLL_LONG: Final = 15.0
_POLL_PUSHING_SECONDS: Final = 10.0  # of an agent that pushes: polling finds what it failed to push
_WATCH_FIRST: Final = 1.0
_WATCH_MAX: Final = 30.0
_RETRY_DELAYS: Final = (0.2, 1.0, 3.0)  # seconds between retries while an agent is unreachable
_ANSWER_REFUSED_CODES: Final = frozenset({UNSUPPORTED_OPERATION, -32602, -32600})  # how agents refuse a message to a task that moved on
_NO_WAKEUP: Final[AbstractContextManager[None]] = nullcontext()
ANSWER_REFUSED_TEXT: Final = "The agent refused the answer and waits for another one"


class A2AAgent:
    """Runs turns of A2A agents. Reads from `call.target.facts`: binding, version, streaming, interface (its URL) and tenant.

    An agent that supports push but not streaming is asked to push where the operator set `upstream: {push: true}`. An agent that does not
    know 1.0 methods despite its card is called in 0.3 from then on. `grpc` makes the gRPC transport on its first use.
    """

    def __init__(
        self,
        egress: Egress,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        grpc: Callable[[], Transport] | None = None,
        push_wakeups: PushWakeups | None = None,
        may_retry: Callable[[Call], bool] = lambda call: True,
        *,
        signer: Signer | None = None,
        limit: int = ANSWER_LIMIT,
    ) -> None:
        """`limit`: maximum bytes of one response, or of one event of a stream; the gRPC transport has its own limit."""
        self._may_retry = may_retry
        self._peers = A2APeers(egress, grpc, signer, limit)
        self._push_wakeups = push_wakeups
        self._sleep = sleep

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Sends the message, then polls the task until it ends. Raises UpstreamFault."""
        async with aclosing(self.run_in_batches(turn, call)) as batches:
            async for events in batches:
                for event in events:
                    yield event

    async def run_in_batches(self, turn: Turn, call: Call) -> AsyncGenerator[Sequence[Event], None]:
        """Yields the events of `run`, those of one response or of one read of a stream together."""
        reading = A2ATurnReader(turn.ref, url_of(call))
        with self._register_wakeup(turn, call) as wakeup:
            notify = wakeup.url if wakeup else ""
            try:
                if turn.stream:
                    async with aclosing(self._stream_or_send(turn, call, reading, notify)) as batches:
                        async for events in batches:
                            yield events
                else:
                    yield await self._send_and_read(turn, call, reading, notify)
            except PeerError as error:
                yield await self._events_after_refused_answer(turn, call, reading, error)
            except UpstreamFault as fault:
                fault.had_no_effect = fault.is_unsent and not reading.task_id
                raise
            if not reading.has_ended:
                async for event in self._poll_until_ended(call, reading, wakeup):
                    yield (event,)

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Continues a turn, see Reattachable: GetTask, then SubscribeToTask where the agent streams, else polling."""
        ref = turn.ref or VendorRef()
        if not ref.task_id:
            raise CannotReattach
        reading = A2ATurnReader(ref, self._peers.peer(call).url)
        reading.mark_known(known)
        for event in reading.events(await self._get_task(call, ref.task_id)):
            yield event
        if not reading.has_ended and self._peers.peer(call).can_stream:
            async for event in self._subscription_events(call, reading):
                yield event
        if not reading.has_ended:
            async for event in self._poll_until_ended(call, reading, None):
                yield event

    async def _subscription_events(self, call: Call, reader: A2ATurnReader) -> AsyncGenerator[Event, None]:
        """Yields the events of a subscription while it lasts; none where the agent has none, or the task has ended."""
        answers = self._peers.transport(call).subscribe(self._peers.peer(call), call, reader.task_id)
        try:
            async with aclosing(_read_answers(answers, reader)) as batches:
                async for events in batches:
                    for event in events:
                        yield event
        except (PeerError, UnknownState, Unreachable):
            return

    async def _poll_until_ended(self, call: Call, reader: A2ATurnReader, wakeup: PushWakeup | None) -> AsyncGenerator[Event, None]:
        """Polls the task until it ends, at once when the agent pushes."""
        if not reader.task_id:
            raise InvalidAnswer("The agent's answer was cut off", "the stream had no event")
        delay, waited = _POLL_FIRST, 0.0
        while not reader.has_ended:
            await (wakeup.wait(_POLL_PUSHING_SECONDS) if wakeup else self._sleep(delay))
            waited += delay
            delay = min(delay * _POLL_GROWTH, max(_POLL_MAX, min(waited * _POLL_SHARE, _POLL_LONG)))
            for event in reader.events(await self._get_task(call, reader.task_id)):
                yield event

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """Polls a waiting task, see Watcher, less and less often while nothing changes."""
        reading, delay, moved = A2ATurnReader(ref, self._peers.peer(call).url), _WATCH_FIRST, False
        while not reading.has_ended:
            await self._sleep(delay)
            task = await self._get_task(call, ref.task_id)
            if not moved and task.status.state in INTERRUPTED:
                delay = min(delay * _POLL_GROWTH, _WATCH_MAX)
                continue
            delay, moved = (min(delay * _POLL_GROWTH, _POLL_MAX) if moved else _POLL_FIRST), True
            for event in reading.events(task):
                yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """Cancels a task. Returns True only when the agent shows it as canceled, not when it ended otherwise."""
        return bool(ref.task_id) and await cancel_task(self._peers, call, ref.task_id, self._sleep)

    async def stop(self, ref: VendorRef, call: Call) -> bool:
        """Sends CancelTask, see Stoppable. Does not wait until a task that is being canceled has ended."""
        return bool(ref.task_id) and await request_cancellation(self._peers, call, ref.task_id)

    async def _stream_or_send(self, turn: Turn, call: Call, reader: A2ATurnReader, push_url: str) -> AsyncGenerator[Sequence[Event], None]:
        """Yields the events of a stream, or of one response without streaming. Without an ending, the task's id is then known."""
        stream = True
        while stream and (peer := self._peers.peer(call, push_url, turn.metadata)).can_stream:
            answers = self._peers.transport(call).stream(peer, call, _outgoing_message(turn), turn.accepted_output_modes)
            try:
                async with aclosing(_read_answers(answers, reader)) as batches:
                    async for events in batches:
                        yield events
                break
            except PeerError as error:
                if reader.task_id or not self._peers.should_retry_downgraded(peer, error, True):
                    raise
                stream = peer.is_v03 is not self._peers.peer(call).is_v03  # another version first, then without streaming
            except UnknownState as unknown:
                yield reader.learn_ids_of(unknown)
                break
        else:
            yield await self._send_and_read(turn, call, reader, push_url)

    async def _send_and_read(self, turn: Turn, call: Call, reader: A2ATurnReader, push_url: str) -> Sequence[Event]:
        """The events of one response. Without an ending, the task's id is then known."""
        while True:
            peer = self._peers.peer(call, push_url, turn.metadata)
            try:
                return reader.events(
                    await self._peers.transport(call).send(peer, call, _outgoing_message(turn), turn.accepted_output_modes)
                )
            except PeerError as error:
                if reader.task_id or not self._peers.should_retry_downgraded(peer, error, False):
                    raise
            except UnknownState as unknown:
                return reader.learn_ids_of(unknown)

    async def _events_after_refused_answer(self, turn: Turn, call: Call, reader: A2ATurnReader, error: PeerError) -> list[Event]:
        """The events after an agent refused an answer: AnswerRefused while the task waits, else its progress. Raises `error` otherwise."""
        task_id = turn.ref.task_id if turn.ref else ""
        if not task_id or reader.task_id or error.code not in _ANSWER_REFUSED_CODES:
            raise error
        task = await self._peers.task(call, task_id)
        if task.status.state in INTERRUPTED:
            return [AnswerRefused(ANSWER_REFUSED_TEXT, f"{error.public} {error.detail}".strip())]
        return reader.events(task)

    async def _get_task(self, call: Call, task_id: str) -> Task:
        """The current task. Retries while the agent is briefly unreachable."""
        for delay in _RETRY_DELAYS:
            try:
                return await self._peers.task(call, task_id)
            except (PeerError, InvalidAnswer):
                raise
            except UpstreamFault:
                if not self._may_retry(call):
                    raise
                await self._sleep(delay)
        return await self._peers.task(call, task_id)

    def _register_wakeup(self, turn: Turn, call: Call) -> AbstractContextManager[PushWakeup | None]:
        """A context manager for a wakeup URL, for an agent that will push; otherwise for None."""
        target = call.target
        if self._push_wakeups is None or target.upstream.get("push") is not True or target.card is None:
            return _NO_WAKEUP
        fit = target.card.push_notifications and not (turn.stream and self._peers.peer(call).can_stream)
        return self._push_wakeups.register(target.name) if fit else _NO_WAKEUP


async def _read_answers(answers: AsyncGenerator[PeerEvents, None], reader: A2ATurnReader) -> AsyncGenerator[list[Event], None]:
    """Yields the events of a stream's answers, those that arrived together in one list, until one ends the turn."""
    async with aclosing(answers):
        async for arrived in answers:
            events = list[Event]()
            try:
                for answer in arrived:
                    events += reader.events(answer)
                    if reader.has_ended:
                        break
            except UpstreamFault:
                yield events  # what the agent sent before it counts
                raise
            yield events
            if reader.has_ended:
                return


def _outgoing_message(turn: Turn) -> Message:
    """The message with its own id in the agent's conversation. The gateway's ids are not sent.

    Tasks that the message refers to have the agent's own ids already.
    """
    ref = turn.ref or VendorRef()
    return structs.replace(turn.message, context_id=ref.context_id, task_id=ref.task_id)


_: type[Adapter] = A2AAgent
_batches: type[BatchingAdapter] = A2AAgent
_watches: type[Watcher] = A2AAgent
_reattaches: type[Reattachable] = A2AAgent
_stops: type[Stoppable] = A2AAgent
