"""Calls that are granted and not sent, because their callers left during the commit of the grant."""

from gateway.calls.costs.reservations import CallPlace, settle
from gateway.calls.limits.meters import BudgetSpent
from gateway.state.effects.states import FAILED
from gateway.state.effects.store import SubjectEffects
from gateway.storage.database import Batch
from gateway.tasks.turns.stores import TaskStores
from policies.audit.log import outcome_record
from policies.delegation.approval_rows import mark_unused
from policies.delegation.rulings import Grant

NOT_SENT = "canceled"


def give_back_unsent(stores: TaskStores, effects: SubjectEffects, grant: Grant, spent: BudgetSpent | None) -> None:
    """Gives back what the commit of a grant took: the reservation, the approval, and the effect with its claim.

    Does not wait for the commit. The audit has the outcome `canceled`. With `spent` a budget refused the call, and nothing was taken.
    """
    if spent is not None:
        return
    decision, tenant = grant.decision, grant.delegation.principal.tenant

    def work(batch: Batch) -> None:
        settle(batch, CallPlace(tenant, decision.id, ""), 0)
        if decision.approval:
            mark_unused(batch, tenant, decision)
        effects.end(batch, grant, FAILED)
        stores.audit.record(batch, outcome_record(grant, NOT_SENT, stores.now() - decision.at))

    stores.database.post(work)
