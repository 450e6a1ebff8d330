"""Agents that a credential opens: the person's own or the operator's, which goes no further than there."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple, TypeVar, cast

from adapters.contract import (
    Adapter,
    Call,
    CannotCancel,
    CannotReattach,
    ConsentNeeded,
    Event,
    Reattachable,
    Turn,
    UpstreamFault,
    VendorRef,
    Watcher,
)
from adapters.oauth.authorized import McpOAuth, approach_of, with_headers
from adapters.redaction.secrets import scrubber_of
from adapters.task import Task
from adapters.upstream.pending_consent import before, parked, question, unparked, waits

T = TypeVar("T")
AUTH: Final = "auth"


def carries(upstream: Mapping[str, Any]) -> bool:
    """Whether an entry says of a credential."""
    return AUTH in upstream or "headers" in upstream


class _Begun(NamedTuple):
    events: AsyncGenerator[Event, None]
    first: Event | None
    call: Call


class Opened:
    """An Adapter around another, which raises Challenged before its first event where it is refused.

    A call that needs a consent waits with its message, which a turn with its ref goes on with. Secrets that it carried are taken out of
    all that comes.
    """

    def __init__(self, inner: Adapter, oauth: McpOAuth | None) -> None:
        self._inner = inner
        self._oauth = oauth

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """As the adapter inside; where a consent is needed that is the ending."""
        turn = unparked(turn)
        try:
            async for event in self._events(call, lambda opened: self._inner.run(turn, opened)):
                yield event
        except ConsentNeeded as needed:
            yield parked(turn, call, needed)
            yield question(needed)

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """As the adapter inside; where a consent is needed meanwhile the turn can't go on. Raises CannotReattach and ConsentNeeded."""
        inner = self._inner
        if not isinstance(inner, Reattachable) or (turn.ref is not None and waits(turn.ref)):
            raise CannotReattach
        async for event in self._events(call, lambda opened: inner.reattach(turn, known, opened)):
            yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        if waits(ref):
            ref = before(ref)
            if not ref.task_id:
                raise CannotCancel
        return await self._sent(call, lambda opened: self._inner.cancel(ref, opened))

    async def _events(self, call: Call, begin: Callable[[Call], AsyncIterator[Event]]) -> AsyncGenerator[Event, None]:
        async def first_of(opened: Call) -> _Begun:
            events = cast("AsyncGenerator[Event, None]", begin(opened))
            return _Begun(events, await anext(events, None), opened)

        begun = await self._sent(call, first_of)
        scrubber = scrubber_of(begun.call.headers)
        async with aclosing(begun.events) as events:
            try:
                event = begun.first
                while event is not None:
                    yield scrubber.event(event) if scrubber else event
                    event = await anext(events, None)
            except UpstreamFault as fault:
                if scrubber:
                    scrubber.fault(fault)
                raise

    async def _sent(self, call: Call, send: Callable[[Call], Awaitable[T]]) -> T:
        async def cleaned(own: Mapping[str, str]) -> T:
            opened = with_headers(call, own)
            try:
                return await send(opened)
            except UpstreamFault as fault:
                scrubber = scrubber_of(opened.headers)
                if scrubber:
                    scrubber.fault(fault)
                raise

        if self._oauth is None or AUTH not in call.target.upstream:
            return await cleaned({})
        return await self._oauth.authorized(approach_of(call), cleaned)


class OpenedWatcher(Opened):
    """The same around an adapter that is a Watcher too."""

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """As the adapter inside."""
        inner = cast("Watcher", self._inner)
        async for event in self._events(call, lambda opened: inner.watch(ref, opened)):
            yield event


def opened(inner: Adapter, oauth: McpOAuth | None) -> Opened:
    """A Watcher only where the adapter inside is one."""
    return OpenedWatcher(inner, oauth) if isinstance(inner, Watcher) else Opened(inner, oauth)


_: type[Adapter] = Opened
_watches: type[Watcher] = OpenedWatcher
