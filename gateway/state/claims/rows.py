"""Rows of claims: reads them, takes, renews and releases claims in a transaction that others may join."""

import json
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import Connection, Row

from gateway.state.claims.claim import Claim, ClaimRequest, Holder, claim_id_of
from gateway.state.claims.tables import COOLING, ENDED, HELD, claims
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.queries import run_query
from gateway.state.subjects.versions import lock_subject, raise_and_read_version, raise_subject_version
from gateway.storage.batch import Batch

EXPIRED: Final = "expired"
PRE_EMPTED: Final = "pre-empted"
RELEASED: Final = "released"
_END: Final = "UPDATE claims SET state = ?, ended = ?, ended_as = ?, ended_by = ? WHERE tenant = ? AND id = ? AND state <> 'ended'"
_RELEASE: Final = (
    "UPDATE claims SET state = ?, until = ?, cool_down = ?, ended = ?, ended_as = 'released' "
    "WHERE tenant = ? AND id = ? AND token = ? AND state = 'held' AND until > ?"
)
_OPEN: Final = "SELECT * FROM claims WHERE tenant = ? AND subject = ? AND state <> 'ended' ORDER BY token"
_FIND: Final = "SELECT * FROM claims WHERE tenant = ? AND id = ?"
_EXTEND: Final = "UPDATE claims SET until = ?, priority = ? WHERE tenant = ? AND id = ?"
_OVER: Final = (
    "SELECT DISTINCT tenant, subject FROM claims WHERE state <> 'ended' AND until + cool_down <= ? ORDER BY tenant, subject LIMIT ?"
)
_CLOSE: Final = (
    "UPDATE claims SET state = 'ended', ended = COALESCE(ended, until), "
    "ended_as = CASE WHEN ended_as = '' THEN 'expired' ELSE ended_as END "
    "WHERE tenant = ? AND subject = ? AND state <> 'ended' AND until + cool_down <= ?"
)
OVER_MAX: Final = 500  # subjects whose claims one sweep closes
_RENEW: Final = "UPDATE claims SET until = ? WHERE tenant = ? AND id = ? AND token = ? AND state = 'held' AND until > ?"


def take_claim(
    batch: Batch, wanted: ClaimRequest, claim_id: str, clock: SubjectClock, has_room: Callable[[], bool] = lambda: True
) -> Claim | list[Claim] | None:
    """Returns the claim, or the claims in its way. A claim of a lower priority is pre-empted: from then on its token is stale.

    A holder that has the claim already gets it with a longer lease, and an agent that the holder called gets it as it is. Claims of one
    subject are taken one after the other, in all processes. None: `has_room` says that there is no room for a new claim.
    """
    lock_subject(batch, wanted.tenant, wanted.subject)
    now = clock.estimate(batch)
    standing = read_open_claims(batch.connection, wanted.tenant, wanted.subject)
    found = [claim for claim in standing if not _end_if_over(batch, wanted, claim, now)]
    blocking = [claim for claim in found if claim.blocks(wanted.holder, wanted.effect, now)]
    if in_the_way := [claim for claim in blocking if claim.priority >= wanted.priority]:
        return in_the_way
    covering = (claim for claim in found if claim.is_held(now) and claim.effect == wanted.effect and claim not in blocking)
    own = next(covering, None)
    if own is None and not has_room():
        return None
    for claim in blocking:
        batch.run(_END, (ENDED, now, PRE_EMPTED, claim_id, wanted.tenant, claim.id))
    if own is not None:
        return _extend(batch, wanted, own, claim_id, now)
    return _insert(batch, wanted, claim_id, now)


def begin_cool_down(batch: Batch, wanted: ClaimRequest, claim_id: str, now: int) -> None:
    """Has others wait for the cool-down of work that had no claim of its own at its end.

    It stood under the holder's claim, or its claim was pre-empted or released meanwhile. Where it stands under the claim of a call that
    goes on, the cool-down of that call is enough. The caller of this function has locked the subject.
    """
    above = [
        claim for claim in read_open_claims(batch.connection, wanted.tenant, wanted.subject) if claim.is_of_call and claim.is_held(now)
    ]
    if any(each.effect == wanted.effect and each.holder.covers(wanted.holder) and each.cool_down >= wanted.cool_down for each in above):
        return
    _insert(batch, wanted, claim_id, now, state=COOLING)


def _end_if_over(batch: Batch, wanted: ClaimRequest, claim: Claim, now: int) -> bool:
    """Ends a claim whose lease is over, and returns whether it has no cool-down that still runs."""
    if claim.is_held(now):
        return False
    if claim.is_cooling(now):
        if claim.state == HELD:
            batch.run(_END, (COOLING, claim.until, EXPIRED, "", wanted.tenant, claim.id))
        return False
    ended = claim.until if claim.ended is None else claim.ended
    batch.run(_END, (ENDED, ended, claim.ended_as or EXPIRED, "", wanted.tenant, claim.id))
    return True


def _extend(batch: Batch, wanted: ClaimRequest, own: Claim, claim_id: str, now: int) -> Claim:
    """The claim of a holder that asks again: with the later end, and with the new priority, which others' rulings depend on.

    A call of the holder's that claims by its declared effect lowers no priority.
    """
    if own.holder != wanted.holder:
        return own
    is_call = bool(wanted.decision_id) and claim_id == claim_id_of(wanted.decision_id)
    priority = max(own.priority, wanted.priority) if is_call else wanted.priority
    longer = replace(own, until=max(own.until, now + wanted.lease), priority=priority)
    batch.run(_EXTEND, (longer.until, longer.priority, wanted.tenant, own.id))
    if longer != own:
        raise_subject_version(batch, wanted.tenant, wanted.subject)
    return longer


def _insert(batch: Batch, wanted: ClaimRequest, claim_id: str, now: int, state: str = HELD) -> Claim:
    """Stores the claim. Its token is the version of the subject that the claim makes, which only grows."""
    token, holder = raise_and_read_version(batch, wanted.tenant, wanted.subject), wanted.holder
    row = {
        "tenant": wanted.tenant,
        "id": claim_id,
        "subject": wanted.subject,
        "effect": wanted.effect,
        "owner": holder.owner,
        "agent": holder.agent,
        "chain": json.dumps(holder.chain),
        "task_id": holder.task_id,
        "txn": holder.txn,
        "decision_id": wanted.decision_id,
        "purpose": wanted.purpose,
        "priority": wanted.priority,
        "token": token,
        "created": now,
        "until": now + wanted.lease,
        "cool_down": wanted.cool_down,
        "state": state,
        "ended": None if state == HELD else now,
        "ended_as": "" if state == HELD else RELEASED,
        "ended_by": "",
    }
    batch.add(claims, row)
    batch.flush()
    return Claim(
        claim_id,
        wanted.subject,
        wanted.effect,
        holder,
        wanted.purpose,
        wanted.priority,
        token,
        now,
        now + wanted.lease,
        wanted.cool_down,
        state,
        decision_id=wanted.decision_id,
    )


def renew_claim(batch: Batch, tenant: str, claim: Claim, lease: int, clock: SubjectClock) -> Claim | None:
    """Gives a claim a lease from now on, and returns it; None for one that its holder no longer has."""
    lock_subject(batch, tenant, claim.subject)
    now = clock.estimate(batch)
    if batch.run(_RENEW, (now + lease, tenant, claim.id, claim.token, now)) != 1:
        return None
    raise_subject_version(batch, tenant, claim.subject)
    return replace(claim, until=now + lease)


def release_claim(batch: Batch, tenant: str, claim: Claim, cool_down: int | None, clock: SubjectClock) -> Claim | None:
    """Ends a claim, and returns it; None where the holder had lost it. Others wait for the cool-down: the one given, else the claim's."""
    lock_subject(batch, tenant, claim.subject)
    now = clock.estimate(batch)
    rest = claim.cool_down if cool_down is None else cool_down
    state = COOLING if rest else ENDED
    if batch.run(_RELEASE, (state, now, rest, now, tenant, claim.id, claim.token, now)) != 1:
        return None
    raise_subject_version(batch, tenant, claim.subject)
    return replace(claim, state=state, until=now, cool_down=rest, ended=now, ended_as=RELEASED)


def find_over(connection: Connection, now: int) -> list[tuple[str, str]]:
    """The subjects (tenant and name) that have claims whose lease and cool-down are over, OVER_MAX at most, in the order of their names."""
    return [(row.tenant, row.subject) for row in run_query(connection, _OVER, now, OVER_MAX)]


def close_over(batch: Batch, tenant: str, subject: str, clock: SubjectClock) -> None:
    """Ends the claims on a subject whose lease and cool-down are over."""
    lock_subject(batch, tenant, subject)
    if batch.run(_CLOSE, (tenant, subject, clock.estimate(batch))):
        raise_subject_version(batch, tenant, subject)


def read_open_claims(connection: Connection, tenant: str, subject: str) -> list[Claim]:
    """The claims on a subject that are held or cooling, or were when the gateway last looked; the oldest first."""
    return [claim_from_row(row) for row in run_query(connection, _OPEN, tenant, subject)]


def find_claim(connection: Connection, tenant: str, claim_id: str) -> Claim | None:
    return next(map(claim_from_row, run_query(connection, _FIND, tenant, claim_id)), None)


def find_in_the_way(connection: Connection, wanted: ClaimRequest, now: int) -> list[Claim]:
    """The claims that stand in the way of a request."""
    standing = read_open_claims(connection, wanted.tenant, wanted.subject)
    return [claim for claim in standing if claim.blocks(wanted.holder, wanted.effect, now) and claim.priority >= wanted.priority]


def claim_from_row(row: "Row[Any]") -> Claim:
    return Claim(
        id=row.id,
        subject=row.subject,
        effect=row.effect,
        holder=Holder(row.owner, tuple(json.loads(row.chain)), row.task_id, row.txn),
        purpose=row.purpose,
        priority=row.priority,
        token=row.token,
        created=row.created,
        until=row.until,
        cool_down=row.cool_down,
        state=row.state,
        ended=row.ended,
        ended_as=row.ended_as,
        ended_by=row.ended_by,
        decision_id=row.decision_id,
    )
