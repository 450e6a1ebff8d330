"""Claims whose requests wait for ever, unless they are woken."""

import asyncio

import pytest

from gateway.state.claims.store import SubjectClaims
from gateway.state.claims.waiting import ClaimWaiters
from gateway.state.subjects.clock import SubjectClock
from gateway.storage.database import Database
from policies.ids import new_id, now_us


async def never(_seconds: float) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def waiters() -> ClaimWaiters:
    return ClaimWaiters()


@pytest.fixture
def claims(database: Database, waiters: ClaimWaiters) -> SubjectClaims:
    return SubjectClaims(database, SubjectClock(now_us), new_id, never, waiters=waiters)
