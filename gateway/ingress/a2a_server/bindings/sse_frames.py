"""Streams of A2A as server-sent events: a frame for each event, whose id is its number, and the door's own words when a stream breaks."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import structlog

from adapters.upstream.sse import one_line
from gateway.ingress.a2a_server.operations import SequencedEvent, Stream
from gateway.ingress.http.errors import ErrorReport, describe

log = structlog.get_logger()


async def sse_frames(
    batches: Stream, encode_event: Callable[[SequencedEvent], bytes], encode_error: Callable[[ErrorReport], bytes]
) -> AsyncGenerator[bytes, None]:
    """The frames of all events that there are at a time, to be sent at once. `write` and `refuse` make the line of data of one."""
    try:
        async with aclosing(batches):
            async for events in batches:
                yield b"".join([b"id: %d\ndata: %s\n\n" % (event.seq, one_line(encode_event(event))) for event in events])
                del events
    except Exception as error:  # the door: a stream that breaks ends with an error of its binding, and the log has the rest
        log.exception("a2a_stream_failed")
        yield encode_error(describe(error))
