"""The least that any Python gateway costs: raw ASGI in, one pooled aiohttp session out, no question asked."""

import os

import aiohttp

from tests.bench.echo import Receive, Scope, Send, body_of

UPSTREAM = "BENCH_UPSTREAM"  # environment variable: where calls go, scheme, host and port
_HOP_BY_HOP = frozenset({b"host", b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"te", b"trailer", b"upgrade"})


class Floor:
    """An ASGI app. The session is opened by the lifespan's start and closed by its end."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._pass(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        connector = aiohttp.TCPConnector(limit=200)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
            self._session = session
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._session is not None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name not in _HOP_BY_HOP}
        url = self._upstream + scope["path"]
        async with self._session.request(scope["method"], url, data=await body_of(receive), headers=headers) as response:
            kind = response.headers.get("content-type", "application/octet-stream").encode("latin-1")
            if kind.startswith(b"text/event-stream"):
                await send({"type": "http.response.start", "status": response.status, "headers": [(b"content-type", kind)]})
                async for chunk in response.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                return
            body = await response.read()
            start = {"type": "http.response.start", "status": response.status}
            await send({**start, "headers": [(b"content-type", kind), (b"content-length", b"%d" % len(body))]})
            await send({"type": "http.response.body", "body": body})


app = Floor(os.environ.get(UPSTREAM, ""))
