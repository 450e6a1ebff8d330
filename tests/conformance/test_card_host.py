"""The card for the 0.3 kit over gRPC differs in one thing only."""

import asyncio
import json

import aiohttp

from tests.conformance.card_host import CARD, card_host, with_scheme
from tests.fakes.upstream import Upstream, answer

OFFERED = {
    "name": "sales",
    "url": "http://a",
    "additionalInterfaces": [{"url": "a:1", "transport": "GRPC"}, {"url": "http://a", "transport": "JSONRPC"}],
}


def test_grpc_addresses_get_a_scheme_and_nothing_else_changes() -> None:
    made = with_scheme(OFFERED)
    assert made == {**OFFERED, "additionalInterfaces": [{"url": "grpc://a:1", "transport": "GRPC"}, OFFERED["additionalInterfaces"][1]]}


def test_a_card_without_grpc_stays() -> None:
    assert with_scheme({"name": "sales"}) == {"name": "sales"}


async def test_the_card_is_read_from_the_gateway_and_served_at_the_root() -> None:
    async def serve(head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(json.dumps(OFFERED).encode(), "200 OK", "Connection: close"))

    async with (
        Upstream(serve) as upstream,
        card_host(upstream.url) as url,
        aiohttp.ClientSession() as client,
        client.get(f"{url}{CARD}") as reply,
    ):
        assert await reply.json() == with_scheme(OFFERED)
    assert upstream.requests[0].startswith(f"GET {CARD} ".encode())
