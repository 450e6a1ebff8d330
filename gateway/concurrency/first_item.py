"""Reads the first item of a stream early, so that what fails at once fails before an answer begins."""

from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def read_first(stream: AsyncIterator[T]) -> AsyncIterator[T]:
    """Awaits the first item, and returns the whole stream. Raises what the first item raises.

    An answer that is sent while it is read has its status before its body. An error of a later item can only cut it.
    """
    try:
        first = await anext(stream)
    except StopAsyncIteration:
        return stream
    return _chain(first, stream)


async def _chain(first: T, rest: AsyncIterator[T]) -> AsyncIterator[T]:
    yield first
    async for item in rest:
        yield item
