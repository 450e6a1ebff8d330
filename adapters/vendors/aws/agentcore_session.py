"""A2A agents in AgentCore Runtime: every request of a conversation names the runtime's session, whose machine holds the conversation."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final
from uuid import uuid4

from msgspec.structs import replace

from adapters.contract import Adapter, Call, Event, Reattachable, RefLearned, Stoppable, Turn, VendorRef, Watcher
from adapters.task import Task
from adapters.upstream.live_headers import with_more

SESSION_HEADER: Final = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
SESSION_KEY: Final = "agentcore_session"  # the key in a VendorRef's `kept`


class AgentCoreSessions:
    """An Adapter and a Watcher around those of A2A. The session's id is created in the first turn and stored with the conversation."""

    def __init__(self, inner: Any, new_id: Callable[[], str] = lambda: str(uuid4())) -> None:
        self._inner = inner
        self._new_id = new_id

    def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        session = _session_of(turn.ref) or self._new_id()
        return _store_session(self._inner.run(turn, _in_session(call, session)), session)

    def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        session = _session_of(ref)
        return _store_session(self._inner.watch(ref, _in_session(call, session)), session)

    def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        session = _session_of(turn.ref)
        return _store_session(self._inner.reattach(turn, known, _in_session(call, session)), session)

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return bool(await self._inner.cancel(ref, _in_session(call, _session_of(ref))))

    async def stop(self, ref: VendorRef, call: Call) -> bool:
        return bool(await self._inner.stop(ref, _in_session(call, _session_of(ref))))


async def _store_session(events: AsyncGenerator[Event, None], session: str) -> AsyncIterator[Event]:
    """Yields the events, with the session beside every reference of the agent."""
    async with aclosing(events) as arriving:
        async for event in arriving:
            yield RefLearned(replace(event.ref, kept={SESSION_KEY: session})) if isinstance(event, RefLearned) else event


def _session_of(ref: VendorRef | None) -> str:
    kept_values = (ref.kept if ref else None) or {}
    return str(kept_values.get(SESSION_KEY) or "")


def _in_session(call: Call, session: str) -> Call:
    return replace(call, headers=with_more(call.headers, {SESSION_HEADER: session})) if session else call


_: type[Adapter] = AgentCoreSessions
_reattaches: type[Reattachable] = AgentCoreSessions
_stops: type[Stoppable] = AgentCoreSessions
_watches: type[Watcher] = AgentCoreSessions
