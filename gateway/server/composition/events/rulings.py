"""Rulings on sending and receiving events, as the parts of events need them."""

from collections.abc import Callable
from typing import TypeVar

from gateway.calls.authorizer import CallAuthorizer
from gateway.server.composition.access.ruled_writes import authorize_and_write, rule_for_write
from gateway.storage.database import Batch
from gateway.tasks.turns.stores import TaskStores
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from policies.delegation.terms import DEFAULT_TERMS, Terms

T = TypeVar("T")


class EventRulings:
    """Rules on acts of callers. All methods raise CallRefused, recorded."""

    def __init__(self, authorizer: CallAuthorizer, stores: TaskStores) -> None:
        self._authorizer = authorizer
        self._stores = stores

    async def authorize(self, caller: Caller, act: Act, task_id: str = "", sensitivity: int = 0) -> Grant:
        """Returns the recorded Grant. `task_id`: what the act is about. `sensitivity` becomes that of the caller's transaction."""
        terms = Terms(sensitivity) if sensitivity else DEFAULT_TERMS
        return await self._authorizer.authorize_and_record(
            caller, RulingRequest(act, caller.principal.tenant, task_id=task_id, terms=terms)
        )

    async def authorize_and_write(self, caller: Caller, act: Act, write: Callable[[Batch], T]) -> T:
        """Returns the result of `write`, which runs in the commit that records the Grant."""
        request = RulingRequest(act, caller.principal.tenant)
        return await authorize_and_write(self._authorizer, self._stores, caller, request, lambda batch, _: write(batch))

    async def authorize_later_write(self, caller: Caller, act: Act, sensitivity: int = 0) -> Callable[[Batch], None]:
        """Returns what records the Grant, which the caller runs in a commit of its own.

        With a `sensitivity` the Grant is recorded at once, so that the next ruling in the caller's transaction knows it.
        """
        if sensitivity:
            await self.authorize(caller, act, sensitivity=sensitivity)
            return _record_nothing
        _, record = await rule_for_write(self._authorizer, self._stores, caller, RulingRequest(act, caller.principal.tenant))
        return record


def _record_nothing(_batch: Batch) -> None:
    return
