"""Long lists of MCP come in pages, and making one leaves the event loop free."""

import asyncio
from collections.abc import Iterator

import pytest
from msgspec import Raw

from gateway.ingress.mcp_server.catalogue.cached_lists import SLICE, CachedLists
from gateway.ingress.mcp_server.methods import PAGE
from tests.fakes.house import House

KEY = ("tools", "", "alice")


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
    seen: list[int] = []
    made = 0

    def entries() -> Iterator[Raw | None]:
        nonlocal made
        for _ in range(3 * SLICE):
            made += 1
            yield Raw(b"{}") if permitted else None

    async def watch() -> None:
        while made < 3 * SLICE:
            seen.append(made)
            await asyncio.sleep(0)

    lists = CachedLists()
    await asyncio.gather(lists.make_in_slices(KEY, (1, 1), entries()), watch())
    assert seen == [SLICE, 2 * SLICE]
    assert len(lists.find_or_make(KEY, (1, 1), list)) == (3 * SLICE if permitted else 0)


async def test_a_current_list_is_not_made_again() -> None:
    lists = CachedLists()
    await lists.make_in_slices(KEY, (1, 1), [Raw(b"1")])
    await lists.make_in_slices(KEY, (1, 1), [Raw(b"2")])
    assert lists.find_or_make(KEY, (1, 1), list) == [Raw(b"1")]
    await lists.make_in_slices(KEY, (1, 2), [Raw(b"2")])
    assert lists.find_or_make(KEY, (1, 2), list) == [Raw(b"2")]
