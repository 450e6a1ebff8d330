"""Records what allowed acts do to subjects, in the commit of their decision, and how it ended."""

import json
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from msgspec.structs import replace

from gateway.state.claims.claim import Claim, ClaimRequest, Holder, claim_id_of
from gateway.state.claims.rows import begin_cool_down, take_claim
from gateway.state.claims.waiting import ClaimWaiters
from gateway.state.effects.facts import build_facts, find_effect_of_task
from gateway.state.effects.reading import EffectCaller, FactRows, facts_query, read_rows
from gateway.state.effects.recall import RecalledSubjects
from gateway.state.effects.states import ASKED, DONE, FAILED, UNKNOWN
from gateway.state.effects.sweep import TASK_LEASE, EffectSweep
from gateway.state.effects.tables import subject_effects
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.versions import lock_subject, raise_subject_version, raise_unmoved_version
from gateway.storage.batch import GuardedUpdate
from gateway.storage.database import Batch, Database, WriteFailed
from gateway.storage.readers import Rows
from gateway.tasks.turns.effects import TaskEnding
from policies.delegation.facts import ALL_FACTS, SECOND, EffectMark, FactNeeds, SubjectEffect, SubjectFacts
from policies.delegation.rulings import Decision, Grant

STATE_AFTER: Final[Mapping[TaskEnding, str]] = {"completed": DONE, "unsent": FAILED, "unknown": UNKNOWN}
ANSWER_LEASE: Final = 900 * SECOND  # for which an effect stays open for an answer, which is longer than its request state is accepted
_CONTINUE: Final = "UPDATE subject_effects SET id = ?, state = 'under-way', until = ? WHERE tenant = ? AND id = ?"
_HOLD_AGAIN: Final = (
    "UPDATE claims SET state = 'held', until = ?, ended = NULL, ended_as = '' WHERE tenant = ? AND state <> 'ended' "
    "AND id = (SELECT claim_id FROM subject_effects WHERE tenant = ? AND id = ?)"
)
_KEEP_OPEN: Final = "UPDATE subject_effects SET until = ? WHERE tenant = ? AND id = ? AND state = 'under-way'"
_REOPEN: Final = "UPDATE subject_effects SET id = ?, state = 'under-way' WHERE tenant = ? AND task_id = ? AND own_task = 1 AND effect = ?"
_END: Final = GuardedUpdate(subject_effects, ("state", "until"), ("tenant", "id", "state"), None)  # one that was closed stays closed
_END_CLAIMED: Final = "UPDATE subject_effects SET state = ?, until = ? WHERE tenant = ? AND id = ? AND state = 'under-way'"
_RELEASE: Final = (
    "UPDATE claims SET state = ?, until = ?, cool_down = ?, ended = ?, ended_as = 'released' WHERE tenant = ? AND state = 'held' "
    "AND id = (SELECT claim_id FROM subject_effects WHERE tenant = ? AND id = ?)"
)
log = structlog.get_logger()


class SubjectEffects:
    """What acts do to subjects, in all tenants."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self.database = database
        self._clock = SubjectClock(now)
        self.claim_waiters = ClaimWaiters()
        self._recalled = RecalledSubjects()

    async def read(
        self, caller: EffectCaller, effect: SubjectEffect, needs: FactNeeds = ALL_FACTS
    ) -> tuple[SubjectEffect, SubjectFacts | None]:
        """The effect with its subject and the facts about it. The answer to a task's question is about the subject of the task.

        `needs`: the facts that policies read. The facts are None where the subject is not known. Raises TooManyFacts.
        """
        if task_id := effect.continues_task:
            name = effect.effect
            subject = await self.database.read(lambda connection: find_effect_of_task(connection, caller.tenant, task_id, name))
            effect = _of_task(effect, subject)
        if not effect.subject:
            return effect, None
        statement, values = facts_query(self.database.is_sqlite, caller, effect, needs)

        def convert(found: Rows) -> tuple[FactRows, SubjectFacts]:
            rows = read_rows(effect.subject, found)
            rows.now = self._clock.note(rows.now)
            return rows, build_facts(rows, caller, effect, rows.now)

        rows, facts = await self.database.query(statement, values, convert)
        if not (caller.continues_decision_id or effect.continues_task):  # which leave effects of their own out of what they read
            self._recalled.keep((caller.tenant, effect.subject), rows, needs)
        return effect, facts

    def recall(self, caller: EffectCaller, effect: SubjectEffect, needs: FactNeeds) -> SubjectFacts | None:
        """The facts as this process knows them without a read, of which only a grant may be made; None where they have to be read."""
        now = self._clock.recent(self.database.is_sqlite)
        if not effect.subject or effect.continues_task or caller.continues_decision_id or now is None:
            return None
        rows = self._recalled.recall((caller.tenant, effect.subject), needs, now)
        return build_facts(rows, caller, effect, now) if rows is not None else None

    def record(self, batch: Batch, grant: Grant, mark: EffectMark) -> None:
        """Records the effect that a grant allows, and takes its claim.

        The batch raises FactsChanged if the subject's version is not the mark's. What needs no claim is written by one statement with the
        other rows of the batch.
        """
        tenant, effect, decision = grant.delegation.principal.tenant, mark.effect, grant.decision
        raise_unmoved_version(batch, tenant, effect.subject, mark.version)
        if mark.continues_decision_id or effect.continues_task or effect.is_claim:
            batch.flush()  # before statements that see the row
        if _continues(batch, tenant, mark, decision):
            return
        now, holder = self._clock.estimate(batch), holder_of_grant(grant)
        claim_id = self._claim(batch, grant, mark, holder, now=now) if effect.is_claim else ""
        row = {
            "tenant": tenant,
            "id": decision.id,
            "subject": effect.subject,
            "effect": effect.effect,
            "purpose": effect.purpose,
            "target": decision.act.permission,
            "owner": holder.owner,
            "agent": holder.agent,
            "chain": json.dumps(holder.chain),
            "txn": holder.txn,
            "task_id": holder.task_id,
            "own_task": int(effect.has_own_task),
            "claim_id": claim_id,
            "state": "under-way",
            "at": now,
            "until": effect.until,
        }
        batch.add(subject_effects, row)

    def _claim(self, batch: Batch, grant: Grant, mark: EffectMark, holder: Holder, *, now: int) -> str:
        """Takes the claim of an act while it lasts. Returns its id; empty where the caller has one already, under which the act stands."""
        effect, decision = mark.effect, grant.decision
        lease = TASK_LEASE if effect.has_own_task else max(effect.until - now, SECOND)
        tenant, cool_down = grant.delegation.principal.tenant, effect.cool_down * SECOND
        purpose = effect.purpose or decision.act.permission
        wanted = ClaimRequest(tenant, effect.subject, effect.effect, holder, purpose, effect.priority, lease, cool_down, decision.id)
        claim_id = claim_id_of(decision.id)
        taken = take_claim(batch, wanted, claim_id, self._clock)
        return claim_id if isinstance(taken, Claim) and taken.id == claim_id else ""

    def end(self, batch: Batch, grant: Grant, state: str) -> None:
        """Records how the effect of an act ended: done, failed or unknown. Its claim ends too, without a cool-down where it failed.

        One that was ASKED something stays open, with its claim, until the answer or for ANSWER_LEASE.
        """
        mark, decision = grant.effect_mark, grant.decision
        if mark is None:
            return
        tenant, effect = grant.delegation.principal.tenant, mark.effect
        if effect.is_claim or state == ASKED:  # before rows that others change while they have this lock
            lock_subject(batch, tenant, effect.subject)
        if state == ASKED:
            until = self._clock.estimate(batch) + ANSWER_LEASE
            if batch.run(_KEEP_OPEN, (until, tenant, decision.id)):
                if effect.is_claim:
                    batch.run(_HOLD_AGAIN, (until, tenant, tenant, decision.id))
                raise_subject_version(batch, tenant, effect.subject)
            return
        if not effect.is_claim:
            batch.update(_END, (state, self._clock.estimate(batch), tenant, decision.id, "under-way"))
            return
        now = self._clock.estimate(batch)
        has_ended = batch.run(_END_CLAIMED, (state, now, tenant, decision.id)) == 1
        rest = 0 if state == FAILED else effect.cool_down * SECOND
        if batch.run(_RELEASE, ("cooling" if rest else "ended", now, rest, now, tenant, tenant, decision.id)):
            raise_subject_version(batch, tenant, effect.subject)
        elif rest and has_ended:
            purpose = effect.purpose or decision.act.permission
            who = (tenant, effect.subject, effect.effect, holder_of_grant(grant))
            begin_cool_down(batch, ClaimRequest(*who, purpose, effect.priority, 0, rest, decision.id), f"{claim_id_of(decision.id)}c", now)

    def end_task(self, batch: Batch, grant: Grant, ending: TaskEnding) -> None:
        """Records that the task of an agent has ended. What an agent that failed did before is not known."""
        self.end(batch, grant, STATE_AFTER[ending])

    def end_later(self, grant: Grant, state: str) -> None:
        """Records how the effect of a tool call ended, without waiting for the commit."""
        mark = grant.effect_mark
        at = self._clock.moment_of(grant.decision.at, self.database.is_sqlite)
        if mark is not None and at and state == DONE and _is_plain(mark):
            key, who = (grant.delegation.principal.tenant, mark.effect.subject), holder_of_grant(grant)
            self._recalled.add_effect(key, mark.version, (mark.effect.effect, who.agent, who.owner, at))
        self.database.post(lambda batch: self.end(batch, grant, state))

    async def settle(self, grant: Grant) -> None:
        """Waits until the end of an effect is recorded, where others wait for it, and wakes those that wait for its claim.

        While the database is away this returns at once, since the call has its answer. The end is posted, and is recorded later.
        """
        mark = grant.effect_mark
        if mark is not None and (mark.effect.is_claim or mark.effect.is_once):
            try:
                await self.database.write(lambda _batch: None)
            except WriteFailed as error:
                log.warning("effect_end_delayed", decision_id=grant.decision.id, problem=str(error))
            self.claim_waiters.wake(grant.delegation.principal.tenant, mark.effect.subject, mark.effect.effect)

    async def sweep(self) -> None:
        """Closes effects that ended elsewhere, keeps the claims of tasks that last, and deletes old effects; see sweep.py."""
        await EffectSweep(self.database, self._clock).run_once()


def _of_task(effect: SubjectEffect, subject: str) -> SubjectEffect:
    """The effect of an answer to a question of a task about `subject`. An answer that names another one has no subject."""
    if not subject or effect.subject == subject:
        return effect
    if effect.subject:
        return replace(
            effect, subject="", missing_field="arguments", missing_problem=f"name {effect.subject}, and the task is about {subject}"
        )
    return replace(effect, subject=subject)


def holder_of_grant(grant: Grant) -> Holder:
    """The holder of the effect: the called agent in its new task, or the caller of a tool."""
    delegation, decision = grant.delegation, grant.decision
    chain = tuple(hop.agent for hop in delegation.path)
    return Holder(delegation.principal.owner_key, chain, decision.task_id, decision.txn)


def _is_plain(mark: EffectMark) -> bool:
    """Whether an act only adds an effect to what is known of its subject."""
    return not (mark.effect.is_claim or mark.effect.has_own_task or mark.continues_decision_id)


def _continues(batch: Batch, tenant: str, mark: EffectMark, decision: Decision) -> bool:
    """Whether the act goes on with an effect that is recorded, by the decision or the task that it continues."""
    effect = mark.effect
    continued = mark.continues_decision_id
    if continued and batch.run(_CONTINUE, (decision.id, effect.until, tenant, continued)):
        if effect.is_claim:  # also one that cools down: the answer came late
            batch.run(_HOLD_AGAIN, (effect.until, tenant, tenant, decision.id))
        return True
    return bool(effect.continues_task and batch.run(_REOPEN, (decision.id, tenant, effect.continues_task, effect.effect)))
