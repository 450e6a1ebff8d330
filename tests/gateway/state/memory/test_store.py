"""Facts in the database: found by words within their scope, counted, corrected, expired, and gone once they are deleted."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from gateway.state.memory.facts import (
    TEXT_MAX,
    Authorship,
    Correction,
    Fact,
    FactChanged,
    MemoryFull,
    MemoryScope,
    NewFact,
    WrittenByPerson,
)
from gateway.state.memory.quarantine import MemoryQuarantines
from gateway.state.memory.reading import FactPage, FactReader, FactView
from gateway.state.memory.store import FactStore, FactWriter
from gateway.state.memory.tables import memory_facts, memory_scopes
from gateway.storage.database import Database, engine_for
from gateway.storage.paging import BadCursor
from policies.audit.log import AuditLog
from policies.ids import new_id
from tests.fakes.timeouts import LONG_TIMEOUTS
from tests.fakes.writers import rollbacks_of_refusal

ALICE, BOB, FLOW = MemoryScope("t", "t|i|alice"), MemoryScope("t", "t|i|bob"), MemoryScope("t", workflow="flow")
BY_ALICE, BY_BOB = FactWriter(Authorship("t|i|alice")), FactWriter(Authorship("t|i|bob"))
BY_AGENT = FactWriter(Authorship("t|i|alice", "sales", "t_1"))
FACTS_MAX = 5


class Desk:
    """A store with a clock of its own, and what is found in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.time = 1_000
        self.audit = AuditLog(new_id("a"), lambda: self.time)
        database.enlist(self.audit)
        self.store = FactStore(database, self.audit, new_id=new_id, now=self.tick, facts_max=FACTS_MAX)
        self.reader = FactReader(database)
        self.quarantines = MemoryQuarantines(database, self.audit, self.tick)

    def tick(self) -> int:
        self.time += 1
        return self.time

    async def put(self, said: str, scope: MemoryScope = ALICE, writer: FactWriter = BY_ALICE, **more: Any) -> Fact:
        return (await self.store.put(scope, NewFact(said, **more), writer))[0]

    async def found(self, query: str = "", scope: MemoryScope = ALICE, clearance: int = 3, **page: Any) -> list[str]:
        facts, _ = await self.reader.read_page(FactView(scope, clearance, self.time), FactPage(query, **page))
        return [fact.text for fact in facts]

    async def count(self) -> int:
        return int(
            await self.database.read(lambda connection: connection.execute(select(func.count()).select_from(memory_facts)).scalar_one())
        )


@pytest.fixture
async def desk(database: Database) -> Desk:
    made = Desk(database)
    await database.write(lambda batch: made.audit.begin_chain(batch.connection, batch))
    return made


async def every_row(database: Database) -> str:
    """All rows of all tables of memory, and of the index's own tables."""
    names = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }

    def dump(connection: Any) -> str:
        tables = connection.execute(text(names[connection.dialect.name])).scalars().all()
        kept = [table for table in tables if table.startswith(("memory_", "audit"))]
        assert len(kept) >= 6
        return "\n".join(repr(connection.execute(text(f'SELECT * FROM "{table}"')).all()) for table in kept)

    return await database.read(dump)


async def test_rare_words_weigh_more_than_common_ones(desk: Desk) -> None:
    for each in ("the cat of the house", "the dog of the house", "the address of the customer"):
        await desk.put(each)
    assert (await desk.found("what is the address of the cat"))[:2] == ["the address of the customer", "the cat of the house"]


async def test_facts_of_others_change_no_order_of_mine(desk: Desk) -> None:  # attack MEM-01
    for each in ("red apple", "green apple", "red pear"):
        await desk.put(each)
    before = await desk.found("red apple green")
    for number in range(FACTS_MAX):
        await desk.put(f"green {number}", BOB, BY_BOB)
    assert await desk.found("red apple green") == before


async def test_secret_facts_of_mine_change_no_order_below_their_clearance(desk: Desk) -> None:
    await desk.put("plain red")
    await desk.put("plain green")
    before = await desk.found("red green", clearance=1)
    await desk.put("green secret", sensitivity=2)
    await desk.put("green secret too", sensitivity=3)
    assert await desk.found("red green", clearance=1) == before


SPELLINGS = {
    "Zürich": "ZURICH",
    "Straße 7": "strasse",
    "naïve café": "CAFE",
    "東京に住む": "京",
    "x" * 100: "x" * 70,
    "a_b": "b",
    "Привет мир": "МИР",
    "\ufb01ne": "fine",
}


async def test_words_are_found_in_other_spellings(desk: Desk) -> None:
    for number, (said, query) in enumerate(SPELLINGS.items()):
        scope = MemoryScope("t", f"t|i|{number}")
        await desk.put(said, scope)
        assert await desk.found(query, scope) == [said]
        assert await desk.found("other", scope) == []


async def test_pages_go_on_where_the_last_one_ended(desk: Desk) -> None:
    for each in ("tea one", "tea two", "tea three"):
        await desk.put(each)
    for query in ("", "tea one"):
        view, texts, cursor = FactView(ALICE, 3, desk.time), list[str](), ""
        while True:
            facts, following = await desk.reader.read_page(view, FactPage(query, cursor, 1))
            texts += [fact.text for fact in facts]
            if following is None:
                break
            cursor = following
        assert texts == await desk.found(query) and len(texts) == 3
        for wrong in ("x", "1", "-1.2.f_1", "9" * 30 + ".1.f"):
            with pytest.raises(BadCursor):
                await desk.reader.read_page(view, FactPage(query, wrong, 1))


async def test_a_scope_has_no_more_facts_than_its_bound(desk: Desk) -> None:
    for number in range(FACTS_MAX):
        await desk.put(f"fact {number}", expires=desk.time + 50 if number == 0 else None)
    with pytest.raises(MemoryFull):
        await desk.put("one more")
    assert (await desk.put("fact 1")).text == "fact 1"  # it is there already
    await desk.put("another scope", BOB, BY_BOB)
    desk.time += 100
    await desk.put("in the place of an expired one")
    with pytest.raises(MemoryFull):
        await desk.put("one more")
    assert await desk.count() == FACTS_MAX + 1


async def test_expired_facts_are_not_found_and_then_deleted(desk: Desk) -> None:
    await desk.put("short", expires=desk.time + 10)
    await desk.put("long", expires=desk.time + 1000)
    desk.time += 20
    assert await desk.found() == ["long"] and await desk.found("short") == []
    assert await desk.count() == 2
    await desk.store.sweep()
    assert await desk.count() == 1 and "short" not in await every_row(desk.database)


async def test_a_fact_has_a_bounded_history(desk: Desk) -> None:
    fact = await desk.put("version 1")
    for number in range(2, 101):
        fact = await desk.store.correct(fact, Correction(f"version {number}"), BY_ALICE)
    with pytest.raises(MemoryFull):
        await desk.store.correct(fact, Correction("version 101"), BY_ALICE)
    stored = await desk.reader.read_with_history(FactView(ALICE, 3, desk.time), fact.id)
    assert [old.version for old in stored.history] == list(range(99, 0, -1))


async def test_agents_never_lower_a_sensitivity_and_people_may(desk: Desk) -> None:
    fact = await desk.put("salary", writer=BY_AGENT, sensitivity=2)
    fact = await desk.store.correct(fact, Correction(sensitivity=0), BY_AGENT)
    assert fact.sensitivity == 2
    assert (await desk.store.correct(fact, Correction(sensitivity=0), BY_ALICE)).sensitivity == 0


async def test_erasing_a_person_takes_what_they_wrote_elsewhere(desk: Desk) -> None:  # attack MEM-01
    await desk.put("alice in the flow", FLOW, BY_ALICE)
    others = await desk.put("bob in the flow", FLOW, BY_BOB)
    await desk.store.correct(others, Correction("alice was here"), BY_ALICE)
    stays = await desk.put("bob alone", FLOW, BY_BOB)
    await desk.put("an agent for alice", writer=BY_AGENT)
    assert await desk.store.erase("t", "t|i|alice", BY_ALICE) == 3
    assert await desk.found(scope=FLOW) == [stays.text]
    rows = await every_row(desk.database)
    assert "in the flow" not in rows and "alice was here" not in rows
    scopes = await desk.database.read(lambda connection: connection.execute(select(memory_scopes.c.workflow, memory_scopes.c.facts)).all())
    assert scopes == [("flow", 1)]


async def test_a_quarantine_follows_the_source_of_the_current_version(desk: Desk) -> None:
    fact = await desk.put("right", writer=BY_AGENT)
    await desk.quarantines.hold("t", "sales", "t|i|admin", "")
    assert await desk.found() == [] == await desk.found("right")
    assert [each.is_quarantined async for each in desk.reader.export("t", "t|i|alice")] == [True]
    await desk.quarantines.release("t", "sales", "t|i|admin")
    await desk.store.correct(fact, Correction("right indeed"), BY_ALICE)
    await desk.quarantines.hold("t", "sales", "t|i|admin", "")
    assert await desk.found() == ["right indeed"]


async def test_an_export_has_many_pages(desk: Desk) -> None:
    for number in range(5):
        await desk.put(f"fact {number}")
    found = [each.fact.text async for each in desk.reader.export("t", "t|i|alice")]
    assert sorted(found) == [f"fact {number}" for number in range(5)]


async def test_two_processes_count_together(desk: Desk, database_url: str) -> None:
    if desk.database.is_sqlite:
        other = desk.database
    else:
        other = Database(engine_for(database_url), stale_seconds=LONG_TIMEOUTS.stale_epochs)
        other.start()
    audit = AuditLog(new_id("a"), lambda: 1)
    second = FactStore(other, audit if other is not desk.database else desk.audit, new_id=new_id, now=desk.tick, facts_max=FACTS_MAX)
    if other is not desk.database:
        other.enlist(audit)
        await other.write(lambda batch: audit.begin_chain(batch.connection, batch))
    stores = (desk.store, second)
    tries = [stores[number % 2].put(ALICE, NewFact(f"fact {number}"), BY_ALICE) for number in range(12)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(each, MemoryFull) for each in done) == 12 - FACTS_MAX
    assert await desk.count() == FACTS_MAX
    if other is not desk.database:
        other.close()


words = st.text("abcdefghäöüß東京'\"*:(){}^ ", max_size=30)
steps = st.lists(st.tuples(st.sampled_from(["put", "correct", "forget"]), st.integers(0, 9)), max_size=12)


@pytest.fixture
def run_desk(sqlite_template: Path, tmp_path: Path) -> Callable[[Any], None]:
    """Runs an example on a database of its own."""
    numbers = iter(range(10_000))

    def run(example: Any) -> None:
        path = tmp_path / f"{next(numbers)}.db"
        path.write_bytes(sqlite_template.read_bytes())

        async def act() -> None:
            database = Database(engine_for(f"sqlite:///{path}"), stale_seconds=LONG_TIMEOUTS.stale_epochs)
            database.start()
            try:
                made = Desk(database)
                await database.write(lambda batch: made.audit.begin_chain(batch.connection, batch))
                await example(made)
            finally:
                database.close()

        asyncio.run(act())
        path.unlink()

    return run


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example has a database of its own
@given(steps=steps)
def test_deleted_is_gone_whatever_happened_before(run_desk: Callable[[Any], None], steps: list[tuple[str, int]]) -> None:  # attack MEM-01
    async def example(desk: Desk) -> None:
        facts = dict[str, Fact]()
        await desk.put("bob keeps this", BOB, BY_BOB)
        for said, (step, number) in enumerate(steps):
            chosen = facts[sorted(facts)[number % len(facts)]] if facts else None
            if step == "put" and len(facts) < FACTS_MAX:
                made = await desk.put(f"secretword{said} alpha", writer=BY_AGENT if number % 2 else BY_ALICE)
                facts[made.id] = made
            elif step == "correct" and chosen is not None:
                facts[chosen.id] = await desk.store.correct(chosen, Correction(f"secretword{said} beta"), BY_ALICE)
            elif step == "forget" and chosen is not None:
                await desk.store.forget(chosen, BY_ALICE)
                del facts[chosen.id]
                assert chosen.text not in await every_row(desk.database)
        assert set(await desk.found()) == {fact.text for fact in facts.values()} == set(await desk.found("alpha beta"))
        assert await desk.store.erase("t", "t|i|alice", BY_ALICE) == len(facts)
        rows = await every_row(desk.database)
        assert "secretword" not in rows and "bob keeps this" in rows
        assert await desk.found("keeps", BOB) == ["bob keeps this"]

    run_desk(example)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example has a database of its own
@given(texts=st.lists(words, max_size=4), query=words)
def test_a_search_finds_exactly_the_facts_with_one_of_its_words(run_desk: Callable[[Any], None], texts: list[str], query: str) -> None:
    from gateway.state.memory.words import query_words, words_of

    async def example(desk: Desk) -> None:
        kept = [said for said in dict.fromkeys(each.strip() for each in texts) if said]
        for said in kept:
            await desk.put(said)
        wanted = set(query_words(query))
        if query.strip():
            assert sorted(await desk.found(query)) == sorted(said for said in kept if wanted & set(words_of(said)))

    run_desk(example)


async def test_the_longest_text_and_query_are_bounded(desk: Desk) -> None:
    longest = " ".join(f"{number:x}" for number in range(3000))[:TEXT_MAX].strip()
    await desk.put(longest)
    assert await desk.found(" ".join(f"{number:x}" for number in range(500))) == [longest]
    assert await desk.found(" ".join(["zz"] + ["yy"] * 500 + ["1"])) == [longest]
    assert await desk.found(" ".join(f"unknown{number}" for number in range(64)) + " 1") == []


async def test_the_last_of_64_words_counts_as_much_as_the_first(desk: Desk) -> None:
    for said in ("first 17 last", "first last", "first"):
        await desk.put(said)
    unknown = " ".join(f"unknown{number}" for number in range(61))
    assert await desk.found(f"first 17 {unknown} last") == ["first 17 last", "first last", "first"]
    assert await desk.found(f"last 17 {unknown} first") == ["first 17 last", "first last", "first"]


async def test_what_memory_refuses_repeats_no_commit_of_others(desk: Desk) -> None:
    facts = [await desk.put(f"fact {number}") for number in range(FACTS_MAX)]
    full = desk.store.put(ALICE, NewFact("one more"), BY_ALICE)
    assert await rollbacks_of_refusal(desk.database, full, MemoryFull) == 0
    stale = desk.store.correct(facts[0], Correction(text="new", version=7), BY_ALICE)
    assert await rollbacks_of_refusal(desk.database, stale, FactChanged) == 0
    of_person = desk.store.forget(facts[0], BY_AGENT)
    assert await rollbacks_of_refusal(desk.database, of_person, WrittenByPerson) == 0
    await desk.store.forget(facts[0], BY_ALICE)
    await desk.put("one more")  # what was refused is not counted
    with pytest.raises(MemoryFull):
        await desk.put("and another")
