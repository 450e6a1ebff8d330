"""Callers that leave while they take, wait for or release a claim: no claim stays with somebody who does not know of it."""

import asyncio
from contextlib import suppress

import pytest

from gateway.state.claims.claim import Claim
from gateway.state.claims.store import SubjectClaims
from gateway.state.claims.waiting import ClaimWaiters
from gateway.storage.database import Database
from tests.fakes.waiting import SECONDS, until
from tests.fakes.writers import held_writer
from tests.gateway.state.claims.test_claims import SALES, SUPPORT, wanted


async def begin_waiting(claims: SubjectClaims, waiters: ClaimWaiters) -> "asyncio.Task[Claim]":
    """A request that waits for a claim of another holder."""
    waiting = asyncio.create_task(claims.take(wanted(SALES), wait_seconds=60))
    await until(lambda: any(each.is_waiting for each in waiters.waiting_on("t", "customer:42")))
    return waiting


async def leave(working: "asyncio.Task[Claim]") -> None:
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working


async def take_at_last(claims: SubjectClaims) -> Claim:
    """A claim for which a request waits. Raises TimeoutError where it never gets it."""
    async with asyncio.timeout(SECONDS):
        return await claims.take(wanted(SUPPORT), wait_seconds=2 * SECONDS)


async def test_a_claim_whose_caller_leaves_during_the_commit_is_given_back(claims: SubjectClaims, database: Database) -> None:
    with held_writer(database):
        taking = asyncio.create_task(claims.take(wanted(SALES, lease=3600)))
        await asyncio.sleep(0)
        await leave(taking)
    assert (await take_at_last(claims)).holder == SUPPORT


async def test_asking_again_and_leaving_keeps_the_claim(claims: SubjectClaims, database: Database) -> None:
    held = await claims.take(wanted(SALES))
    with held_writer(database):
        taking = asyncio.create_task(claims.take(wanted(SALES)))
        await asyncio.sleep(0)
        await leave(taking)
    await database.write(lambda _batch: None)
    assert (await claims.renew("t", held.id, SALES, held.token, 1)).token == held.token


async def test_a_caller_who_leaves_while_it_releases_still_hands_over(
    claims: SubjectClaims, database: Database, waiters: ClaimWaiters
) -> None:
    held = await claims.take(wanted(SUPPORT))
    waiting = await begin_waiting(claims, waiters)
    with held_writer(database):
        releasing = asyncio.create_task(claims.release("t", held.id, SUPPORT, held.token))
        await asyncio.sleep(0)
        await leave(releasing)
    async with asyncio.timeout(SECONDS):
        assert (await waiting).holder == SALES


async def test_a_claim_handed_to_a_caller_as_it_leaves_is_given_back(claims: SubjectClaims, waiters: ClaimWaiters) -> None:
    held = await claims.take(wanted(SUPPORT))
    waiting = await begin_waiting(claims, waiters)
    (waiter,) = waiters.waiting_on("t", "customer:42")
    hand_over = waiter.hand_over

    def hand_over_and_cancel(claim: Claim) -> bool:
        handed = hand_over(claim)
        waiting.cancel()  # the request was woken, and has not run since
        return handed

    waiter.hand_over = hand_over_and_cancel  # type: ignore[method-assign]  # the moment between both
    await claims.release("t", held.id, SUPPORT, held.token)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await take_at_last(claims)).token > held.token
