"""Requests that wait for claims: a release wakes them, and until then they write nothing."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from gateway.state.claims.claim import Claim, ClaimRequest, Holder
from gateway.state.claims.problems import ClaimDenied, TooManyClaims
from gateway.state.claims.store import HELD_MAX, SECOND, ClaimPage, SubjectClaims
from gateway.state.claims.tables import claims as table
from gateway.state.claims.waiting import ClaimWaiters
from gateway.state.subjects.pruning import KEPT_US
from gateway.state.tables import subjects
from gateway.storage.database import Database
from policies.ids import new_id, now_us
from tests.fakes.waiting import until
from tests.fakes.writers import CommitCounter, rollbacks_of_refusal
from tests.gateway.state.claims.test_claims import MAIL, SALES, SUPPORT, TestClock, Time, wanted

CARE = Holder("t|i|cem", ("care",), "t3", "x3")
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def begin_waiting(claims: SubjectClaims, waiters: ClaimWaiters, request: ClaimRequest, held: Claim) -> "asyncio.Task[Claim]":
    """A request that waits behind a claim. Returns when its first attempt is over."""
    waiting = asyncio.create_task(claims.take(request, wait_seconds=60))
    await until(lambda: any(each.wanted is request and each.is_waiting for each in waiters.waiting_on("t", held.subject)))
    return waiting


async def test_a_release_hands_the_claim_to_who_waits_longest(claims: SubjectClaims, waiters: ClaimWaiters, database: Database) -> None:
    held = await claims.take(wanted(SUPPORT))
    first = await begin_waiting(claims, waiters, wanted(SALES), held)
    last = await begin_waiting(claims, waiters, wanted(CARE), held)
    database.enlist(commits := CommitCounter())
    await claims.release("t", held.id, SUPPORT, held.token)
    given = await first
    assert (given.holder, commits.commits) == (SALES, 1)
    await claims.release("t", given.id, SALES, given.token)
    assert held.token < given.token < (await last).token


@sqlite_only
async def test_who_waits_in_vain_writes_nothing_meanwhile(database: Database) -> None:
    time = Time()
    claims = SubjectClaims(database, TestClock(time), new_id, time.sleep)
    await claims.take(wanted(SUPPORT))
    database.enlist(commits := CommitCounter())
    with pytest.raises(ClaimDenied):
        await claims.take(wanted(SALES), wait_seconds=30)
    assert len(time.waits) >= 30 and commits.commits <= 2


@sqlite_only
async def test_a_claim_that_is_handed_to_a_caller_who_has_gone_is_free_again(claims: SubjectClaims, waiters: ClaimWaiters) -> None:
    held = await claims.take(wanted(SUPPORT))
    gone = await begin_waiting(claims, waiters, wanted(SALES), held)
    releasing = asyncio.create_task(claims.release("t", held.id, SUPPORT, held.token))
    await asyncio.sleep(0)
    gone.cancel()
    await releasing
    assert (await claims.take(wanted(SUPPORT), wait_seconds=60)).token > held.token


async def test_one_that_was_woken_and_goes_wakes_the_next(waiters: ClaimWaiters) -> None:
    with waiters.join(wanted(SUPPORT)) as second:
        with waiters.join(wanted(SALES)):
            pass
        assert not second.is_woken
        with waiters.join(wanted(SALES, "*")) as first, waiters.join(wanted(SALES, "refund")) as other:
            waiters.wake("t", "customer:42", "refund")
            assert (first.is_woken, other.is_woken, second.is_woken) == (True, True, False)
        assert second.is_woken


def cooling(owner: str, number: int, own_id: str = "", decision_id: str = "d_x") -> dict[str, Any]:
    row = {"tenant": "t", "id": own_id or f"cl_{number}", "subject": f"customer:x{number}", "effect": MAIL, "owner": owner, "chain": "[]"}
    row |= dict.fromkeys(("agent", "task_id", "txn", "purpose", "ended_by"), "") | {"decision_id": decision_id, "ended_as": "released"}
    times = {"created": number, "until": now_us() - 1, "cool_down": 3600 * SECOND, "ended": now_us() - 1}
    return row | times | {"priority": 100, "token": 1, "state": "cooling"}


async def test_claims_that_cool_down_count_and_those_of_calls_do_not(claims: SubjectClaims, database: Database) -> None:
    asked = [cooling(SALES.owner, number) for number in range(HELD_MAX)]
    of_calls = [cooling(SUPPORT.owner, number, f"cl_c{number}", f"d_c{number}") for number in range(HELD_MAX)]
    await database.write(lambda batch: [batch.add(table, row) for row in (*asked, *of_calls)])
    with pytest.raises(TooManyClaims):
        await claims.take(wanted(SALES))
    assert (await claims.take(wanted(SUPPORT))).holder == SUPPORT


async def test_one_who_has_too_many_claims_repeats_no_commit_of_others(claims: SubjectClaims, database: Database) -> None:
    held = await claims.take(ClaimRequest("t", "customer:42", MAIL, SALES, "", 100, 60 * SECOND))
    await database.write(lambda batch: [batch.add(table, cooling(SALES.owner, number)) for number in range(HELD_MAX)])
    new = ClaimRequest("t", "customer:43", MAIL, SALES, "", 100, 60 * SECOND)
    assert await rollbacks_of_refusal(database, claims.take(new), TooManyClaims) == 0
    assert (await claims.list_open("t", ClaimPage(subject="customer:43")))[0] == []
    assert (await claims.take(wanted(SALES))).id == held.id


async def test_subjects_that_rest_are_deleted_and_their_tokens_still_grow(database: Database) -> None:
    time = Time(now_us())
    claims = SubjectClaims(database, TestClock(time), new_id, time.sleep)
    for _ in range(3):
        old = await claims.take(wanted(SUPPORT))
        await claims.release("t", old.id, SUPPORT, old.token)
    busy = await claims.take(ClaimRequest("t", "customer:43", MAIL, SUPPORT, "", 100, KEPT_US * 2))
    time.us += KEPT_US + SECOND
    for _ in range(3):
        await claims.prune()
    query = select(subjects.c.subject).where(subjects.c.tenant == "t")
    assert set(await database.read(lambda connection: connection.execute(query).scalars().all())) == {"", busy.subject}
    assert (await claims.take(wanted(SALES))).token > old.token
