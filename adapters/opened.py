"""Agents that a credential opens: the person's own or the operator's, which goes no further than there."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec
from msgspec import structs

from adapters.contract import Adapter, Ask, Call, CannotCancel, ConsentNeeded, Event, Ref, Turn, UpstreamFault, VendorRef, Watcher
from adapters.mcp_oauth import McpOAuth, errand_of, with_headers
from adapters.scrubbing import scrubber_of
from adapters.task import Message, Part, Role

T = TypeVar("T")
AUTH: Final = "auth"
WAITS: Final = "waits_for_consent"  # in a ref: what goes on when the person has consented
_waiting: Final = msgspec.json.Decoder(Message).decode


def carries(upstream: Mapping[str, Any]) -> bool:
    """Whether an entry says of a credential."""
    return AUTH in upstream or "headers" in upstream


class _Begun(NamedTuple):
    events: AsyncGenerator[Event, None]
    first: Event | None
    call: Call


class Opened:
    """An Adapter around another, which raises Challenged before its first event where it is refused.

    A call that needs a consent waits with its message, and goes on by itself. Secrets that it carried are taken out of all that comes.
    """

    def __init__(self, inner: Adapter, oauth: McpOAuth | None) -> None:
        self._inner = inner
        self._oauth = oauth

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """As the adapter inside; where a consent is needed that is the ending."""
        turn = _unparked(turn)
        try:
            async for event in self._events(call, lambda opened: self._inner.run(turn, opened)):
                yield event
        except ConsentNeeded as needed:
            yield Ref(_parked(turn, needed.id))
            parts = (Part(text=str(needed)), Part(url=needed.url, media_type="text/html"))
            yield Ask(Message(f"m-{needed.id}", Role.AGENT, parts), auth=True)

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """What waits for a consent goes on with it; else as the adapter inside."""
        if WAITS not in ref.extra:
            if isinstance(self._inner, Watcher):
                inner = self._inner
                async for event in self._events(call, lambda opened: inner.watch(ref, opened)):
                    yield event
            return
        left = call.deadline - asyncio.get_running_loop().time()
        if self._oauth is None or not await self._oauth.consents.wait(ref.task_id, left / 2):  # the other half is for the call
            return
        async for event in self.run(Turn(Message("", Role.USER, ()), ref, stream=True), call):
            yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        if WAITS in ref.extra:
            ref = _before(ref)
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
        return await self._oauth.authorized(errand_of(call), cleaned)


def _parked(turn: Turn, consent_id: str) -> VendorRef:
    ref = turn.ref or VendorRef()
    waits = {"message": msgspec.json.encode(turn.message).decode(), "task_id": ref.task_id, "extra": dict(ref.extra)}
    return VendorRef(ref.context_id, consent_id, {WAITS: waits}, kept=ref.kept)


def _before(ref: VendorRef) -> VendorRef:
    """The agent's own ids, which a consent stands in front of."""
    waits = ref.extra[WAITS]
    return VendorRef(ref.context_id, waits["task_id"], waits["extra"], kept=ref.kept)


def _unparked(turn: Turn) -> Turn:
    """With the message that waited: what is said meanwhile is for the gateway, which has asked."""
    if turn.ref is None or WAITS not in turn.ref.extra:
        return turn
    message = _waiting(turn.ref.extra[WAITS]["message"].encode())
    before = _before(turn.ref)
    return structs.replace(turn, message=message, ref=before if before != VendorRef() else None)


_: type[Adapter] = Opened
_watches: type[Watcher] = Opened
