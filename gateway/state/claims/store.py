"""Takes, renews, releases and lists claims, each in a commit of its own."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select, select

from gateway.concurrency.background import run_in_background
from gateway.events.own_types import CLAIM_CHANGED
from gateway.events.recorder import NO_EVENTS, EventRecorder
from gateway.state.claims.claim import Claim, ClaimRequest, Holder
from gateway.state.claims.problems import ClaimDenied, ClaimLost, CoolingDown, TooManyClaims, UnknownClaim
from gateway.state.claims.rows import (
    PRE_EMPTED,
    claim_from_row,
    find_claim,
    find_in_the_way,
    release_claim,
    renew_claim,
    take_claim,
)
from gateway.state.claims.sweep import ClaimSweep
from gateway.state.claims.tables import ENDED, HELD, claims
from gateway.state.claims.waiting import ClaimWaiters, WaitingRequest
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.names import key_prefix_of
from gateway.state.subjects.queries import run_query
from gateway.storage.database import Batch, Database, WriteFailed
from gateway.tasks.log import to_rfc3339

HELD_MAX: Final = 1000  # by one person and the agents that act for them, those that cool down included
COUNTED_MAX: Final = 5000  # of a person's newest claims, those of calls included, are looked at
SECOND: Final = 1_000_000
LOOK_AGAIN_SECONDS: Final = 0.5  # after which a request that waits reads whether another process has released the claim


@dataclass(frozen=True, slots=True)
class ClaimPage:
    """Which claims a list shows: of one owner or of all, on one subject or on all, before a place in the order of their creation."""

    owner: str = ""
    subject: str = ""
    before: tuple[int, str] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class OwnClaim:
    """A claim as its holder names it, with its fencing token."""

    tenant: str
    id: str
    holder: Holder
    token: int


@dataclass(slots=True)
class _Successor:
    """The request that gets a claim in the commit of its release."""

    waiter: WaitingRequest | None = None
    claim: Claim | None = None


class SubjectClaims:
    """Claims of all tenants. `sleep` waits for seconds. Whatever else ends claims in this process wakes `waiters`."""

    def __init__(
        self,
        database: Database,
        clock: SubjectClock,
        new_id: Callable[[str], str],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        recorder: EventRecorder = NO_EVENTS,
        waiters: ClaimWaiters | None = None,
    ) -> None:
        self._database = database
        self._waiters = waiters or ClaimWaiters()
        self._sweep = ClaimSweep(database, clock)
        self.clock = clock
        self._new_id = new_id
        self._sleep = sleep
        self._recorder = recorder

    async def take(self, wanted: ClaimRequest, wait_seconds: float = 0.0, tell: Callable[[Claim], str] | None = None) -> Claim:
        """Returns the claim. While others have it, waits for `wait_seconds`; then raises ClaimDenied or CoolingDown.

        `tell` names the holder in words, as far as the caller may know. Raises TooManyClaims.
        """
        left = wait_seconds
        with self._waiters.join(wanted) as waiter, self._giving_back(waiter):
            while waiter.claim is None:
                with waiter.looking():
                    found, now = await self._attempt(waiter)
                if isinstance(found, Claim):
                    waiter.claim = found
                elif waiter.claim is None:  # no release has handed one over meanwhile
                    longest = max(found, key=lambda claim: claim.free_at)
                    if left <= 0:
                        raise refusal_of(longest, now, tell)
                    left -= await self._wait(waiter, left, longest.free_at - now)
            return waiter.claim

    @contextmanager
    def _giving_back(self, waiter: WaitingRequest) -> Iterator[None]:
        """Gives the claim back that a release has handed to a request, if the request ends without its answer."""
        try:
            yield
        except BaseException:
            if waiter.claim is not None:
                self._give_back(waiter.wanted.tenant, waiter.claim)
            raise

    def _give_back(self, tenant: str, claim: Claim) -> None:
        """Ends a claim whose holder has left before it learned of it, and wakes those that wait. Does not wait for the commit."""
        self._database.post(lambda batch: self.release_in(batch, tenant, claim, 0))
        run_in_background(_wake_after_commit(self._database, self._waiters, tenant, claim), "claim_waiters_not_woken")

    async def _attempt(self, waiter: WaitingRequest) -> tuple[Claim | list[Claim], int]:
        """The claim, or those in its way, and the time now. It reads first where other requests wait: a commit would be vain.

        A new claim whose caller leaves during the commit is given back. One that the holder had before stays. Raises TooManyClaims.
        """
        wanted, claim_id = waiter.wanted, self._new_id("cl")
        if self._waiters.has_others(waiter):
            blocking, now = await self._database.read(lambda connection: self._find_in_the_way(connection, wanted))
            if blocking:
                return blocking, now

        def give_back(result: tuple[Claim | list[Claim] | None, int]) -> None:
            if isinstance(result[0], Claim) and result[0].id == claim_id:
                self._give_back(wanted.tenant, result[0])

        found, now = await self._database.write(lambda batch: self._take(batch, wanted, claim_id), give_back)
        if found is None:
            raise TooManyClaims
        return found, now

    def _find_in_the_way(self, connection: Connection, wanted: ClaimRequest) -> tuple[list[Claim], int]:
        return find_in_the_way(connection, wanted, now := self.clock.read(connection)), now

    async def _wait(self, waiter: WaitingRequest, left: float, blocked: int) -> float:
        """Waits until a release wakes the request, until nothing stands in the way, or for `left` seconds. Returns how long.

        `blocked`: for how many microseconds it is blocked if nothing else happens. What other processes release is found by reading.
        """
        spent = 0.0
        while spent < left:
            began = time.monotonic()
            pause = min(left - spent, LOOK_AGAIN_SECONDS, max(blocked / SECOND - spent, 0.01))
            if await waiter.wait(self._sleep(pause)):
                return spent + time.monotonic() - began
            spent += pause
            blocking, _ = await self._database.read(lambda connection: self._find_in_the_way(connection, waiter.wanted))
            if not blocking:
                break
        return spent

    def _take(self, batch: Batch, wanted: ClaimRequest, claim_id: str) -> tuple[Claim | list[Claim] | None, int]:
        """Takes the claim in a commit, and returns the time too. None: its owner has too many; then nothing of others has changed."""

        def has_room() -> bool:
            return _count_claims(batch.connection, wanted, self.clock.estimate(batch)) < HELD_MAX

        found = take_claim(batch, wanted, claim_id, self.clock, has_room)
        if isinstance(found, Claim):
            _record_change(self._recorder, batch, wanted.tenant, found, "taken")
        return found, self.clock.estimate(batch)

    async def find(self, tenant: str, claim_id: str) -> Claim:
        """Raises UnknownClaim."""
        found = await self._database.read(lambda connection: find_claim(connection, tenant, claim_id))
        if found is None:
            raise UnknownClaim
        return found

    async def renew(self, tenant: str, claim_id: str, holder: Holder, token: int, lease: int) -> Claim:
        """Returns the claim with a lease of `lease` microseconds from now on. Raises UnknownClaim and ClaimLost."""

        def work(batch: Batch, claim: Claim) -> Claim | None:
            return renew_claim(batch, tenant, claim, lease, self.clock)

        return await self._change_own(OwnClaim(tenant, claim_id, holder, token), work)

    async def release(self, tenant: str, claim_id: str, holder: Holder, token: int, cool_down: int | None = None) -> Claim:
        """Ends the claim. Others wait for the cool-down, in microseconds: this one, or that of the claim.

        The cool-down of a call's claim is the operator's, so that its holder does not shorten it. The first request that waits in this
        process gets the claim in the same commit. Raises UnknownClaim and ClaimLost.
        """
        next_up = _Successor()

        def work(batch: Batch, claim: Claim) -> Claim | None:
            rest = max(cool_down, claim.cool_down) if claim.is_of_call and cool_down is not None else cool_down
            released = release_claim(batch, tenant, claim, rest, self.clock)
            if released is not None:
                _record_change(self._recorder, batch, tenant, claim, "released")
                next_up.waiter = self._waiters.first_for(claim, tenant)
                next_up.claim = self._hand_over(batch, next_up.waiter)
            return released

        def tell_waiters(released: Claim | Exception) -> None:
            if isinstance(released, Claim) and not self._tell_successor(next_up):
                self._waiters.wake(tenant, released.subject, released.effect)

        released = await self._change_own(OwnClaim(tenant, claim_id, holder, token), work, tell_waiters)
        tell_waiters(released)
        return released

    def _hand_over(self, batch: Batch, waiter: WaitingRequest | None) -> Claim | None:
        """The claim that a waiting request gets; None where another claim is in its way, or its owner has too many."""
        found = None if waiter is None else self._take(batch, waiter.wanted, self._new_id("cl"))[0]
        return found if isinstance(found, Claim) else None

    def _tell_successor(self, next_up: _Successor) -> bool:
        """Gives the waiting request the claim that the commit took for it, and returns whether there is one to go on without others."""
        if next_up.waiter is None or next_up.claim is None:
            return False
        if not next_up.waiter.hand_over(next_up.claim):
            self._give_back(next_up.waiter.wanted.tenant, next_up.claim)
        return True

    async def _change_own(
        self, own: OwnClaim, change: Callable[[Batch, Claim], Claim | None], on_abandoned: Callable[[Claim | Exception], None] | None = None
    ) -> Claim:
        """Returns what `change` makes of the claim, if this holder took it. Raises UnknownClaim and ClaimLost.

        One commit finds and changes the claim. A refusal is its result and no error, so that the writes of others with it stay.
        `on_abandoned` gets that result if the caller leaves during the commit.
        """

        def work(batch: Batch) -> Claim | UnknownClaim | ClaimLost:
            claim = find_claim(batch.connection, own.tenant, own.id)
            if claim is None or claim.holder != own.holder:
                return UnknownClaim()
            if claim.token != own.token:
                return ClaimLost(f"{own.token} is not the token of this claim on {claim.subject}; take the claim again.")
            return change(batch, claim) or _loss_of(find_claim(batch.connection, own.tenant, own.id) or claim)

        result = await self._database.write(work, on_abandoned)
        if isinstance(result, Exception):
            raise result
        return result

    def release_in(self, batch: Batch, tenant: str, claim: Claim, cool_down: int | None = None) -> bool:
        """Ends a claim in a commit of the caller's. Returns False where its holder had lost it. Requests that wait see it by reading."""
        if release_claim(batch, tenant, claim, cool_down, self.clock) is None:
            return False
        _record_change(self._recorder, batch, tenant, claim, "released")
        return True

    async def list_open(self, tenant: str, page: ClaimPage) -> tuple[list[Claim], int]:
        """The claims that are held or cooling, the newest first, and the time now."""

        def work(connection: Connection) -> tuple[list[Claim], int]:
            rows = connection.execute(_open_on(tenant, page)).all()
            return [claim_from_row(row) for row in rows], self.clock.read(connection)

        return await self._database.read(work)

    async def prune(self) -> int:
        """Closes claims that are over, and deletes old ones; see sweep.py. Returns how many it deleted."""
        return await self._sweep.run_once()


async def _wake_after_commit(database: Database, waiters: ClaimWaiters, tenant: str, claim: Claim) -> None:
    """Wakes requests that wait for the end of a claim, once what was posted before is committed."""
    with suppress(WriteFailed):  # then those that wait find the claim's end by reading
        await database.write(lambda _batch: None)
    waiters.wake(tenant, claim.subject, claim.effect)


def _open_on(tenant: str, page: ClaimPage) -> "Select[Any]":
    """The query for a page of the claims that are held or cooling, the newest first."""
    query = select(claims).where(claims.c.tenant == tenant, claims.c.state != ENDED)
    query = query.where(claims.c.owner == page.owner) if page.owner else query
    query = query.where(claims.c.subject == page.subject) if page.subject else query
    if page.before is not None:
        at, last = page.before
        query = query.where((claims.c.created < at) | ((claims.c.created == at) & (claims.c.id < last)))
    return query.order_by(claims.c.created.desc(), claims.c.id.desc()).limit(page.limit)


def _loss_of(claim: Claim) -> ClaimLost:
    """The error for a holder whose claim has ended: why, and when."""
    if claim.state == HELD:
        return ClaimLost(f"The claim on {claim.subject} expired at {to_rfc3339(claim.until)}; take it again.")
    why = "was pre-empted by a claim of a higher priority" if claim.ended_as == PRE_EMPTED else f"has ended ({claim.ended_as})"
    return ClaimLost(f"The claim on {claim.subject} {why} at {to_rfc3339(claim.ended or claim.until)}. Its token {claim.token} is stale.")


_COUNT: Final = (
    "SELECT COUNT(*) AS counted FROM (SELECT * FROM claims WHERE tenant = ? AND owner = ? AND state <> 'ended' "
    "ORDER BY created DESC LIMIT ?) AS own WHERE (state = 'held' AND until > ?) OR (until + cool_down > ? "
    "AND id NOT IN ('cl' || SUBSTR(decision_id, 2), 'cl' || SUBSTR(decision_id, 2) || 'c'))"
)


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


def _count_claims(connection: Connection, wanted: ClaimRequest, now: int) -> int:
    """The claims of the owner. One that its holder has asked for counts while it cools down too; that of a call counts while it is held."""
    (row,) = run_query(connection, _COUNT, wanted.tenant, wanted.holder.owner, COUNTED_MAX, now, now)
    return int(row.counted)
