"""Frames A2A streams as server-sent events. The id of a frame is the event's number."""

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
    """Yields the frames of each batch of events together.

    `encode_event` returns the data of one event. `encode_error` returns the last frame of a stream that fails.
    """
    try:
        async with aclosing(batches):
            async for events in batches:
                yield b"".join([b"id: %d\ndata: %s\n\n" % (event.seq, one_line(encode_event(event))) for event in events])
                del events
    except Exception as error:  # request handler: a failed stream ends with an error of its binding
        log.exception("a2a_stream_failed")
        yield encode_error(describe(error))
