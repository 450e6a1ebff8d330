"""Reads a stream of events in batches: those that arrive within BATCH_SECONDS cost one read, one commit and one write."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from adapters.a2a_client.wire.tolerant import PeerEvent
from adapters.a2a_client.wire.transport import PeerEvents
from adapters.contract import UpstreamFault
from adapters.upstream.egress import StreamedResponse
from adapters.upstream.sse import SseReader
from policies.strict_json import LARGE, run_off_loop

BATCH_SECONDS: Final = 0.02
IMMEDIATE_READS: Final = 2  # that are passed on at once, so that a short response is not delayed


async def read_batches(
    answer: StreamedResponse, limit: int, on_activity: Callable[[], None], decode: Callable[[bytes], PeerEvent]
) -> AsyncGenerator[PeerEvents, None]:
    """Yields the events of each read until the connection ends or breaks, with pauses in which the socket buffers what arrives.

    Pauses of all streams end at the same time, so that their writes share a commit. `limit`: bytes of one event. Calls `on_activity` for
    each read, also of comments. Raises UpstreamFault only when an event exceeds the limit.
    """
    reader, now, reads = SseReader(limit), asyncio.get_running_loop().time, 0
    while chunk := await _next_chunk(answer):
        on_activity()
        events = reader.feed(chunk)
        if any(len(event.data) > LARGE for event in events):
            for event in events:
                yield (await run_off_loop(decode, event.data),)
        elif events:
            yield (decode(event.data) for event in events)
        reads += 1
        if reads > IMMEDIATE_READS:
            answer.pause_until((now() // BATCH_SECONDS + 1) * BATCH_SECONDS)


async def _next_chunk(answer: StreamedResponse) -> bytes:
    """The next bytes; empty where the stream has ended or broken."""
    try:
        return await answer.next_chunk()
    except UpstreamFault:
        return b""
