"""Streams of A2A as server-sent events: one frame per event, whose id is its number, and the door's own words when a stream breaks."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable

import structlog

from gateway.a2a_server.operations import Numbered
from gateway.errors import Told, told

log = structlog.get_logger()


async def frames(
    events: AsyncIterator[Numbered], write: Callable[[Numbered], bytes], refuse: Callable[[Told], bytes]
) -> AsyncGenerator[bytes, None]:
    """`write` and `refuse` make the one line of data that an event or an error is."""
    try:
        async for event in events:
            yield b"id: %d\ndata: %s\n\n" % (event.seq, write(event))
    except Exception as error:  # the door: a stream that breaks ends with an error of its binding, and the log has the rest
        log.exception("a2a_stream_failed")
        yield refuse(told(error))
