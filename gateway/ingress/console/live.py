"""Streams that tell a page that it has changed, so that it renews itself."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.calls.limits.open_streams import OpenStreams
from gateway.ingress.console.api import ApiRefusal
from gateway.ingress.console.page import Page
from gateway.ingress.http.asgi import Receive, Send
from gateway.ingress.http.event_streams import stream_events

LOOK_SECONDS = 3.0  # between two looks for changes
STREAM_SECONDS = 120.0  # a stream lasts that long; the page then opens another one
CHANGED = b"event: changed\ndata: {}\n\n"
Look = Callable[[], Awaitable[Page | None]]  # the page as it is now; None when nobody may look any more


@dataclass(frozen=True, slots=True)
class LiveStreams:
    """The places that streams share with all streams of a person, and how often they look."""

    places: OpenStreams
    look_seconds: float = LOOK_SECONDS


async def stream_changes(streams: LiveStreams, owner: str, look: Look, *, receive: Receive, send: Send) -> None:
    """Sends an event whenever the page is another one than before. Ends when `look` returns None.

    Raises TooManyStreams, ShuttingDown, ApiRefusal.
    """
    first = await look()
    if first is None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    place = streams.places.acquire_endless(owner)
    await stream_events(receive, send, place.hold_during(_changes(streams.look_seconds, look, _digest(first))))


async def _changes(look_seconds: float, look: Look, seen: bytes) -> AsyncGenerator[bytes]:
    ends_at = time.monotonic() + STREAM_SECONDS
    yield b"retry: 2000\n\n"
    while time.monotonic() < ends_at:
        await asyncio.sleep(look_seconds)
        try:
            page = await look()
        except ApiRefusal:
            page = None
        if page is None:
            yield CHANGED
            return
        found = _digest(page)
        if found != seen:
            seen = found
            yield CHANGED


def _digest(page: Page) -> bytes:
    return hashlib.sha256(msgspec.json.encode(page.members, enc_hook=_text_of)).digest()


def _text_of(value: Any) -> Any:
    return repr(value)
