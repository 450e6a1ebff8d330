"""Streams read without haste: the first chunks come at once, later ones after a moment, and none is lost."""

from collections.abc import AsyncIterator

from adapters.unhurried import EAGER, MOMENT, unhurried


async def test_the_first_chunks_come_at_once_and_then_each_after_a_moment() -> None:
    told: list[str] = []

    async def arriving() -> AsyncIterator[bytes]:
        for number in range(EAGER + 3):
            yield b"%d" % number

    async def pause(seconds: float) -> None:
        told.append(f"pause {seconds}")

    async for chunk in unhurried(arriving(), pause):
        told.append(chunk.decode())
    begun = [str(number) for number in range(EAGER + 1)]
    rest = [[f"pause {MOMENT}", str(number)] for number in range(EAGER + 1, EAGER + 3)]
    assert told == [*begun, *rest[0], *rest[1], f"pause {MOMENT}"]
