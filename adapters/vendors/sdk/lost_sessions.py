"""Detects sessions that an agent lost: the turn fails with SESSION_LOST, and the next message begins a new session."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from msgspec.structs import replace

from adapters.contract import AgentFault, Event, Failed, RefLearned, UpstreamFault, VendorRef
from adapters.upstream.egress import EgressRefused
from adapters.vendors.sdk.answers import READING_ERRORS
from adapters.vendors.sdk.faults import SESSION_LOST, SESSION_LOST_TEXT, UNKNOWN_RESOURCE_TEXT


async def detect_lost_session(
    events: AsyncGenerator[Event, None], ref: VendorRef, describe: Callable[[], Awaitable[object]]
) -> AsyncGenerator[Event, None]:
    """The events of a turn in the session `ref`, or SESSION_LOST where the agent does not know that session.

    A proxy answers the same way while the agent is down. So `describe` checks the agent, and a failure of it means that nothing is lost.
    Raises UpstreamFault.
    """
    began = False
    try:
        async with aclosing(events) as arriving:
            async for event in arriving:
                began = began or not isinstance(event, RefLearned)
                yield event
    except AgentFault as fault:
        if began or fault.public != UNKNOWN_RESOURCE_TEXT or not await _is_reachable(describe):
            raise
        yield RefLearned(replace(ref, over=True))
        yield Failed(SESSION_LOST_TEXT, detail=fault.detail, kind=SESSION_LOST)


async def _is_reachable(describe: Callable[[], Awaitable[object]]) -> bool:
    try:
        await describe()
    except (UpstreamFault, EgressRefused, *READING_ERRORS):
        return False
    return True
