"""Streams that are read without haste: what comes within a moment is handed on together, and costs one commit and one write."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Final

BATCH_SECONDS: Final = 0.02  # seconds
IMMEDIATE_CHUNKS: Final = 2  # chunks that are handed on as they come, so that a short answer waits for nothing


async def batch_chunks(
    chunks: AsyncIterable[bytes], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncGenerator[bytes, None]:
    """The chunks, as large as they have become meanwhile: `chunks` gathers what nobody has asked for yet.

    Moments end for all streams at once, so that theirs is one commit too.
    """
    now = asyncio.get_running_loop().time
    count = 0
    async for chunk in chunks:
        yield chunk
        count += 1
        if count > IMMEDIATE_CHUNKS:
            await sleep(BATCH_SECONDS - now() % BATCH_SECONDS)
