"""An MCP server with two tools over a small stock in memory: one reads, one changes."""

import argparse
from itertools import count
from typing import TypedDict

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from starlette.applications import Starlette

from examples.serving import HOST, serve


class Stock(TypedDict):
    sku: str
    name: str
    available: int
    price_cents: int


class Reservation(TypedDict):
    reservation: str
    sku: str
    quantity: int
    total_cents: int


def build() -> Starlette:
    """The server as an ASGI application at `/mcp`, with its own fresh stock."""
    stock = {
        "SKU-7": Stock(sku="SKU-7", name="standing desk", available=12, price_cents=34900),
        "SKU-9": Stock(sku="SKU-9", name="desk lamp", available=1, price_cents=2450),
    }
    numbers = count(1001)
    server = MCPServer("inventory", instructions="Stock of a small furniture shop.", log_level="WARNING")

    def item(sku: str) -> Stock:
        if sku not in stock:
            raise ToolError(f"there is no {sku}")
        return stock[sku]

    @server.tool()
    def check_stock(sku: str) -> Stock:
        """How many of an article are available, and at what price."""
        return item(sku)

    @server.tool()
    def reserve_stock(sku: str, quantity: int) -> Reservation:
        """Takes articles out of the stock for a customer."""
        wanted = item(sku)
        if not 0 < quantity <= wanted["available"]:
            raise ToolError(f"{quantity} of {sku} can't be reserved, {wanted['available']} are available")
        wanted["available"] -= quantity
        return Reservation(reservation=f"R-{next(numbers)}", sku=sku, quantity=quantity, total_cents=quantity * wanted["price_cents"])

    return server.streamable_http_app(json_response=True, host=HOST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    serve(build(), parser.parse_args().port)
