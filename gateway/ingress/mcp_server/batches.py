"""Batches, as revision 2025-03-26 has them: several messages in one body, whose answers go back together."""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.ingress.http.asgi import Header
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.mcp_server.era_dispatch import Conversations
from gateway.ingress.mcp_server.protocol.disconnect import ClientLeft
from gateway.ingress.mcp_server.protocol.errors import refusal_of
from gateway.ingress.mcp_server.protocol.message import Answered, Asked, envelope
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.response import Outlet, event
from gateway.storage.mailbox import TooMuchKept

VERSION = "2025-03-26"
BATCH_MAX = 50  # messages
encode = msgspec.json.Encoder().encode


class Part(Outlet):
    """Where one message of several is answered: what is said before goes to all of them's stream, the answer waits for the others."""

    def __init__(self, whole: Outlet) -> None:
        self._whole = whole
        self.answer = b""

    @property
    def streaming(self) -> bool:
        return True  # so that what fails is answered here, and not by HTTP

    def say(self, framed: bytes) -> bool:
        return self._whole.say(framed)

    async def finish(self, body: bytes, status: int = 200, headers: Iterable[Header] = (), event_id: str = "") -> None:
        self.answer = body

    async def end(self) -> None:
        """There was no answer."""


async def answer_batch(conversations: Conversations, asked: Asked, items: list[Any], outlet: Outlet) -> None:
    """All messages at once. Raises InvalidRequest where the session's revision has no batches."""
    if asked.session is None or asked.session.version != VERSION:
        raise InvalidRequest("one JSON-RPC 2.0 request object is expected")
    if not 0 < len(items) <= BATCH_MAX:
        raise InvalidRequest(f"a batch has 1 to {BATCH_MAX} messages")
    answers = [each for each in await asyncio.gather(*(_one(conversations, asked, item, Part(outlet)) for item in items)) if each]
    if not answers:
        await outlet.finish(b"", 202)
    elif outlet.streaming:
        for each in answers:
            outlet.say(event(each))
        await outlet.end()
    else:
        await outlet.finish(b"[%s]" % b",".join(answers))


async def _one(conversations: Conversations, asked: Asked, item: Any, part: Part) -> bytes:
    """The answer to one message; empty where it wants none."""
    request_id = None
    try:
        request_id, method, params = envelope(item)
        if method == "initialize":
            raise InvalidRequest("initialize is no part of a batch")
        mine = msgspec.structs.replace(asked, id=request_id, method=method, params=params, raw=encode(item))
        if request_id is None:
            await conversations.notified(mine)
        else:
            await conversations.older(mine, part)
    except Answered as answer:
        await conversations.take(msgspec.structs.replace(asked, params=answer.document, raw=encode(item)))
    except ClientLeft:
        return b""
    except (InvalidRequest, BadEnvelope, TooMuchKept) as error:
        refusal = refusal_of(error, legacy=True)
        return encode({"jsonrpc": "2.0", "id": request_id, "error": refusal.error})
    return part.answer
