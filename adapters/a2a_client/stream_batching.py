"""Reads a stream of events in batches: those that arrive within BATCH_SECONDS cost one read, one commit and one write."""

import asyncio
from collections.abc import Callable
from typing import Final

from adapters.a2a_client.wire.tolerant import PeerEvent
from adapters.a2a_client.wire.transport import PeerEvents
from adapters.contract import UpstreamFault
from adapters.upstream.egress import StreamedResponse
from adapters.upstream.sse import ServerSentEvent, SseReader
from policies.strict_json import LARGE, run_off_loop

BATCH_SECONDS: Final = 0.02
IMMEDIATE_READS: Final = 2  # that are passed on at once, so that a short response is not delayed


class StreamBatches:
    """The events of a stream until the connection ends or breaks, with pauses in which the socket buffers what arrives.

    Pauses of all streams end at the same time, so that their writes share a commit.
    """

    __slots__ = ("_answer", "_decode", "_on_activity", "_reader", "_reads", "_separate_events")

    def __init__(self, answer: StreamedResponse, limit: int, on_activity: Callable[[], None], decode: Callable[[bytes], PeerEvent]) -> None:
        """`limit`: bytes of one event. Calls `on_activity` for each read, also of comments."""
        self._answer = answer
        self._on_activity = on_activity
        self._decode = decode
        self._reader = SseReader(limit)
        self._reads = 0
        self._separate_events: list[ServerSentEvent] = []  # the rest of a read that had a large event

    async def next_batch(self) -> PeerEvents | None:
        """The events of one read, as soon as there are any; None after the last. Raises UpstreamFault only for an event over the limit."""
        while not self._separate_events:
            if self._reads > IMMEDIATE_READS:
                self._answer.pause_until((asyncio.get_running_loop().time() // BATCH_SECONDS + 1) * BATCH_SECONDS)
            chunk = await self._next_chunk()
            if not chunk:
                return None
            self._on_activity()
            self._reads += 1
            events = self._reader.feed(chunk)
            if any(len(event.data) > LARGE for event in events):
                self._separate_events = events
            elif events:
                return (self._decode(event.data) for event in events)
        return (await run_off_loop(self._decode, self._separate_events.pop(0).data),)

    async def _next_chunk(self) -> bytes:
        """The next bytes; empty where the stream has ended or broken."""
        try:
            return await self._answer.next_chunk()
        except UpstreamFault:
            return b""
