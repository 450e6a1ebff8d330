"""What people do with values that are held back: they list them, accept them, or drop them. Agents do neither."""

from collections.abc import Callable

from msgspec import structs

from gateway.state.board.feed import BoardFeed
from gateway.state.board.held_values.rows import HeldDecision, HeldValue, decide_held, find_held, find_held_of_approval, list_held
from gateway.state.board.permissions import BoardAuthorizer, act_of_reading
from gateway.state.board.problems import BoardProblem, UnknownHeldValue
from gateway.state.board.rules import PrefixRules
from gateway.state.board.store import BoardStore
from gateway.state.board.values import StoredValue
from gateway.storage.batch import Batch
from policies.audit.log import AuditLog
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.approval import DECIDE_APPROVALS
from policies.delegation.rulings import Act, Grant

Place = tuple[int, str]  # the moment and the id of the last value of a page
DECIDE_HELD: Act = structs.replace(DECIDE_APPROVALS, verb="decide-held-value")


class HeldValues:
    """Held values for people. A person decides on a value with the role that owns its prefix, or with approval:decide."""

    def __init__(self, store: BoardStore, authorizer: BoardAuthorizer, rules: PrefixRules, feed: BoardFeed, audit: AuditLog) -> None:
        self._store = store
        self._authorizer = authorizer
        self._rules = rules
        self._feed = feed
        self._audit = audit

    async def list_visible(self, caller: Caller, place: Place | None, limit: int) -> tuple[list[HeldValue], Place | None]:
        """The held values of keys that the caller may read or decide on, the oldest first, and the place after which the next page is."""
        tenant = caller.principal.tenant
        found = await self._store.database.read(lambda connection: list_held(connection, tenant, self._store.now(), place, limit + 1))
        page = found[:limit]
        visible = [held for held in page if await self._may_see(caller, held)]
        return visible, (page[-1].at, page[-1].id) if len(found) > limit else None

    async def decide(self, caller: Caller, held_id: str, accepts: bool) -> StoredValue | None:
        """Accepts or drops a held value. Raises CallRefused, UnknownHeldValue, HeldValueDecided, OwnHeldValue and StaleVersion."""
        tenant, person = caller.principal.tenant, caller.principal.owner_key
        if caller.delegation.path:  # refused as delegated administration
            await self._authorizer.authorize(caller, RulingRequest(DECIDE_HELD, tenant))
        held = await self._store.database.read(lambda connection: find_held(connection, tenant, held_id))
        if not await self._may_see(caller, held):
            raise UnknownHeldValue
        act = act_of_reading(held.key, "decide-held-value") if self._owns(caller, held) else DECIDE_HELD

        def write(batch: Batch, grant: Grant) -> StoredValue | BoardProblem | None:
            try:
                return self._write(batch, caller, held, HeldDecision(tenant, held_id, accepts, person, grant.decision.id))
            except BoardProblem as problem:
                return problem

        result = await self._authorizer.authorize_and_write(caller, RulingRequest(act, tenant), write)
        if isinstance(result, BoardProblem):
            raise result
        self._feed.announce()
        return result

    async def settling_write(self, caller: Caller, approval_id: str, decision_id: str) -> Callable[[Batch, bool], None]:
        """What a vote on the question about a held value writes: it accepts the value, or drops it. Raises UnknownHeldValue.

        The write raises what `decide` raises, so that the vote does not count. It runs on the writer's thread, before the commit, and so
        wakes no followers: they find the change by polling.
        """
        tenant, person = caller.principal.tenant, caller.principal.owner_key
        held = await self._store.database.read(lambda connection: find_held_of_approval(connection, tenant, approval_id))

        def settle(batch: Batch, accepts: bool) -> None:
            self._write(batch, caller, held, HeldDecision(tenant, held.id, accepts, person, decision_id))

        return settle

    def _write(self, batch: Batch, caller: Caller, held: HeldValue, decision: HeldDecision) -> StoredValue | None:
        """Raises BoardProblem."""
        now = self._store.now()
        stored = decide_held(batch, decision, now, self._store.limits, self._rules.rule_of(held.key).expiry_of(None, now))
        self._audit.record(batch, _record_of(held, decision))
        if stored is not None:
            self._store.record_event(batch, caller, held.key, stored)
        return stored

    def _owns(self, caller: Caller, held: HeldValue) -> bool:
        """Whether the person has the role that owns the prefix. An agent that acts for them does not decide."""
        return not caller.delegation.path and self._rules.rule_of(held.key).owner in caller.principal.roles

    async def _may_see(self, caller: Caller, held: HeldValue) -> bool:
        if caller.delegation.path:
            return False
        return any([await self._authorizer.would_allow(caller, act) for act in (act_of_reading(held.key), DECIDE_HELD)])


def _record_of(held: HeldValue, decision: HeldDecision) -> dict[str, object]:
    return {
        "kind": "held-value-accepted" if decision.accepts else "held-value-dropped",
        "tenant": held.tenant,
        "decision_id": decision.decision_id,
        "txn": "",
        "task_id": held.source.task_id,
        "held_id": held.id,
        "key": held.key,
        "by": decision.person,
    }
