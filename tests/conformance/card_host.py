"""A host for one card, for the 0.3 kit over gRPC, which can't read an address without a scheme."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.conformance.shim import HOST
from tests.fakes.ports import free_port

CARD = "/.well-known/agent-card.json"


@asynccontextmanager
async def card_host(origin: str) -> AsyncIterator[str]:
    """The URL of a host that answers everything with the card of `origin`, in which gRPC addresses have the scheme `grpc://`.

    Its signature no longer holds; the kit does not look at it.
    """
    body = json.dumps(with_scheme(await asyncio.to_thread(_read, f"{origin}{CARD}"))).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def answer(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        await client.readuntil(b"\r\n\r\n")
        back.write(head + body)
        await back.drain()
        back.close()

    port = free_port()
    async with await asyncio.start_server(answer, HOST, port):
        yield f"http://{HOST}:{port}"


def with_scheme(card: dict[str, Any]) -> dict[str, Any]:
    """A 0.3 card whose additional gRPC interfaces have a scheme. All else is as it was."""
    offered = [
        {**one, "url": f"grpc://{one['url']}"} if one.get("transport") == "GRPC" and "://" not in one["url"] else one
        for one in card.get("additionalInterfaces", [])
    ]
    return {**card, "additionalInterfaces": offered} if offered else card


def _read(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        card: dict[str, Any] = json.load(answer)
    return card
