"""The inventory's two tools, seen by the official client."""

from mcp import Client

from examples.inventory_server import build
from tests.examples.conftest import Serve


async def test_stock_goes_down_with_each_reservation(serve: Serve) -> None:
    async with Client(await serve(build()) + "/mcp", mode="2026-07-28") as client:
        before = await client.call_tool("check_stock", {"sku": "SKU-7"})
        reserved = await client.call_tool("reserve_stock", {"sku": "SKU-7", "quantity": 2})
        after = await client.call_tool("check_stock", {"sku": "SKU-7"})
    assert before.structured_content == {"sku": "SKU-7", "name": "standing desk", "available": 12, "price_cents": 34900}
    assert reserved.structured_content == {"reservation": "R-1001", "sku": "SKU-7", "quantity": 2, "total_cents": 69800}
    assert after.structured_content is not None
    assert after.structured_content["available"] == 10


async def test_an_older_client_finds_the_same_tools(serve: Serve) -> None:
    async with Client(await serve(build()) + "/mcp", mode="legacy") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["check_stock", "reserve_stock"]


async def test_what_is_not_there_can_not_be_reserved(serve: Serve) -> None:
    async with Client(await serve(build()) + "/mcp", mode="2026-07-28") as client:
        too_many = await client.call_tool("reserve_stock", {"sku": "SKU-9", "quantity": 2})
        unknown = await client.call_tool("check_stock", {"sku": "SKU-0"})
    assert too_many.is_error
    assert unknown.is_error
