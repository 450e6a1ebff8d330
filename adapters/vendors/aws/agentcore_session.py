"""A2A agents in AgentCore Runtime: every request of a conversation names the runtime's session, whose machine holds the conversation."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final, cast
from uuid import uuid4

from msgspec.structs import replace

from adapters.contract import Adapter, Call, Event, Reattachable, RefLearned, Turn, VendorRef, Watcher
from adapters.task import Task
from adapters.upstream.live_headers import with_more

SESSION_HEADER: Final = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
SESSION_KEY: Final = "agentcore_session"  # the key in a VendorRef's `kept`


class AgentCoreSessions:
    """An Adapter and a Watcher around those of A2A. The session's id is created in the first turn and stored with the conversation."""

    def __init__(self, inner: Any, new_id: Callable[[], str] = lambda: str(uuid4())) -> None:
        self._inner = inner
        self._new_id = new_id

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        session = _session_of(turn.ref) or self._new_id()
        events = cast("AsyncGenerator[Event, None]", self._inner.run(turn, _in_session(call, session)))
        async with aclosing(events) as arriving:
            async for event in arriving:
                yield RefLearned(replace(event.ref, kept={SESSION_KEY: session})) if isinstance(event, RefLearned) else event

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        session = _session_of(ref)
        events = cast("AsyncGenerator[Event, None]", self._inner.watch(ref, _in_session(call, session)))
        async with aclosing(events) as arriving:
            async for event in arriving:
                yield RefLearned(replace(event.ref, kept={SESSION_KEY: session})) if isinstance(event, RefLearned) else event

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        session = _session_of(turn.ref)
        events = cast("AsyncGenerator[Event, None]", self._inner.reattach(turn, known, _in_session(call, session)))
        async with aclosing(events) as arriving:
            async for event in arriving:
                yield RefLearned(replace(event.ref, kept={SESSION_KEY: session})) if isinstance(event, RefLearned) else event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return bool(await self._inner.cancel(ref, _in_session(call, _session_of(ref))))


def _session_of(ref: VendorRef | None) -> str:
    kept_values = (ref.kept if ref else None) or {}
    return str(kept_values.get(SESSION_KEY) or "")


def _in_session(call: Call, session: str) -> Call:
    return replace(call, headers=with_more(call.headers, {SESSION_HEADER: session})) if session else call


_: type[Adapter] = AgentCoreSessions
_reattaches: type[Reattachable] = AgentCoreSessions
_watches: type[Watcher] = AgentCoreSessions
