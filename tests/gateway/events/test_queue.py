"""Whatever processes do, each event is started once, and those of one subject in the order in which they came."""

import asyncio
from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from gateway.events.queue import LEASE_US, RETRY_SECONDS, EventQueue, QueuedRow
from gateway.events.rules import EventRoutes, TriggerRule
from gateway.events.tables import event_starts
from gateway.storage.database import Batch, Database, engine_for
from gateway.workflows.cloud_events.delivery import EventStore
from gateway.workflows.runs.tables import workflow_events
from policies.audit.log import AuditLog
from policies.ids import new_id, now_us

RULE = TriggerRule("default", "t", "shop.*", "nightly", agent="sales")
ACT = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["acquire", "succeed", "fail", "crash"]), st.integers(0, 2)),
    st.tuples(st.just("pass"), st.integers(0, 4)),
)


class Story:
    """Two processes that share a queue, one of which may be slower than its lease."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = now_us()
        self.audit = AuditLog(new_id("a"), now_us)
        database.enlist(self.audit)
        self.events = EventStore(self.audit, EventRoutes([], [RULE]))
        self.queue = EventQueue(database, event_starts, "name", lambda: self.now, lambda: 0.5)
        self.held: list[QueuedRow] = []
        self.sent: set[int] = set()
        self.done: list[tuple[str, int]] = []  # subject and number of each start that was settled

    async def begin(self) -> None:
        def work(batch: Batch) -> None:
            self.audit.begin_chain(batch.connection, batch)
            for table in (event_starts, workflow_events):
                batch.connection.execute(delete(table))

        await self.database.write(work)

    async def act(self, name: str, number: int) -> None:
        if name == "send":
            self.sent.add(number)
            event = {"specversion": "1.0", "id": f"e{number}", "source": "s", "type": "shop.paid", "subject": f"c/{number % 2}"}
            await self.database.write(lambda batch: self.events.store(batch, "default", "default|i|a", event, now=self.now))
        elif name == "pass":
            self.now += (1, 2_000_000, LEASE_US + 1, RETRY_SECONDS[3] * 1_200_000, 2 * RETRY_SECONDS[-1] * 1_000_000)[number]
        elif name == "acquire":
            self.held += await self.queue.acquire(number + 1)
        elif self.held:
            await self.settle(self.held.pop(number % len(self.held)), name)

    async def settle(self, row: QueuedRow, how: str) -> None:
        if how == "fail":
            await self.queue.record_failure(row, "busy")
        elif how == "succeed" and await self.database.write(self.queue.finishing_write(row)):
            self.done.append((row.subject, row.seq))

    async def finish(self) -> None:
        """Starts what is left. Dead letters are retried, as operators do."""
        for _ in range(40):
            self.now += 2 * RETRY_SECONDS[-1] * 1_000_000
            for letter in (await self.queue.list_dead_letters("default", "", 100))[0]:
                await self.queue.retry("default", letter.id)
            rows = await self.queue.acquire(10)
            if not rows:
                return
            for row in rows:
                await self.settle(row, "succeed")


async def told(url: str, acts: list[tuple[str, int]]) -> tuple[set[int], list[tuple[str, int]]]:
    database = Database(engine_for(url))
    database.start()
    try:
        story = Story(database)
        await story.begin()
        for name, number in acts:
            await story.act(name, number)
        await story.finish()
        return story.sent, story.done
    finally:
        database.close()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(ACT, max_size=30))
def test_each_event_is_started_once_and_in_order_per_subject(database_url: str, acts: list[tuple[str, int]]) -> None:
    sent, done = asyncio.run(told(database_url, acts))
    assert len(done) == len(sent) == len(set(done))
    by_subject: dict[str, list[int]] = defaultdict(list)
    for subject, seq in done:
        by_subject[subject].append(seq)
    if not any(name == "fail" for name, _ in acts):  # a dead letter loses its place
        assert all(seqs == sorted(seqs) for seqs in by_subject.values())


def test_a_row_waits_for_the_one_before_it_of_its_subject(database_url: str) -> None:
    async def tell() -> list[Any]:
        database = Database(engine_for(database_url))
        database.start()
        try:
            story = Story(database)
            await story.begin()
            for number in (0, 2, 1):  # 0 and 2 have one subject
                await story.act("send", number)
            first = await story.queue.acquire(10)
            await story.queue.record_failure(first[0], "busy")
            return [[row.columns.event_id for row in first], [row.columns.event_id for row in await story.queue.acquire(10)]]
        finally:
            database.close()

    assert asyncio.run(tell()) == [["e0", "e1"], []]
