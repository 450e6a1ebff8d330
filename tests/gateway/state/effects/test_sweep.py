"""The periodic work on effects and claims: each change moves the version of its subject, and two processes never wait for each other."""

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from adapters.contract import VendorRef
from adapters.upstream.pending_consent import PENDING_KEY
from gateway.state.claims.claim import ClaimRequest
from gateway.state.claims.store import SECOND, SubjectClaims
from gateway.state.claims.tables import claims
from gateway.state.effects.states import DONE, FAILED, UNKNOWN
from gateway.state.effects.store import SubjectEffects
from gateway.state.effects.sweep import KEPT_DAYS, TASK_LEASE, _state_after
from gateway.state.effects.tables import subject_effects
from gateway.state.subjects.clock import SubjectClock
from gateway.storage.batch import Batch
from gateway.storage.database import Database, engine_for
from gateway.storage.tables import tasks
from policies.delegation.facts import EffectMark, SubjectEffect
from policies.ids import new_id, now_us
from tests.fakes.subject_versions import read_subject_version
from tests.fakes.timeouts import LONG_TIMEOUTS
from tests.fakes.waiting import SECONDS
from tests.gateway.state.claims.test_claims import SUPPORT
from tests.gateway.state.effects.test_facts import grant

LASTING = SubjectEffect("customer:42", "visit", is_claim=True, cool_down=3600, has_own_task=True)
postgres_only = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
def effects(database: Database) -> SubjectEffects:
    return SubjectEffects(database, now_us)


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Database]:
    """Another process of the same PostgreSQL."""
    opened = Database(engine_for(database_url), stale_seconds=LONG_TIMEOUTS.stale_epochs)
    opened.start()
    yield opened
    opened.close()


async def version_of(database: Database) -> int:
    return await database.read(lambda connection: read_subject_version(connection, "t", "customer:42"))


async def change(database: Database, statement: Any) -> None:
    await database.write(lambda batch: batch.connection.execute(statement))


async def begin(effects: SubjectEffects, effect: SubjectEffect = LASTING, task_id: str = "t_1") -> None:
    """An effect that lasts as long as a task."""
    given = grant(EffectMark(await version_of(effects.database), effect))
    given.decision.task_id = task_id
    await effects.database.write(lambda batch: effects.record(batch, given, given.effect_mark))  # type: ignore[arg-type]  # a grant for the store alone


async def states(database: Database) -> tuple[list[str], list[str]]:
    queries = (select(subject_effects.c.state), select(claims.c.state))
    found = await database.read(lambda connection: [connection.execute(query).scalars().all() for query in queries])
    return list(found[0]), list(found[1])


def task_row(state: str, vendor_ref: str = "") -> dict[str, Any]:
    row = dict.fromkeys(("owner", "context_id", "agent", "parent_id", "txn", "decision_id", "grant_id", "runner", "request_digest"), "")
    return row | {
        "tenant": "t",
        "id": "t_1",
        "state": state,
        "last_seq": 1,
        "vendor_ref": vendor_ref,
        "trace": "",
        "created": 1,
        "updated": 1,
    }


async def test_the_cool_down_of_a_task_that_ended_elsewhere_moves_the_version(effects: SubjectEffects, database: Database) -> None:
    await begin(effects)
    before = await version_of(database)
    await effects.sweep()
    assert await states(database) == ([UNKNOWN], ["cooling"])
    assert await version_of(database) == before + 1
    await effects.sweep()
    assert await version_of(database) == before + 1


async def test_a_lease_that_is_renewed_moves_the_version_and_only_once(effects: SubjectEffects, database: Database) -> None:
    await database.write(lambda batch: batch.add(tasks, task_row("TASK_STATE_WORKING")))
    await begin(effects)
    before = await version_of(database)
    await effects.sweep()
    assert await version_of(database) == before
    await change(database, update(claims).values(until=now_us() + TASK_LEASE // 3))
    await effects.sweep()
    await effects.sweep()
    assert await version_of(database) == before + 1
    (lease,) = await database.read(lambda connection: connection.execute(select(claims.c.until)).scalars().all())
    assert lease > now_us() + TASK_LEASE * 5 // 6


async def test_a_call_that_never_ended_moves_the_version_when_it_is_closed(effects: SubjectEffects, database: Database) -> None:
    await begin(effects, SubjectEffect("customer:42", "visit", until=now_us() - 1), "")
    before = await version_of(database)
    await effects.sweep()
    assert (await states(database))[0] == [UNKNOWN]
    assert await version_of(database) == before + 1


async def test_an_effect_that_is_too_old_to_count_goes_with_a_new_version(effects: SubjectEffects, database: Database) -> None:
    await begin(effects, SubjectEffect("customer:42", "visit", until=now_us() - 1), "")
    await effects.sweep()
    await change(database, update(subject_effects).values(at=now_us() - (KEPT_DAYS + 1) * 86_400 * SECOND))
    before = await version_of(database)
    await effects.sweep()
    assert await states(database) == ([], [])
    assert await version_of(database) == before + 1


async def test_a_task_that_waited_for_a_consent_leaves_no_cool_down(effects: SubjectEffects, database: Database) -> None:
    pending = {PENDING_KEY: {"message": "{}", "task_id": "", "extra": {}}}
    ref = msgspec.json.encode(VendorRef("", "consent-1", pending)).decode()
    await database.write(lambda batch: batch.add(tasks, task_row("TASK_STATE_CANCELED", ref)))
    await begin(effects)
    await effects.sweep()
    assert await states(database) == ([FAILED], ["ended"])


def test_a_task_whose_ids_are_unreadable_may_have_had_its_effect() -> None:
    rows = [
        SimpleNamespace(id="d_1", state=state, vendor_ref=ref) for state, ref in (("TASK_STATE_COMPLETED", ""), (None, None), ("", "{"))
    ]
    assert [_state_after(row) for row in rows] == [DONE, UNKNOWN, UNKNOWN]  # type: ignore[arg-type]  # rows of a query


async def test_claims_that_are_over_are_closed_under_a_new_version(database: Database) -> None:
    store = SubjectClaims(database, SubjectClock(now_us), new_id)
    await store.take(ClaimRequest("t", "customer:42", "visit", SUPPORT, "", 100, 3600 * SECOND))
    await change(database, update(claims).values(until=now_us() - 1))
    before = await version_of(database)
    await store.prune()
    assert (await states(database))[1] == ["ended"]
    assert await version_of(database) == before + 1


async def test_a_holder_that_renews_its_claim_moves_the_version(database: Database) -> None:
    store = SubjectClaims(database, SubjectClock(now_us), new_id)
    held = await store.take(ClaimRequest("t", "customer:42", "visit", SUPPORT, "", 100, 3600 * SECOND))
    before = await version_of(database)
    await store.renew("t", held.id, SUPPORT, held.token, 7200 * SECOND)
    assert await version_of(database) == before + 1


@postgres_only
async def test_a_sweep_leaves_the_work_to_a_process_that_is_at_it(database: Database, elsewhere: Database) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def work(_batch: Batch) -> str:
        has_begun.set()
        may_end.wait(SECONDS)
        return "done"

    first = asyncio.create_task(database.write_alone("effects", work))
    await asyncio.to_thread(has_begun.wait, SECONDS)
    assert await elsewhere.write_alone("effects", lambda _batch: "done") is None
    assert await elsewhere.write_alone("claims", lambda _batch: "done") == "done"
    may_end.set()
    assert await first == "done"
    assert await elsewhere.write_alone("effects", lambda _batch: "done") == "done"
