"""How long a search over 100,000 facts takes, on both databases: `python -m tests.bench.memory_search [FACTS_PER_PERSON]`."""

import asyncio
import random
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from sqlalchemy import text

from gateway.state.memory.facts import MemoryScope
from gateway.state.memory.index import add_terms
from gateway.state.memory.reading import FactPage, FactReader, FactView
from gateway.state.memory.tables import memory_facts, memory_scopes
from gateway.state.memory.words import terms_of, words_of
from gateway.storage.database import Batch, Database, engine_for
from gateway.storage.migrations.run import upgrade
from tests.chaos.databases import postgres

FACTS = 100_000
PER_PERSON = 2000  # the most that the settings let a person have
SEARCHES = 300
WORDS = 5000
CHOICE = random.Random(7)


def sentence(count: int) -> str:
    """Words as often as in a language: a few are in most sentences."""
    return " ".join(f"word{min(int(CHOICE.paretovariate(0.6)), WORDS)}" for _ in range(count))


def fill(batch: Batch, person: int, count: int) -> None:
    scope, salt = MemoryScope("t", f"t|i|{person}"), secrets.token_hex(16)
    batch.add(memory_scopes, {"tenant": "t", "owner": scope.owner, "workflow": "", "salt": salt, "facts": count})
    texts = {person * count + number: sentence(25) for number in range(count)}
    said = {"tenant": "t", "owner": scope.owner, "workflow": "", "version": 1, "digest": "", "sensitivity": 0, "agent": "", "task_id": ""}
    for number, each in texts.items():
        row = {**said, "id": f"f_{number}", "number": number, "text": each, "author": scope.owner, "created": number, "updated": number}
        batch.add(memory_facts, row)
    for number, each in texts.items():
        add_terms(batch, number, terms_of(words_of(each), salt))


@dataclass(frozen=True, slots=True)
class SearchTimes:
    """Milliseconds of one search, and its CPU in this process (PostgreSQL's own is not in it)."""

    p50_ms: float
    p99_ms: float
    cpu_us: float


async def measure_search(url: str, facts: int = FACTS, per_person: int = PER_PERSON) -> SearchTimes:
    """Fills an empty database with facts, and searches in those of one person after the other."""
    engine = engine_for(url)
    upgrade(engine)
    database = Database(engine)
    database.start()
    try:
        await fill_all(database, facts, per_person)
        took, cpu = list[float](), time.process_time()
        for _ in range(SEARCHES):
            took.append(await search_once(FactReader(database), CHOICE.randrange(facts // per_person)))
        cuts = quantiles(took, n=100)
        return SearchTimes(round(cuts[49], 3), round(cuts[98], 3), round((time.process_time() - cpu) / SEARCHES * 1e6, 1))
    finally:
        database.close()


async def fill_all(database: Database, facts: int, per_person: int) -> None:
    for person in range(facts // per_person):
        await database.write(lambda batch, person=person: fill(batch, person, per_person))
    if not database.is_sqlite:
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))


async def search_once(reader: FactReader, person: int) -> float:
    """The milliseconds of a search for four words in the facts of a person."""
    view, words = FactView(MemoryScope("t", f"t|i|{person}"), 3, FACTS), sentence(4)
    began = time.perf_counter()
    found, _ = await reader.read_page(view, FactPage(words, limit=10))
    took = (time.perf_counter() - began) * 1000
    assert found
    return took


async def main(per_person: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, postgres(Path(folder) / "server") as server:
        for name, url in (("sqlite", f"sqlite:///{folder}/bench.db"), ("postgresql", server.url)):
            times = await measure_search(url, FACTS, per_person)
            print(f"{name:10} {FACTS} facts, {per_person} of each person: p50 {times.p50_ms:.1f} ms, p99 {times.p99_ms:.1f} ms")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PER_PERSON))
