"""Writes that need a ruling and call nobody, such as those of the board: the Grant is recorded in their commit."""

from collections.abc import Callable
from typing import TypeVar

from gateway.calls.authorizer import CallAuthorizer, retry_while_history_changes, write_grant_effects
from gateway.storage.database import Batch
from gateway.tasks.turns.stores import TaskStores
from policies.audit.log import decision_record
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Grant

T = TypeVar("T")


async def authorize_and_write(
    authorizer: CallAuthorizer, stores: TaskStores, caller: Caller, request: RulingRequest, write: Callable[[Batch, Grant], T]
) -> T:
    """Runs `write` in the commit that records the Grant of an act, and returns its result.

    Raises CallRefused, recorded, and what `write` raises; then nothing is recorded.
    """

    async def attempt() -> T:
        grant, record = await rule_for_write(authorizer, stores, caller, request)

        def work(batch: Batch) -> T:
            record(batch)
            return write(batch, grant)

        return await stores.database.write(work)

    return await retry_while_history_changes(attempt)


async def rule_for_write(
    authorizer: CallAuthorizer, stores: TaskStores, caller: Caller, request: RulingRequest
) -> tuple[Grant, Callable[[Batch], None]]:
    """Returns the Grant of an act with what records it, which the caller runs in a commit of its own. Raises CallRefused, recorded.

    That commit raises HistoryChanged or ApprovalGone where the act must be ruled on again.
    """
    grant = await authorizer.grant_or_refuse(caller, request)
    decided = decision_record(grant.decision, caller.principal)

    def record(batch: Batch) -> None:
        write_grant_effects(batch, grant, authorizer.effects)
        stores.audit.record(batch, decided)

    return grant, record
