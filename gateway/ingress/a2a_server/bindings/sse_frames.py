"""Frames A2A streams as server-sent events. The id of a frame is the event's number."""

from collections.abc import AsyncIterator, Callable

import structlog

from adapters.upstream.sse import one_line
from gateway.ingress.a2a_server.operations import OperationStream, SequencedEvent
from gateway.ingress.http.errors import ErrorReport, describe
from gateway.tasks.log import TaskLeft

log = structlog.get_logger()


class SseFrames:
    """The frames of a stream, those of each batch of events together. A quiet stream holds it, and a generator would take more memory."""

    def __init__(
        self, batches: OperationStream, encode_event: Callable[[SequencedEvent], bytes], encode_error: Callable[[ErrorReport], bytes]
    ) -> None:
        """`encode_event` returns the data of one event. `encode_error` returns the last frame of a stream that fails."""
        self._stream = batches
        self._batches = aiter(batches)
        self._encode_event = encode_event
        self._encode_error = encode_error
        self._has_failed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._has_failed:
            raise StopAsyncIteration
        try:
            events, encode = await anext(self._batches), self._encode_event
            return b"".join([b"id: %d\ndata: %s\n\n" % (event.seq, one_line(encode(event))) for event in events])
        except StopAsyncIteration:
            raise
        except TaskLeft:  # the client goes on with the stream in another process
            raise StopAsyncIteration from None
        except Exception as error:  # request handler: a failed stream ends with an error of its binding
            self._has_failed = True
            log.exception("a2a_stream_failed")
            return self._encode_error(describe(error))

    async def aclose(self) -> None:
        await self._stream.aclose()
