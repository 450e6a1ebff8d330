"""Takes, renews, releases and lists claims, each in a commit of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from gateway.events.own_types import CLAIM_CHANGED
from gateway.events.recorder import NO_EVENTS, EventRecorder
from gateway.state.claims.claim import Claim, ClaimRequest, Holder
from gateway.state.claims.problems import ClaimDenied, ClaimLost, CoolingDown, TooManyClaims, UnknownClaim
from gateway.state.claims.rows import PRE_EMPTED, claim_from_row, find_claim, release_claim, renew_claim, take_claim
from gateway.state.claims.tables import ENDED, HELD, claims
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.names import key_prefix_of
from gateway.storage.database import Batch, Database
from gateway.tasks.log import to_rfc3339

HELD_MAX: Final = 1000  # by one person and the agents that act for them
SECOND: Final = 1_000_000
LOOK_AGAIN_SECONDS: Final = 0.25  # between two attempts of a request that waits
KEPT_DAYS: Final = 30  # for which a claim that has ended can be looked up
PRUNED_MAX: Final = 1000  # in one commit


@dataclass(frozen=True, slots=True)
class ClaimPage:
    """Which claims a list shows: of one owner or of all, on one subject or on all, before a place in the order of their creation."""

    owner: str = ""
    subject: str = ""
    before: tuple[int, str] | None = None
    limit: int = 50


class SubjectClaims:
    """Claims of all tenants. `sleep` waits for seconds."""

    def __init__(
        self,
        database: Database,
        clock: SubjectClock,
        new_id: Callable[[str], str],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        recorder: EventRecorder = NO_EVENTS,
    ) -> None:
        self._database = database
        self.clock = clock
        self._new_id = new_id
        self._sleep = sleep
        self._recorder = recorder

    async def take(self, wanted: ClaimRequest, wait_seconds: float = 0.0, tell: Callable[[Claim], str] | None = None) -> Claim:
        """Returns the claim. While others have it, tries again for `wait_seconds`; then raises ClaimDenied or CoolingDown.

        `tell` names the holder in words, as far as the caller may know. Raises TooManyClaims.
        """
        left = wait_seconds
        while True:
            found, now = await self._database.write(lambda batch: self._take(batch, wanted))
            if isinstance(found, Claim):
                return found
            longest = max(found, key=lambda claim: claim.free_at)
            if left <= 0:
                raise refusal_of(longest, now, tell)
            pause = min(left, LOOK_AGAIN_SECONDS, max((longest.free_at - now) / SECOND, 0.01))
            await self._sleep(pause)
            left -= pause

    def _take(self, batch: Batch, wanted: ClaimRequest) -> tuple[Claim | list[Claim], int]:
        found = take_claim(batch, wanted, self._new_id("cl"), self.clock)
        now = self.clock.read(batch.connection)
        if isinstance(found, Claim):
            _check_count(batch.connection, wanted, now)
            _record_change(self._recorder, batch, wanted.tenant, found, "taken")
        return found, now

    async def find(self, tenant: str, claim_id: str) -> Claim:
        """Raises UnknownClaim."""
        found = await self._database.read(lambda connection: find_claim(connection, tenant, claim_id))
        if found is None:
            raise UnknownClaim
        return found

    async def renew(self, tenant: str, claim_id: str, holder: Holder, token: int, lease: int) -> Claim:
        """Returns the claim with a lease of `lease` microseconds from now on. Raises UnknownClaim and ClaimLost."""
        claim = await self._find_own(tenant, claim_id, holder, token)
        if not await self._database.write(lambda batch: renew_claim(batch, tenant, claim, lease, self.clock)):
            raise await self._loss_of(tenant, claim_id)
        return await self.find(tenant, claim_id)

    async def release(self, tenant: str, claim_id: str, holder: Holder, token: int, cool_down: int | None = None) -> Claim:
        """Ends the claim. Others wait for the cool-down, in microseconds: this one, or that of the claim.

        The cool-down of a call's claim is the operator's, so that its holder does not shorten it.
        Raises UnknownClaim and ClaimLost.
        """
        claim = await self._find_own(tenant, claim_id, holder, token)
        if claim.is_of_call and cool_down is not None:
            cool_down = max(cool_down, claim.cool_down)
        if not await self._database.write(lambda batch: self.release_in(batch, tenant, claim, cool_down)):
            raise await self._loss_of(tenant, claim_id)
        return await self.find(tenant, claim_id)

    def release_in(self, batch: Batch, tenant: str, claim: Claim, cool_down: int | None = None) -> bool:
        """Ends a claim in a commit of the caller's. Returns False where its holder had lost it."""
        if not release_claim(batch, tenant, claim, cool_down, self.clock):
            return False
        _record_change(self._recorder, batch, tenant, claim, "released")
        return True

    async def list_open(self, tenant: str, page: ClaimPage) -> tuple[list[Claim], int]:
        """The claims that are held or cooling, the newest first, and the time now."""

        def work(connection: Connection) -> tuple[list[Claim], int]:
            query = select(claims).where(claims.c.tenant == tenant, claims.c.state != ENDED)
            query = query.where(claims.c.owner == page.owner) if page.owner else query
            query = query.where(claims.c.subject == page.subject) if page.subject else query
            if page.before is not None:
                at, last = page.before
                query = query.where((claims.c.created < at) | ((claims.c.created == at) & (claims.c.id < last)))
            rows = connection.execute(query.order_by(claims.c.created.desc(), claims.c.id.desc()).limit(page.limit)).all()
            return [claim_from_row(row) for row in rows], self.clock.read(connection)

        return await self._database.read(work)

    async def prune(self) -> int:
        """Deletes claims that ended KEPT_DAYS ago, and closes those whose lease and cool-down are over. Returns how many it deleted."""
        return await self._database.write(self._prune)

    def _prune(self, batch: Batch) -> int:
        now = self.clock.read(batch.connection)
        batch.run(_CLOSE, (now,))
        return batch.run(_PRUNE, (now - KEPT_DAYS * 86_400 * SECOND, PRUNED_MAX))

    async def _find_own(self, tenant: str, claim_id: str, holder: Holder, token: int) -> Claim:
        """The claim, if this holder took it. Raises UnknownClaim, and ClaimLost for another token than the claim's."""
        claim = await self.find(tenant, claim_id)
        if claim.holder != holder:
            raise UnknownClaim
        if claim.token != token:
            raise ClaimLost(f"{token} is not the token of this claim on {claim.subject}; take the claim again.")
        return claim

    async def _loss_of(self, tenant: str, claim_id: str) -> ClaimLost:
        """The error for a holder whose claim has ended: why, and when."""
        claim = await self.find(tenant, claim_id)
        if claim.state == HELD:
            return ClaimLost(f"The claim on {claim.subject} expired at {to_rfc3339(claim.until)}; take it again.")
        why = "was pre-empted by a claim of a higher priority" if claim.ended_as == PRE_EMPTED else f"has ended ({claim.ended_as})"
        return ClaimLost(
            f"The claim on {claim.subject} {why} at {to_rfc3339(claim.ended or claim.until)}. Its token {claim.token} is stale."
        )


_CLOSE: Final = "UPDATE claims SET state = 'ended', ended = COALESCE(ended, until) WHERE state <> 'ended' AND until + cool_down <= ?"
_PRUNE: Final = "DELETE FROM claims WHERE (tenant, id) IN (SELECT tenant, id FROM claims WHERE ended <= ? AND state = 'ended' LIMIT ?)"


def refusal_of(claim: Claim, now: int, tell: Callable[[Claim], str] | None) -> ClaimDenied | CoolingDown:
    """The error for a claim that stands in the way: its holder, its purpose, its end, and what to do."""
    what = claim.subject if claim.effect == "*" else f"{claim.subject} ({claim.effect})"
    purpose = f", for: {claim.purpose}" if claim.purpose else ""
    seconds = max(1, -(-(claim.free_at - now) // SECOND))
    who = tell(claim) if tell is not None else "another holder"
    if claim.is_held(now):
        advice = f"Try again then, wait for it, or take it with a priority above {claim.priority}."
        return ClaimDenied(claim, f"{who} has claimed {what}{purpose}, until {to_rfc3339(claim.until)}. {advice}", seconds)
    advice = f"Try again then, or take the claim with a priority above {claim.priority}."
    return CoolingDown(claim, f"{what} rests after work of {who}{purpose}, until {to_rfc3339(claim.free_at)}. {advice}", seconds)


def _record_change(recorder: EventRecorder, batch: Batch, tenant: str, claim: Claim, what: str) -> None:
    """Records the event that a claim was taken or released. Its holder sees it, and callers that may read the claims of the subject."""
    key = f"{key_prefix_of(claim.subject)}claims"
    data = {"claim": claim.id, "subject": claim.subject, "effect": claim.effect, "change": what, "until": to_rfc3339(claim.until)}
    owner, txn = claim.holder.owner, claim.holder.txn
    recorder.record_event(batch, tenant, CLAIM_CHANGED, claim.subject, data, owner=owner, permission=f"state:read:{key}", txn=txn)


def _check_count(connection: Connection, wanted: ClaimRequest, now: int) -> None:
    """Raises TooManyClaims."""
    held = (claims.c.tenant == wanted.tenant) & (claims.c.owner == wanted.holder.owner) & (claims.c.state == HELD)
    if connection.execute(select(func.count()).select_from(claims).where(held, claims.c.until > now)).scalar_one() > HELD_MAX:
        raise TooManyClaims
