"""Listening over a channel on which everything arrives."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, Raw

from adapters.contract import Failure, Unreachable
from adapters.mcp_client.duplex.channel import Duplex
from adapters.mcp_client.exchange.http import LATE, Exchange
from adapters.mcp_client.exchange.rounds import answered
from adapters.mcp_client.legacy.requests import SUBSCRIBE
from adapters.mcp_client.listening import ACKNOWLEDGED, ALL, METHOD, acknowledged, filter_of, tell, tells
from adapters.mcp_client.wire.eras import modern_params
from adapters.mcp_client.wire.messages import McpRequest, check_answer, envelope_of, members_of, told_of
from adapters.mcp_client.wire.peer import Listener, Listening

_ASKED: Final = McpRequest("", "", b"", b"{}", modern=True, method=METHOD)
More = Callable[[], frozenset[str]]


async def listen(duplex: Duplex, wanted: Listening, listener: Listener, more: More | None, seconds: float) -> None:
    """Until the server or the channel ends, the latter with UpstreamFault.

    `more` gives what a client's session subscribed to besides; without it the channel is that session's own, and all is for it.
    """
    if duplex.modern:
        await _modern(duplex, wanted, listener, seconds)
        return
    taken = [uri for uri in wanted.uris if _has_result(await duplex.request(SUBSCRIBE, {"uri": uri}, seconds))]
    granted = Listening(
        tools=wanted.tools and tells(duplex.offered.get("tools")),
        prompts=wanted.prompts and tells(duplex.offered.get("prompts")),
        resources=wanted.resources and tells(duplex.offered.get("resources")),
        uris=frozenset(taken),
    )
    place = (listener, lambda: ALL if more is None else dataclasses.replace(granted, uris=granted.uris | more()))
    with duplex.place() as (_, mailbox):
        duplex.listeners.append(place)
        try:
            await listener.acknowledged(granted)
            await mailbox.take()  # nothing but the channel's end
        finally:
            duplex.listeners.remove(place)


async def _modern(duplex: Duplex, wanted: Listening, listener: Listener, seconds: float) -> None:
    granted: Listening | None = None
    with duplex.place() as (number, mailbox):
        try:
            async with asyncio.timeout(max(seconds, 0.001)) as opening:
                await duplex.send(envelope_of(number, METHOD, modern_params({"notifications": filter_of(wanted)})))
                while True:
                    message = await mailbox.take()
                    if message.method is UNSET:
                        answered(_ASKED, Exchange(200, {}, check_answer(message, number)), True)
                        return
                    params = members_of(message.params if message.params is not UNSET else Raw(b"{}"))
                    if granted is not None:
                        await tell(listener, granted, str(message.method), params)
                    elif message.method == ACKNOWLEDGED:
                        granted = acknowledged(params, wanted)
                        opening.reschedule(None)
                        await listener.acknowledged(granted)
        except TimeoutError as error:
            raise Unreachable(LATE, "no acknowledgement", Failure.LATE) from error
        finally:
            duplex.tell(told_of("notifications/cancelled", {"requestId": number}))


def _has_result(exchange: Exchange) -> bool:
    return exchange.answer is not None and exchange.answer.result is not UNSET
