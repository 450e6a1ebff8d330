"""JSON-RPC batches of revision 2025-03-26: several messages in one body, whose answers are sent together."""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.ingress.http.asgi import Header
from gateway.ingress.http.error_bodies import trace_headers
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.mcp_server.era_dispatch import EraDispatcher
from gateway.ingress.mcp_server.protocol.disconnect import ClientDisconnected
from gateway.ingress.mcp_server.protocol.errors import json_rpc_error_of
from gateway.ingress.mcp_server.protocol.message import ClientMessage, ResponseReceived, parse_envelope
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.response import HttpResponseWriter, frame_event
from gateway.storage.mailbox import MailboxFull

BATCH_VERSION = "2025-03-26"
BATCH_MAX = 50  # messages
encode = msgspec.json.Encoder().encode


class BatchItemResponse(HttpResponseWriter):
    """The response of one message of a batch. Its notifications go to the stream of the batch, its answer waits for the others."""

    def __init__(self, batch_response: HttpResponseWriter) -> None:
        self._batch_response = batch_response
        self.answer_body = b""

    @property
    def is_streaming(self) -> bool:
        return True  # so that an error becomes a JSON-RPC answer, not an HTTP status

    def send_event(self, event_bytes: bytes) -> bool:
        return self._batch_response.send_event(event_bytes)

    async def finish(self, body: bytes, status: int = 200, headers: Iterable[Header] = (), event_id: str = "") -> None:
        self.answer_body = body

    async def end(self) -> None:
        """Ends a message that has no answer."""


async def answer_batch(dispatcher: EraDispatcher, message: ClientMessage, items: list[Any], response: HttpResponseWriter) -> None:
    """Handles all messages concurrently, and sends their answers together.

    Raises InvalidRequest where the session's revision has no batches.
    """
    if message.session is None or message.session.version != BATCH_VERSION:
        raise InvalidRequest("one JSON-RPC 2.0 request object is expected")
    if not 0 < len(items) <= BATCH_MAX:
        raise InvalidRequest(f"a batch has 1 to {BATCH_MAX} messages")
    answers = [
        each
        for each in await asyncio.gather(*(_answer_one(dispatcher, message, item, BatchItemResponse(response)) for item in items))
        if each
    ]
    if not answers:
        await response.finish(b"", 202)
    elif response.is_streaming:
        for each in answers:
            response.send_event(frame_event(each))
        await response.end()
    else:
        await response.finish(b"[%s]" % b",".join(answers), headers=trace_headers())


async def _answer_one(dispatcher: EraDispatcher, message: ClientMessage, item: Any, response: BatchItemResponse) -> bytes:
    """Returns the answer to one message; empty for a notification or a response."""
    request_id = None
    try:
        request_id, method, params = parse_envelope(item)
        if method == "initialize":
            raise InvalidRequest("initialize must not be in a batch")
        item_message = msgspec.structs.replace(message, id=request_id, method=method, params=params, raw=encode(item))
        if request_id is None:
            await dispatcher.handle_notification(item_message)
        else:
            await dispatcher.handle_legacy(item_message, response)
    except ResponseReceived as answer:
        await dispatcher.accept_response(msgspec.structs.replace(message, params=answer.document, raw=encode(item)))
    except ClientDisconnected:
        return b""
    except (InvalidRequest, BadEnvelope, MailboxFull) as error:
        refusal = json_rpc_error_of(error, legacy=True)
        return encode({"jsonrpc": "2.0", "id": request_id, "error": refusal.error})
    return response.answer_body
