"""Streams of a page that grows: server-sent events for the script of the page."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

import structlog

from gateway.ingress.http.asgi import Receive, wait_for_disconnect

P = TypeVar("P")
log = structlog.get_logger()


async def last_until_left(pages: AsyncGenerator[P, None], receive: Receive) -> P | None:
    """Returns the last of at least one page; None where the client disconnects before, which closes `pages`."""
    reading, leaving = asyncio.create_task(_last_of(pages)), asyncio.create_task(wait_for_disconnect(receive))
    try:
        await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        leaving.cancel()
        if reading.cancel():
            await asyncio.wait((reading,))


async def _last_of(pages: AsyncGenerator[P, None]) -> P:
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
