"""The last effects of a subject, as rulings read them: the newest of each name and agent, from a bounded part of the history."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from gateway.state.claims.claim import Holder
from gateway.state.effects.reading import EffectCaller, facts_query
from gateway.state.effects.store import SubjectEffects
from gateway.state.effects.tables import subject_effects
from gateway.storage.database import Batch, Database, engine_for
from policies.delegation.facts import FactNeeds, SubjectEffect, SubjectFacts
from policies.ids import now_us

CALLER = EffectCaller("t", Holder("t|i|ann", ("care", "mailer"), "t_own", "x_own"), "d_continued")
LAST = FactNeeds(last=True)
MAIL = SubjectEffect("customer:42", "outbound-email", until=now_us() + 3_600_000_000, continues_task="t_continued")
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def replace_all(batch: Batch, rows: list[dict[str, Any]]) -> None:
    batch.run("DELETE FROM subject_effects", ())
    for row in rows:
        batch.add(subject_effects, row)


def effect_row(number: int, **more: Any) -> dict[str, Any]:
    row = {"tenant": "t", "id": f"d_{number}", "subject": "customer:42", "effect": "outbound-email", "owner": "t|i|bob", "agent": "sales"}
    row |= dict.fromkeys(("purpose", "target", "claim_id", "txn", "task_id"), "") | {"chain": "[]", "own_task": 0, "state": "done"}
    return row | {"at": number, "until": 1} | more


async def read_facts(database: Database, caller: EffectCaller = CALLER) -> SubjectFacts:
    _, facts = await SubjectEffects(database, now_us).read(caller, MAIL, LAST)
    assert facts is not None
    return facts


EFFECTS = st.lists(
    st.fixed_dictionaries(
        {
            "effect": st.sampled_from(["call", "outbound-email", "visit"]),
            "agent": st.sampled_from(["", "care", "sales"]),
            "state": st.sampled_from(["done", "failed", "unknown"]),
            "own_task": st.integers(0, 1),
            "task_id": st.sampled_from(["t_own", "t_continued", "t_other"]),
            "txn": st.sampled_from(["x_own", "x_other"]),
            "chain": st.sampled_from(["[]", json.dumps(["care"])]),
        }
    ),
    max_size=12,
)


def counts(row: dict[str, Any]) -> bool:
    """Whether an effect is a last contact to the caller: it did not fail, and is not one that the caller helps with."""
    is_above = row["txn"] == "x_own" and (row["task_id"] == "t_own" or row["chain"] == json.dumps(["care"]))
    return row["state"] != "failed" and not (row["own_task"] and (row["task_id"] == "t_continued" or is_above))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EFFECTS)
def test_the_newest_of_each_name_and_agent_counts(database_url: str, effects: list[dict[str, Any]]) -> None:
    asyncio.run(compare_with_model(database_url, [effect_row(number, **each) for number, each in enumerate(effects, 1)]))


async def compare_with_model(database_url: str, rows: list[dict[str, Any]]) -> None:
    database = Database(engine_for(database_url))
    database.start()
    try:
        await database.write(lambda batch: replace_all(batch, rows))
        facts = await read_facts(database)
    finally:
        database.close()
    for found, name in ((facts.last_effects, "effect"), (facts.last_agents, "agent")):
        expected = {row[name]: row["at"] for row in rows if counts(row) and row[name]}
        assert {each: source.since for each, source in found.items()} == expected, name


async def fill(database: Database, count: int, **more: Any) -> None:
    rows = [effect_row(number, **more) for number in range(1, count + 1)]
    await database.write(lambda batch: replace_all(batch, rows))


async def count_steps(database: Database) -> int:
    """How many thousand instructions SQLite runs for the facts of a ruling."""
    statement, values = facts_query(True, CALLER, MAIL, LAST)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def work(connection: Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        driver.set_progress_handler(count, 100)
        connection.exec_driver_sql(statement, values).all()
        driver.set_progress_handler(None, 0)

    await database.read(work)
    return steps


@sqlite_only
@pytest.mark.parametrize("more", [{}, {"state": "failed"}, {"agent": ""}], ids=["done", "failed", "people"])
async def test_a_long_history_costs_a_ruling_no_more_than_a_short_one(database: Database, more: dict[str, Any]) -> None:
    await fill(database, 10, **more)
    short = await count_steps(database)
    await fill(database, 5000, **more)
    assert await count_steps(database) <= short + 2


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_postgresql_finds_a_rare_effect_by_its_name(database: Database) -> None:
    await fill(database, 5000)
    await database.write(lambda batch: batch.run("UPDATE subject_effects SET effect = 'visit', agent = 'rare' WHERE at = 1", ()))
    await database.write(lambda batch: batch.run("ANALYZE subject_effects", ()))
    statement, values = facts_query(False, CALLER, MAIL, LAST)

    def explain(connection: Connection) -> str:
        return "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement.replace('?', '%s')}", values).scalars().all())

    plan = await database.read(explain)
    assert "subject_effects_last" in plan and "subject_effects_agent" in plan
    assert "Seq Scan on subject_effects" not in plan and "subject_effects_at" not in plan and "subject_effects_old" not in plan, plan
