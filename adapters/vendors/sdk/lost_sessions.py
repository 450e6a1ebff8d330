"""Sessions that an agent no longer has: the conversation fails once, with a reason of its own, and begins anew with the next message."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from msgspec.structs import replace

from adapters.contract import AgentFault, Event, Failed, Ref, UpstreamFault, VendorRef
from adapters.upstream.egress import EgressRefused
from adapters.vendors.sdk.answers import MALFORMED
from adapters.vendors.sdk.faults import LOST, SESSION_LOST, UNKNOWN


async def notice_loss(
    events: AsyncGenerator[Event, None], ref: VendorRef, describe: Callable[[], Awaitable[object]]
) -> AsyncGenerator[Event, None]:
    """The events of a turn in the session `ref`, or SESSION_LOST where the agent does not know that session.

    An agent that is away altogether answers so too, behind a proxy. `describe` asks for the agent itself: where it fails, nothing is lost.
    Raises UpstreamFault.
    """
    began = False
    try:
        async with aclosing(events) as arriving:
            async for event in arriving:
                began = began or not isinstance(event, Ref)
                yield event
    except AgentFault as fault:
        if began or fault.public != UNKNOWN or not await _is_there(describe):
            raise
        yield Ref(replace(ref, over=True))
        yield Failed(LOST, detail=fault.detail, kind=SESSION_LOST)


async def _is_there(describe: Callable[[], Awaitable[object]]) -> bool:
    try:
        await describe()
    except (UpstreamFault, EgressRefused, *MALFORMED):
        return False
    return True
