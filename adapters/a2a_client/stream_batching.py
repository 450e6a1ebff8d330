"""Batches the chunks of a stream: those that arrive within BATCH_SECONDS cost one commit and one write."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Final

BATCH_SECONDS: Final = 0.02  # seconds
IMMEDIATE_CHUNKS: Final = 2  # chunks that are passed on at once, so that a short response is not delayed


async def batch_chunks(
    chunks: AsyncIterable[bytes], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncGenerator[bytes, None]:
    """Yields chunks, with pauses in which `chunks` buffers what arrives.

    Pauses of all streams end at the same time, so that their writes share a commit.
    """
    now = asyncio.get_running_loop().time
    count = 0
    async for chunk in chunks:
        yield chunk
        count += 1
        if count > IMMEDIATE_CHUNKS:
            await sleep(BATCH_SECONDS - now() % BATCH_SECONDS)
