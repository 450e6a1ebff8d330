"""Long lists of MCP come in pages, and making one leaves the event loop free."""

import asyncio
from collections.abc import Iterator

import pytest
from msgspec import Raw

from gateway.calls.limits.slices import SLICE
from gateway.ingress.mcp_server.catalogue.cached_lists import CachedLists
from gateway.ingress.mcp_server.methods import PAGE
from tests.fakes.house import House
from tests.fakes.slices import StepCounter

KEY = ("tools", "", "alice")
ENTRIES = 3 * SLICE


async def test_a_long_list_comes_in_pages(home: House) -> None:
    names = [f"tool{number}" for number in range(PAGE + 1)]
    await home.server("inventory", *names)
    token = home.token("mel")
    first = (await home.rpc("/mcp/inventory", token, "tools/list", {})).json()["result"]
    second = (await home.rpc("/mcp/inventory", token, "tools/list", {"cursor": first["nextCursor"]})).json()["result"]
    assert [tool["name"] for tool in (*first["tools"], *second["tools"])] == names
    assert len(first["tools"]) == PAGE and "nextCursor" not in second


@pytest.mark.parametrize("cursor", ["MTA=", "after-", "after-0", "after-1", f"after-{PAGE}", f"after-{2 * PAGE}", "after-١٠٠٠", 5])
async def test_a_cursor_of_no_page_is_refused(home: House, cursor: object) -> None:
    await home.server("inventory", "check")
    refused = await home.rpc("/mcp/inventory", home.token("mel"), "tools/list", {"cursor": cursor})
    assert refused.json()["error"]["code"] == -32602


@pytest.mark.parametrize("permitted", [True, False])
async def test_a_list_is_made_in_slices(permitted: bool) -> None:
    counter, lists = StepCounter(), CachedLists(lambda: (1, 1, 1))

    def entries() -> Iterator[Raw | None]:
        for _ in range(ENTRIES):
            counter.count()
            yield Raw(b"{}") if permitted else None

    async with counter.watch():
        made = await lists.find_or_make(KEY, entries)
    assert counter.total == ENTRIES and 0 < counter.most_in_one_iteration <= SLICE
    assert len(made) == (ENTRIES if permitted else 0)


async def test_listeners_of_one_view_share_one_list_and_its_digest() -> None:
    counter, lists = StepCounter(), CachedLists(lambda: (1, 1, 1))

    def entries() -> Iterator[Raw]:
        for number in range(ENTRIES):
            counter.count()
            yield Raw(b'{"number":%d}' % number)

    async with counter.watch():
        digests = await asyncio.gather(*(lists.digest(KEY, entries) for _ in range(10)))
    assert len(set(digests)) == 1 and len(digests[0]) == 64
    assert counter.total == ENTRIES and 0 < counter.most_in_one_iteration <= SLICE


async def test_a_digest_is_computed_in_slices() -> None:
    counter, lists = StepCounter(), CachedLists(lambda: (1, 1, 1))

    class CountedList(list[Raw]):
        def __iter__(self) -> Iterator[Raw]:
            for entry in super().__iter__():
                counter.count()
                yield entry

    await lists.find_or_make(KEY, list)
    lists._lists[KEY].definitions = CountedList([Raw(b"{}")] * ENTRIES)
    async with counter.watch():
        await lists.digest(KEY, list)
    assert counter.total == ENTRIES and 0 < counter.most_in_one_iteration <= SLICE


async def test_a_digest_changes_with_the_list() -> None:
    current = (1, 1)
    lists = CachedLists(lambda: current)
    first = await lists.digest(KEY, lambda: [Raw(b"1")])
    current = (1, 1, 2)
    assert await lists.digest(KEY, lambda: [Raw(b"1")]) == first
    current = (1, 3)
    assert await lists.digest(KEY, lambda: [Raw(b"2")]) != first


async def test_a_current_list_is_not_made_again() -> None:
    current = (1, 1)
    lists = CachedLists(lambda: current)
    await lists.find_or_make(KEY, lambda: [Raw(b"1")])
    assert await lists.find_or_make(KEY, lambda: [Raw(b"2")]) == [Raw(b"1")]
    current = (1, 1, 2)
    assert await lists.find_or_make(KEY, lambda: [Raw(b"2")]) == [Raw(b"2")]


async def test_a_list_that_changed_while_it_was_made_is_made_again() -> None:
    current = (1, 1)
    lists = CachedLists(lambda: current)

    def entries() -> Iterator[Raw]:
        nonlocal current
        yield Raw(b"1")
        current = (1, 1, 2)

    assert await lists.find_or_make(KEY, entries) == [Raw(b"1")]
    assert await lists.find_or_make(KEY, lambda: [Raw(b"2")]) == [Raw(b"2")]


async def test_a_request_makes_the_list_that_a_canceled_one_began() -> None:
    lists = CachedLists(lambda: (1, 1, 1))
    began = asyncio.create_task(lists.find_or_make(KEY, lambda: [Raw(b"1")] * ENTRIES))
    waiting = asyncio.create_task(lists.find_or_make(KEY, lambda: [Raw(b"2")]))
    await asyncio.sleep(0)
    began.cancel()
    assert await waiting == [Raw(b"2")]
