"""Streams read without haste: the first chunks come at once, later ones when a moment ends, and none is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from adapters.a2a_client.stream_batching import BATCH_SECONDS, IMMEDIATE_CHUNKS, batch_chunks


async def test_the_first_chunks_come_at_once_and_each_later_one_when_a_moment_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 100 * BATCH_SECONDS + BATCH_SECONDS / 4)

    async def arriving() -> AsyncIterator[bytes]:
        for number in range(IMMEDIATE_CHUNKS + 3):
            yield b"%d" % number

    async def pause(seconds: float) -> None:
        told.append(f"pause {seconds / BATCH_SECONDS:.2f}")

    async for chunk in batch_chunks(arriving(), pause):
        told.append(chunk.decode())
    begun = [str(number) for number in range(IMMEDIATE_CHUNKS + 1)]
    rest = [["pause 0.75", str(number)] for number in range(IMMEDIATE_CHUNKS + 1, IMMEDIATE_CHUNKS + 3)]
    assert told == [*begun, *rest[0], *rest[1], "pause 0.75"]
