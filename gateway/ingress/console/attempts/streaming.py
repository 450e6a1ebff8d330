"""Streams of a page that grows: server-sent events for the script of the page."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

import structlog

P = TypeVar("P")
log = structlog.get_logger()


async def last_of(pages: AsyncGenerator[P, None]) -> P:
    """Returns the last of at least one page."""
    async with aclosing(pages):
        last = await anext(pages)
        async for page in pages:
            last = page
    return last


async def part_events(
    pages: AsyncGenerator[P, None], render: Callable[[P], bytes], describe: Callable[[Exception], str]
) -> AsyncGenerator[bytes, None]:
    """Yields an event `part` with the HTML of each page, and an event `failed` with words for an error."""
    try:
        async with aclosing(pages):
            async for page in pages:
                yield b"event: part\ndata: %s\n\n" % json.dumps(render(page).decode()).encode()
    except Exception as error:  # the request handler: the stream has begun
        log.exception("console_stream_failed")
        yield b"event: failed\ndata: %s\n\n" % json.dumps(describe(error)).encode()
