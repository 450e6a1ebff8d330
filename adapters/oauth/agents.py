"""Adapters for agents that need a credential: the person's own or the operator's, which is sent to no other upstream."""

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
    Stoppable,
    Turn,
    UpstreamFault,
    VendorRef,
    Watcher,
)
from adapters.oauth.authorized import UpstreamOAuth, credential_request_of, with_headers
from adapters.task import Task
from adapters.upstream.call_redaction import CallRedactor
from adapters.upstream.pending_consent import consent_question, is_pending, pending_ref, ref_before_consent, with_pending_message

T = TypeVar("T")
AUTH_OPTION: Final = "auth"


def needs_credential(upstream: Mapping[str, Any]) -> bool:
    """Whether an entry has a credential."""
    return AUTH_OPTION in upstream or "headers" in upstream


class _StartedEvents(NamedTuple):
    events: AsyncGenerator[Event, None]
    first: Event | None


class AuthorizedAdapter:
    """An Adapter around another, which raises Challenged before its first event where the credential is refused.

    A call that needs a consent is stored with its message, and a turn with its ref continues it. Secrets of the call are removed from all
    events.
    """

    def __init__(self, inner: Adapter, oauth: UpstreamOAuth | None) -> None:
        self._inner = inner
        self._oauth = oauth

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Runs a turn of the inner adapter; a needed consent ends it."""
        turn = with_pending_message(turn)
        try:
            async for event in self._authorized_events(call, lambda opened: self._inner.run(turn, opened)):
                yield event
        except ConsentNeeded as needed:
            yield pending_ref(turn, call, needed)
            yield consent_question(needed)

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Continues a turn of the inner adapter. Raises CannotReattach, and ConsentNeeded where a consent is needed."""
        inner = self._inner
        if not isinstance(inner, Reattachable) or (turn.ref is not None and is_pending(turn.ref)):
            raise CannotReattach
        async for event in self._authorized_events(call, lambda opened: inner.reattach(turn, known, opened)):
            yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        if is_pending(ref):
            ref = ref_before_consent(ref)
            if not ref.task_id:
                raise CannotCancel
        return await self._send_authorized(call, lambda opened: self._inner.cancel(ref, opened), CallRedactor(call.headers))

    async def stop(self, ref: VendorRef, call: Call) -> bool:
        """Stops a run of the inner adapter. Raises UpstreamFault, and ConsentNeeded where the person's account is gone."""
        inner, run = self._inner, ref_before_consent(ref) if is_pending(ref) else ref
        if not isinstance(inner, Stoppable) or not run.task_id:
            return False
        return await self._send_authorized(call, lambda opened: inner.stop(run, opened), CallRedactor(call.headers))

    async def _authorized_events(self, call: Call, start_events: Callable[[Call], AsyncIterator[Event]]) -> AsyncGenerator[Event, None]:
        async def first_event_of(opened: Call) -> _StartedEvents:
            events = cast("AsyncGenerator[Event, None]", start_events(opened))
            return _StartedEvents(events, await anext(events, None))

        redactor = CallRedactor(call.headers)
        begun = await self._send_authorized(call, first_event_of, redactor)
        async with aclosing(begun.events) as events:
            try:
                event = begun.first
                while event is not None:
                    yield redactor.redact_event(event)
                    event = await anext(events, None)
            except UpstreamFault as fault:
                redactor.redact_fault(fault)
                raise

    async def _send_authorized(self, call: Call, send: Callable[[Call], Awaitable[T]], redactor: CallRedactor) -> T:
        async def send_with(own: Mapping[str, str]) -> T:
            redactor.add_headers(own)
            return await send(with_headers(call, own))

        try:
            if self._oauth is None or AUTH_OPTION not in call.target.upstream:
                return await send(call)
            return await self._oauth.send_authorized(credential_request_of(call), send_with)
        except UpstreamFault as fault:
            redactor.redact_fault(fault)
            raise


class AuthorizedWatcher(AuthorizedAdapter):
    """An AuthorizedAdapter around an adapter that is a Watcher."""

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """Watches a task of the inner adapter."""
        inner = cast("Watcher", self._inner)
        async for event in self._authorized_events(call, lambda opened: inner.watch(ref, opened)):
            yield event


def authorize_adapter(inner: Adapter, oauth: UpstreamOAuth | None) -> AuthorizedAdapter:
    """The adapter with authorization; a Watcher where the inner one is one."""
    return AuthorizedWatcher(inner, oauth) if isinstance(inner, Watcher) else AuthorizedAdapter(inner, oauth)


_: type[Adapter] = AuthorizedAdapter
_stops: type[Stoppable] = AuthorizedAdapter
_watches: type[Watcher] = AuthorizedWatcher
