"""How effects end: in which order rows are locked, what a call waits for, and what rulings learn of it."""

from typing import Any

import pytest
from sqlalchemy import Connection, update

from gateway.state.claims.claim import ClaimRequest
from gateway.state.effects.reading import EffectCaller
from gateway.state.effects.states import ASKED, DONE, FAILED
from gateway.state.effects.store import SubjectEffects
from gateway.state.effects.sweep import DUE, RELEASE_CLAIMS, RENEW_CLAIMS
from gateway.state.effects.tables import subject_effects
from gateway.storage.database import Database, WriteFailed
from policies.delegation.facts import EffectMark, SubjectEffect
from policies.ids import now_us
from tests.gateway.state.effects.test_facts import ANN, MAIL, NAMED, facts_of, grant, record

CLAIMING = SubjectEffect("customer:42", "outbound-email", is_claim=True, until=MAIL.until)
REFUND = SubjectEffect("customer:42", "refund", until=MAIL.until)
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class RecordingBatch:
    """A transaction with PostgreSQL that records its statements. Each changes one row."""

    is_sqlite = False

    def __init__(self) -> None:
        self.statements: list[str] = []

    def is_first_lock(self, _key: Any) -> bool:
        return True

    def run(self, statement: str, _values: tuple[Any, ...]) -> int:
        self.statements.append(statement)
        return 1


class AbsentDatabase:
    """A database that takes no write."""

    async def write(self, _work: Any) -> None:
        raise WriteFailed("the database can't be reached")


@pytest.fixture
def effects(database: Database) -> SubjectEffects:
    return SubjectEffects(database, now_us)


@pytest.mark.parametrize("state", [ASKED, DONE, FAILED])
def test_the_end_of_a_claimed_effect_locks_its_subject_before_the_claim(state: str) -> None:
    effects, batch = SubjectEffects(AbsentDatabase(), now_us), RecordingBatch()  # type: ignore[arg-type]  # is not used
    effects._clock.note(now_us())
    effects.end(batch, grant(EffectMark(1, CLAIMING)), state)  # type: ignore[arg-type]  # what an end uses of both
    changed = [statement.split()[2 if statement.startswith("INSERT") else 1] for statement in batch.statements]
    assert changed[0] == "subjects" and "claims" in changed


async def test_a_call_keeps_its_answer_while_the_database_is_away() -> None:
    effects = SubjectEffects(AbsentDatabase(), now_us)  # type: ignore[arg-type]  # what is used of it
    wanted = ClaimRequest("t", CLAIMING.subject, CLAIMING.effect, ANN.holder, "", 100, 1)
    with effects.claim_waiters.join(wanted) as waiter:
        await effects.settle(grant(EffectMark(1, CLAIMING)))  # type: ignore[arg-type]  # a grant for the store alone
        assert waiter.is_woken


async def test_what_an_answer_reads_without_its_own_effect_is_not_recalled(effects: SubjectEffects, database: Database) -> None:
    asking = grant(EffectMark((await facts_of(effects, NAMED)).version, REFUND))
    await database.write(lambda batch: effects.record(batch, asking, asking.effect_mark))  # type: ignore[arg-type]  # as above
    await database.write(lambda batch: batch.connection.execute(update(subject_effects).values(state="unknown")))
    version = (await facts_of(effects, NAMED)).version
    await effects.read(EffectCaller("t", ANN.holder, asking.decision.id), MAIL, NAMED)
    given = await record(effects, database, version)
    effects.end_later(given, DONE)  # type: ignore[arg-type]  # as above
    known = effects.recall(ANN, MAIL, NAMED)
    assert known is not None and "refund" in known.last_effects


@sqlite_only
@pytest.mark.parametrize(("statement", "count"), [(RENEW_CLAIMS, 5), (RELEASE_CLAIMS, 4), (DUE, 4)])
async def test_a_sweep_looks_only_at_effects_with_the_claims_it_sweeps(database: Database, statement: str, count: int) -> None:
    def plan(connection: Connection) -> str:
        return "\n".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * count))

    found = await database.read(plan)
    assert "USING INDEX subject_effects_claim (tenant=? AND claim_id=?)" in found.replace("COVERING ", ""), found
    assert "SCAN" not in found.replace("SCAN c USING INDEX claims_held", "").replace("USING INDEX subject_effects_open", "OPEN").replace(
        "SCAN subject_effects OPEN", ""
    ).replace("SCAN e OPEN", ""), found
