"""A stream fails before its answer begins if its first item fails, and is whole otherwise."""

from collections.abc import AsyncIterator

import pytest

from gateway.concurrency.first_item import read_first


async def _items(*items: int | Exception) -> AsyncIterator[int]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def test_the_first_item_fails_before_the_stream_is_returned() -> None:
    with pytest.raises(ValueError, match="bad cursor"):
        await read_first(_items(ValueError("bad cursor")))


async def test_a_stream_is_whole_after_its_first_item_was_read() -> None:
    assert [item async for item in await read_first(_items(1, 2, 3))] == [1, 2, 3]
    assert [item async for item in await read_first(_items())] == []
