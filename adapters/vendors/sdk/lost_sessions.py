"""Sessions that an agent lost: the turn goes on in a new session where nothing is lost, and otherwise fails as SESSION_LOST."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from uuid import NAMESPACE_OID, uuid5

import structlog
from msgspec.structs import replace

from adapters.contract import AgentFault, Event, Failed, RefLearned, Turn, UpstreamFault, VendorRef
from adapters.upstream.egress import EgressRefused
from adapters.vendors.sdk.answers import READING_ERRORS
from adapters.vendors.sdk.faults import LOST_RESPONSE, REFUSAL_TEXTS, SESSION_LOST, SESSION_LOST_TEXT, UNKNOWN_RESOURCE_TEXT

log = structlog.get_logger()


async def run_in_session(
    turn: Turn, run: Callable[[Turn], AsyncGenerator[Event, None]], is_lost: Callable[[AgentFault], Awaitable[bool]]
) -> AsyncGenerator[Event, None]:
    """The events of a turn, in a new session if the agent lost the old one and nothing was in it.

    Nothing is lost if the agent did not take this turn, the turn answers no question, and no earlier message reached the session. The turn
    then runs once more, in a new session. Otherwise it ends as SESSION_LOST, and the conversation's next task begins a new session.
    `is_lost` says whether a fault means that the agent lost the session. Raises UpstreamFault.
    """
    attempt = _Attempt(turn)
    async with aclosing(attempt.events(run, is_lost)) as events:
        async for event in events:
            yield event
    if attempt.loss is not None and attempt.lost_nothing:
        log.info("session_replaced", reason=attempt.loss.detail)
        attempt = _Attempt(_in_new_session(turn))
        async with aclosing(attempt.events(run, is_lost)) as events:
            async for event in events:
                yield event
    if attempt.loss is not None:
        yield RefLearned(replace(attempt.ref, over=True))
        yield attempt.loss


class _Attempt:
    """One attempt at a turn. `ref`: the ids that the agent sent last; `loss`: the failure of a turn whose session is lost."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._was_given = turn.ref is not None and bool(turn.ref.context_id)
        self._was_unused = turn.ref is None or turn.ref.is_unused or not self._was_given
        self._has_begun = False  # the agent has sent something
        self._has_run = False  # the agent has named a run
        self.ref = turn.ref or VendorRef()
        self.loss: Failed | None = None

    @property
    def lost_nothing(self) -> bool:
        """Whether neither this message nor an earlier one reached the session, and no question waits in it."""
        return self._was_unused and not (self._has_begun or self._has_run or self._turn.answers)

    async def events(
        self, run: Callable[[Turn], AsyncGenerator[Event, None]], is_lost: Callable[[AgentFault], Awaitable[bool]]
    ) -> AsyncGenerator[Event, None]:
        """The events up to the loss of the session. Raises UpstreamFault."""
        try:
            async with aclosing(run(self._turn)) as arriving:
                async for event in arriving:
                    if isinstance(event, RefLearned):
                        self.ref = event.ref
                        self._has_run = self._has_run or bool(event.ref.task_id)
                    elif isinstance(event, Failed) and event.kind == SESSION_LOST:
                        self._has_begun = self._has_begun or not event.retryable
                        self.loss = replace(event, retryable=False)  # sent again, the message would reach an agent without the conversation
                        return
                    else:
                        self._has_begun = True
                    yield event
        except UpstreamFault as fault:
            if self._was_given and not self._has_begun and isinstance(fault, AgentFault) and await is_lost(fault):
                self.loss = Failed(SESSION_LOST_TEXT, detail=fault.detail, kind=SESSION_LOST)
                return
            if self.lost_nothing and self.ref.context_id and _was_refused(fault):
                yield RefLearned(replace(self.ref, is_unused=True))
            raise


def names_lost_response(fault: AgentFault) -> bool:
    """Whether a service of models says that it no longer has the response that the request continues."""
    return f'"{LOST_RESPONSE}"' in (fault.detail or "")


async def is_session_unknown(fault: AgentFault, describe: Callable[[], Awaitable[object]]) -> bool:
    """Whether the agent does not know the session that a request named.

    A proxy answers the same way while the agent is down. So `describe` checks the agent, and a failure of it means that nothing is lost.
    """
    if fault.public != UNKNOWN_RESOURCE_TEXT:
        return False
    try:
        await describe()
    except (UpstreamFault, EgressRefused, *READING_ERRORS):
        return False
    return True


def _was_refused(fault: UpstreamFault) -> bool:
    """Whether the agent certainly did not take the message of a turn."""
    return fault.is_unsent or fault.retryable or fault.public in REFUSAL_TEXTS or fault.public == UNKNOWN_RESOURCE_TEXT


def _in_new_session(turn: Turn) -> Turn:
    """The turn without the agent's session, and with another id of the gateway's, since an agent accepts an id for one session only."""
    ref = replace(turn.ref or VendorRef(), context_id="", is_unused=False)
    return replace(turn, ref=ref, session=str(uuid5(NAMESPACE_OID, f"{turn.session}|{turn.message.message_id}")))
