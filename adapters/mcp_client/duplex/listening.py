"""Listens for changes over a duplex channel."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, Raw

from adapters.contract import Failure, Unreachable
from adapters.mcp_client.duplex.channel import DuplexChannel
from adapters.mcp_client.exchange.http import LATE_TEXT, Exchange, client_answer
from adapters.mcp_client.legacy.requests import SUBSCRIBE
from adapters.mcp_client.listening import (
    ACKNOWLEDGED_METHOD,
    LISTEN_METHOD,
    LISTEN_TO_ALL,
    announces_changes,
    forward_if_granted,
    notification_filter,
    read_acknowledged,
)
from adapters.mcp_client.wire.eras import modern_params
from adapters.mcp_client.wire.messages import McpRequest, check_answer, envelope_of, members_of, notification_of
from adapters.mcp_client.wire.peer import ListenFilter, McpListener

_LISTEN_REQUEST: Final = McpRequest("", "", b"", b"{}", is_modern=True, method=LISTEN_METHOD)
SessionUris = Callable[[], frozenset[str]]


async def listen(
    channel: DuplexChannel, wanted: ListenFilter, listener: McpListener, session_uris: SessionUris | None, seconds: float
) -> None:
    """Listens until the server ends it, or the channel does, which raises UpstreamFault.

    `session_uris` returns the client session's subscriptions; None: the channel is the session's own, and everything is for it.
    """
    if channel.is_modern:
        await _listen_modern(channel, wanted, listener, seconds)
        return
    taken = [uri for uri in wanted.uris if _has_result(await channel.request(SUBSCRIBE, {"uri": uri}, seconds))]
    granted = ListenFilter(
        tools=wanted.tools and announces_changes(channel.server_capabilities.get("tools")),
        prompts=wanted.prompts and announces_changes(channel.server_capabilities.get("prompts")),
        resources=wanted.resources and announces_changes(channel.server_capabilities.get("resources")),
        uris=frozenset(taken),
    )
    place = (listener, lambda: LISTEN_TO_ALL if session_uris is None else dataclasses.replace(granted, uris=granted.uris | session_uris()))
    with channel.open_request() as (_, mailbox):
        channel.listeners.append(place)
        try:
            await listener.on_acknowledged(granted)
            await mailbox.take()  # receives only the channel's end
        finally:
            channel.listeners.remove(place)


async def _listen_modern(channel: DuplexChannel, wanted: ListenFilter, listener: McpListener, seconds: float) -> None:
    granted: ListenFilter | None = None
    with channel.open_request() as (number, mailbox):
        try:
            async with asyncio.timeout(max(seconds, 0.001)) as opening:
                await channel.send(envelope_of(number, LISTEN_METHOD, modern_params({"notifications": notification_filter(wanted)})))
                while True:
                    message = await mailbox.take()
                    if message.method is UNSET:
                        client_answer(_LISTEN_REQUEST, Exchange(200, {}, check_answer(message, number)), True)
                        return
                    params = members_of(message.params if message.params is not UNSET else Raw(b"{}"))
                    if granted is not None:
                        await forward_if_granted(listener, granted, str(message.method), params)
                    elif message.method == ACKNOWLEDGED_METHOD:
                        granted = read_acknowledged(params, wanted)
                        opening.reschedule(None)
                        await listener.on_acknowledged(granted)
        except TimeoutError as error:
            raise Unreachable(LATE_TEXT, "no acknowledgement", Failure.LATE) from error
        finally:
            channel.send_in_background(notification_of("notifications/cancelled", {"requestId": number}))


def _has_result(exchange: Exchange) -> bool:
    return exchange.answer is not None and exchange.answer.result is not UNSET
