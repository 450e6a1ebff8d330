"""The adapter for A2A agents, in the binding and version that the agent's card names."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Final

from msgspec import structs

from adapters.a2a_client.cancellation import cancel_task, request_cancellation
from adapters.a2a_client.peers import A2APeers, url_of
from adapters.a2a_client.push_wakeups import PushWakeup, PushWakeups
from adapters.a2a_client.wire.reading import A2ATurnReader
from adapters.a2a_client.wire.tolerant import UnknownState
from adapters.a2a_client.wire.transport import ANSWER_LIMIT, UNSUPPORTED_OPERATION, A2APeer, PeerError, PeerEvents, Transport
from adapters.contract import (
    Adapter,
    AnswerRefused,
    BatchingAdapter,
    Call,
    CannotReattach,
    Event,
    InvalidAnswer,
    Reattachable,
    RunningTurn,
    Stoppable,
    Turn,
    Unreachable,
    UpstreamFault,
    VendorRef,
    Watcher,
)
from adapters.task import INTERRUPTED, Message, Task
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import events_of
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

    def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Sends the message, then polls the task until it ends. Raises UpstreamFault."""
        return events_of(self, turn, call)

    def begin_turn(self, turn: Turn, call: Call) -> RunningTurn:
        """Runs the turn with the events of `run`, those of one response or of one read of a stream together."""
        return _A2ATurn(self, self._peers, turn, call)

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
            async for events in self.poll_until_ended(call, reading, None):
                for event in events:
                    yield event

    async def _subscription_events(self, call: Call, reader: A2ATurnReader) -> AsyncGenerator[Event, None]:
        """Yields the events of a subscription while it lasts; none where the agent has none, or the task has ended."""
        answers = self._peers.transport(call).subscribe(self._peers.peer(call), call, reader.task_id)
        try:
            async with aclosing(answers):
                async for arrived in answers:
                    events, fault = _read_arrived(arrived, reader)
                    for event in events:
                        yield event
                    if fault is not None:
                        raise fault
                    if reader.has_ended:
                        return
        except (PeerError, UnknownState, Unreachable):
            return

    async def poll_until_ended(self, call: Call, reader: A2ATurnReader, wakeup: PushWakeup | None) -> AsyncGenerator[list[Event], None]:
        """Polls the task until it ends, at once when the agent pushes. Yields the events of each poll."""
        if not reader.task_id:
            raise InvalidAnswer("The agent's answer was cut off", "the stream had no event")
        delay, waited = _POLL_FIRST, 0.0
        while not reader.has_ended:
            await (wakeup.wait(_POLL_PUSHING_SECONDS) if wakeup else self._sleep(delay))
            waited += delay
            delay = min(delay * _POLL_GROWTH, max(_POLL_MAX, min(waited * _POLL_SHARE, _POLL_LONG)))
            yield reader.events(await self._get_task(call, reader.task_id))

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

    def register_wakeup(self, turn: Turn, call: Call) -> AbstractContextManager[PushWakeup] | None:
        """A context manager for a wakeup URL, for an agent that will push."""
        target = call.target
        if self._push_wakeups is None or target.upstream.get("push") is not True or target.card is None:
            return None
        fit = target.card.push_notifications and not (turn.stream and self._peers.peer(call).can_stream)
        return self._push_wakeups.register(target.name) if fit else None


class _A2ATurn:
    """A turn at an agent: the events of a stream, or of one response without streaming, and then of polls until the task has ended."""

    def __init__(self, agent: A2AAgent, peers: A2APeers, turn: Turn, call: Call) -> None:
        self._agent = agent
        self._peers = peers
        self._turn = turn
        self._call = call
        self._reader = A2ATurnReader(turn.ref, url_of(call))
        self._may_stream = turn.stream
        self._answers: AsyncGenerator[PeerEvents, None] | None = None  # of the stream
        self._fault: UpstreamFault | None = None  # of the stream, after events that arrived together with it
        self._is_answered = False  # whether there is nothing more to read but the task
        self._polls: AsyncGenerator[list[Event], None] | None = None
        self._wakeup_context = agent.register_wakeup(turn, call)
        self._wakeup = None if self._wakeup_context is None else self._wakeup_context.__enter__()
        self._peer = self._choose_peer()

    async def next_events(self) -> Sequence[Event] | None:
        """The events of a read. Without an ending, the task's id is known after the last read of a stream, and after one response."""
        if self._reader.has_ended:
            return None
        if self._is_answered:
            return await self._poll()
        try:
            return await (self._read_stream_or_send() if self._may_stream else self._send())
        except PeerError as error:
            self._is_answered = True
            return await self._events_after_refused_answer(error)
        except UpstreamFault as fault:
            fault.had_no_effect = fault.is_unsent and not self._reader.task_id
            raise

    async def aclose(self) -> None:
        if self._wakeup_context is not None:
            self._wakeup_context.__exit__(None, None, None)
        if self._answers is not None:
            await self._close_stream()
        if self._polls is not None:
            await self._polls.aclose()

    async def _read_stream_or_send(self) -> Sequence[Event]:
        """The events of one read of a stream, or of one response where the agent does not stream after all."""
        turn, call = self._turn, self._call
        while self._may_stream and self._peer.can_stream:
            if self._answers is None:
                self._answers = self._peers.transport(call).stream(self._peer, call, _outgoing_message(turn), turn.accepted_output_modes)
            try:
                return await self._read_stream(self._answers)
            except PeerError as error:
                refused = self._peer
                if self._reader.task_id or not self._peers.should_retry_downgraded(refused, error, True):
                    raise
                await self._close_stream()
                self._peer = self._choose_peer()
                self._may_stream = refused.is_v03 is not self._peer.is_v03  # another version first, then without streaming
            except UnknownState as unknown:
                await self._close_stream()
                self._is_answered = True
                return self._reader.learn_ids_of(unknown)
        return await self._send()

    async def _read_stream(self, answers: AsyncGenerator[PeerEvents, None]) -> Sequence[Event]:
        if self._fault is not None:
            raise self._fault
        async for arrived in answers:
            events, self._fault = _read_arrived(arrived, self._reader)
            return events
        self._is_answered = True
        return ()

    async def _close_stream(self) -> None:
        if self._answers is not None:
            await self._answers.aclose()
        self._answers = self._fault = None

    async def _send(self) -> Sequence[Event]:
        """The events of one response."""
        self._is_answered = True
        turn, call = self._turn, self._call
        while True:
            try:
                return self._reader.events(
                    await self._peers.transport(call).send(self._peer, call, _outgoing_message(turn), turn.accepted_output_modes)
                )
            except PeerError as error:
                if self._reader.task_id or not self._peers.should_retry_downgraded(self._peer, error, False):
                    raise
                self._peer = self._choose_peer()
            except UnknownState as unknown:
                return self._reader.learn_ids_of(unknown)

    async def _events_after_refused_answer(self, error: PeerError) -> Sequence[Event]:
        """The events after an agent refused an answer: AnswerRefused while the task waits, else its progress. Raises `error` otherwise."""
        task_id = self._turn.ref.task_id if self._turn.ref else ""
        if not task_id or self._reader.task_id or error.code not in _ANSWER_REFUSED_CODES:
            raise error
        task = await self._peers.task(self._call, task_id)
        if task.status.state in INTERRUPTED:
            return [AnswerRefused(ANSWER_REFUSED_TEXT, f"{error.public} {error.detail}".strip())]
        return self._reader.events(task)

    async def _poll(self) -> Sequence[Event] | None:
        if self._polls is None:
            self._polls = self._agent.poll_until_ended(self._call, self._reader, self._wakeup)
        return await anext(self._polls, None)

    def _choose_peer(self) -> A2APeer:
        return self._peers.peer(self._call, self._wakeup.url if self._wakeup else "", self._turn.metadata)


def _read_arrived(arrived: PeerEvents, reader: A2ATurnReader) -> tuple[list[Event], UpstreamFault | None]:
    """The events of answers that arrived together, up to one that ends the turn, and the fault after them: what came before it counts."""
    events = list[Event]()
    try:
        for answer in arrived:
            events += reader.events(answer)
            if reader.has_ended:
                break
    except UpstreamFault as fault:
        return events, fault
    return events, None


def _outgoing_message(turn: Turn) -> Message:
    """The message with its own id in the agent's conversation. The gateway's ids are not sent.

    Tasks that the message refers to have the agent's own ids already.
    """
    ref = turn.ref or VendorRef()
    return structs.replace(turn.message, context_id=ref.context_id, task_id=ref.task_id)


_: type[Adapter] = A2AAgent
_batching: type[BatchingAdapter] = A2AAgent
_watches: type[Watcher] = A2AAgent
_reattaches: type[Reattachable] = A2AAgent
_stops: type[Stoppable] = A2AAgent
