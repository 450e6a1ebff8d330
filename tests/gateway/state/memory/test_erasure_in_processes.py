"""Erasing a person in one process while another one remembers something of them: no word of them stays behind."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from gateway.state.memory.facts import NewFact
from gateway.state.memory.store import FactStore
from gateway.storage.database import Batch, Database, engine_for
from policies.audit.log import AuditLog
from policies.ids import new_id
from tests.fakes.timeouts import LONG_TIMEOUTS
from tests.fakes.waiting import until
from tests.gateway.state.memory.test_store import ALICE, BY_ALICE, Desk

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
LEFT = text("SELECT (SELECT count(*) FROM memory_index) + (SELECT count(*) FROM memory_facts) + (SELECT count(*) FROM memory_scopes)")


class HeldDatabase:
    """A database of another process, whose transactions end only once they may."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.has_written, self.may_end = threading.Event(), threading.Event()

    async def write(self, work: Callable[[Batch], Any]) -> Any:
        def hold(batch: Batch) -> Any:
            result = work(batch)
            batch.flush()
            self.has_written.set()
            assert self.may_end.wait(timeout=30)
            return result

        return await self._database.write(hold)

    async def write_or_refuse(self, work: Callable[[Batch], Any], *_refusals: type[Exception]) -> Any:
        return await self.write(work)


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    opened = Database(engine_for(database_url), stale_seconds=LONG_TIMEOUTS.stale_epochs)
    opened.start()
    yield opened
    opened.close()


def count(engine: Engine, query: Any) -> int:
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


async def test_a_fact_that_is_put_beside_an_erasure_leaves_no_terms(database: Database, other: Database) -> None:
    desk, held, audit = Desk(database), HeldDatabase(other), AuditLog(new_id("a"), lambda: 1)
    await database.write(lambda batch: desk.audit.begin_chain(batch.connection, batch))
    await other.write(lambda batch: audit.begin_chain(batch.connection, batch))
    await desk.put("Likes tea")
    elsewhere = FactStore(held, audit, new_id=new_id, now=lambda: 1_500, facts_max=9)  # type: ignore[arg-type]  # what a store uses of it
    putting = asyncio.create_task(elsewhere.put(ALICE, NewFact("Moved to Zürich"), BY_ALICE))
    await asyncio.to_thread(held.has_written.wait, 30)
    erasing = asyncio.create_task(desk.store.erase("t", ALICE.owner, BY_ALICE))
    await until(lambda: count(database.engine, WAITING) > 0)
    held.may_end.set()
    await putting
    assert await erasing == 2
    assert count(database.engine, LEFT) == 0
