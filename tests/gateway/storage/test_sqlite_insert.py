"""Rows get into the database as they are given, all of them or none, and into SQLite by one statement for each table."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.exc import IntegrityError

from gateway.storage.batch import Batch, BulkInsert, GuardedUpdate, TransactionEnded, UnstorableValue, statement_for
from gateway.storage.database import engine_for
from gateway.storage.sqlite_insert import ROWS_MAX, bulk_insert_for
from gateway.storage.tables import processes, task_events
from gateway.storage.transactions import TransactionRunner
from policies.tables import grants

SEEN = GuardedUpdate(processes, ("seen",), ("id", "started"), KeyError)
STARTED = GuardedUpdate(processes, ("started",), ("id",), LookupError)


def event(body: str, seq: int = 1) -> dict[str, object]:
    marks = {"append": False, "last_chunk": False, "replied": False, "metadata": None}
    return {"tenant": "t", "task_id": "x", "seq": seq, "at": -(2**53), "kind": "status", "body": body, **marks}


def process(name: str) -> dict[str, object]:
    return {"id": name, "started": 1, "seen": 1}


def added(name: str) -> Callable[[Batch], None]:
    return lambda batch: batch.add(processes, process(name))


def moved(name: str, before: int) -> Callable[[Batch], None]:
    return lambda batch: batch.update(SEEN, (before + 1, name, 1))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    built = engine_for(database_url)
    yield built
    built.dispose()


@pytest.fixture
def transactions(engine: Engine) -> Iterator[TransactionRunner]:
    built = TransactionRunner(engine)
    yield built
    built.drop_connection()


def rows_of(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        reader = connection.execution_options(interlock_read=True)
        return [tuple(row) for row in reader.execute(select(processes).order_by(processes.c.id))]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=1, max_size=4))
@example(
    ['"', "\\", "\\u0000", "\\\\u0000", "\x01\x7f\u2028\n\r\t", "1", "1.0", "null", "true", "[1]", '{"a":"\\u0000"}', "\U0001f600", ""]
)
def test_what_is_kept_is_what_was_given(engine: Engine, transactions: TransactionRunner, texts: list[str]) -> None:
    def work(batch: Batch) -> None:
        for seq, text in enumerate(texts):
            batch.add(task_events, event(text, seq))

    def forget(batch: Batch) -> None:
        batch.connection.execute(delete(task_events))

    assert [outcome.error for outcome in transactions.run_jobs([work])] == [None]
    with engine.connect() as connection:
        query = select(task_events.c.body, task_events.c.at).order_by(task_events.c.seq)
        there = connection.execution_options(interlock_read=True).execute(query).all()
    assert [tuple(row) for row in there] == [(text, -(2**53)) for text in texts]
    assert transactions.run_jobs([forget])[0].error is None


@pytest.mark.parametrize("size", [60_000, 8_000_000])
def test_what_is_long_is_kept_as_it_is_too(engine: Engine, transactions: TransactionRunner, size: int) -> None:
    text = '"\\é' * (size // 3)
    jobs = [lambda batch: batch.add(task_events, event(text)), added("short")]
    assert [outcome.error for outcome in transactions.run_jobs(jobs)] == [None, None]
    assert [row[0] for row in rows_of(engine)] == ["short"]
    with engine.connect() as connection:
        assert connection.execution_options(interlock_read=True).execute(select(task_events.c.body)).scalar_one() == text
    assert isinstance(transactions.run_jobs([lambda batch: batch.add(task_events, event(text + "\0"))])[0].error, UnstorableValue)


@pytest.mark.parametrize("text", ["\0", "a\0b", "\\\0", "\\\\\0"])
def test_a_text_with_a_nul_is_refused_by_itself(transactions: TransactionRunner, text: str) -> None:
    outcomes = transactions.run_jobs([lambda batch: batch.add(task_events, event(text)), added("p")])
    assert [type(outcome.error) for outcome in outcomes] == [UnstorableValue, type(None)]


def test_nothing_is_as_good_as_a_value(engine: Engine, transactions: TransactionRunner) -> None:
    names = {column.name: "x" for column in grants.columns if not column.nullable}
    row = {**names, "depth_max": 1, "epoch": 1, "created": 1, "not_after": 1}
    assert transactions.run_jobs([lambda batch: batch.add(grants, row)])[0].error is None
    with engine.connect() as connection:
        kept = connection.execution_options(interlock_read=True).execute(select(grants)).one()
    assert (kept.id, kept.not_after, kept.revoked, kept.deadline) == ("x", 1, None, None)


def test_rows_that_are_not_as_their_keys_say_end_the_whole_and_tell_whose_they_are(engine: Engine, transactions: TransactionRunner) -> None:
    def begin(batch: Batch) -> None:
        for name in "abc":
            batch.add(processes, process(name))

    def move(batch: Batch) -> None:
        batch.update(STARTED, (7, "a"))
        batch.update(SEEN, (2, "b", 1))

    def miss(batch: Batch) -> None:
        batch.add(processes, process("d"))
        batch.update(SEEN, (3, "a", 7))
        batch.update(SEEN, (3, "c", 9))

    assert transactions.run_jobs([begin])[0].error is None
    outcomes = transactions.run_jobs([move, lambda batch: batch.update(STARTED, (8, "nobody")), miss])
    assert [type(outcome.error) for outcome in outcomes] == [type(None), LookupError, KeyError]
    assert rows_of(engine) == [("a", 7, 1), ("b", 1, 2), ("c", 1, 1)]


def test_what_has_to_be_seen_at_once_goes_into_the_same_transaction(engine: Engine, transactions: TransactionRunner) -> None:
    def work(batch: Batch) -> int:
        batch.add(processes, process("a"))
        seen = len(batch.connection.execute(select(processes)).all())
        batch.add(processes, process("b"))
        batch.update(SEEN, (5, "a", 1))
        return seen

    assert transactions.run_jobs([work])[0].result == 1
    assert rows_of(engine) == [("a", 1, 5), ("b", 1, 1)]


def test_a_rollback_takes_back_no_more_than_its_rows(engine: Engine, transactions: TransactionRunner) -> None:
    def broken(batch: Batch) -> None:
        batch.add(processes, process("lost"))
        batch.connection.execute(select(processes))
        raise ValueError

    for name in "ab":
        outcomes = transactions.run_jobs([broken, added(name)])
        assert [type(outcome.error) for outcome in outcomes] == [ValueError, type(None)]
    assert rows_of(engine) == [("a", 1, 1), ("b", 1, 1)]


@pytest.mark.parametrize("refused", [added("a"), lambda batch: batch.update(SEEN, (3, "nobody", 1))], ids=["duplicate", "missed"])
@pytest.mark.parametrize(
    "statement", ["", "INSERT INTO processes (id, started, seen) VALUES (?, 1, 1)"], ids=["rows-alone", "a-statement-too"]
)
def test_a_job_that_goes_on_after_its_rows_were_refused_writes_nothing(
    engine: Engine, transactions: TransactionRunner, refused: Callable[[Batch], None], statement: str
) -> None:
    def careless(batch: Batch) -> None:
        batch.add(processes, process("lost"))
        refused(batch)
        with suppress(IntegrityError, KeyError):
            batch.flush()
        if statement:
            batch.run(statement, ("alone",))

    assert transactions.run_jobs([added("a")])[0].error is None
    outcomes = transactions.run_jobs([added("b"), careless, added("c")])
    assert [type(outcome.error) for outcome in outcomes] == [type(None), TransactionEnded, type(None)]
    assert [row[0] for row in rows_of(engine)] == ["a", "b", "c"]


def test_refused_rows_take_back_the_statements_of_other_jobs_which_run_again(engine: Engine, transactions: TransactionRunner) -> None:
    def see(batch: Batch) -> None:
        batch.run("UPDATE processes SET seen = seen + 1 WHERE id = ?", ("a",))

    assert transactions.run_jobs([added("a")])[0].error is None
    for refused in (added("a"), lambda batch: batch.update(SEEN, (3, "nobody", 1))):
        outcomes = transactions.run_jobs([see, refused, see])
        assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert rows_of(engine) == [("a", 1, 5)]


def test_a_duplicate_among_others_is_the_only_one_that_is_refused(engine: Engine, transactions: TransactionRunner) -> None:
    outcomes = transactions.run_jobs([added(name) for name in "abac"])
    assert [isinstance(outcome.error, IntegrityError) for outcome in outcomes] == [False, False, True, False]
    assert [row[0] for row in rows_of(engine)] == ["a", "b", "c"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sqlite_gets_one_statement_for_each_table(engine: Engine) -> None:
    run: list[str] = []

    def traced(connection: Connection) -> BulkInsert | None:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(run.append)
        return bulk_insert_for(connection)

    def work(seq: int) -> Callable[[Batch], None]:
        return lambda batch: batch.add(task_events, event("{}", seq))

    transactions = TransactionRunner(engine, traced)
    assert all(outcome.error is None for outcome in transactions.run_jobs([added("a"), added("b")]))
    assert [statement.split()[0] for statement in run] == ["INSERT"]  # which commits itself
    run.clear()
    assert all(outcome.error is None for outcome in transactions.run_jobs([work(1), moved("a", 1), work(2), moved("b", 1)]))
    assert [statement.split()[0] for statement in run] == ["BEGIN", "UPDATE", "INSERT", "COMMIT"]
    assert [" OR ROLLBACK " in statement for statement in run] == [False, True, True, False]  # no copies of pages for each statement
    transactions.drop_connection()


@pytest.mark.parametrize("count", [1, ROWS_MAX, ROWS_MAX + 1, 5 * ROWS_MAX])
def test_rows_of_many_statements_are_all_kept_or_none(engine: Engine, transactions: TransactionRunner, count: int) -> None:
    names = [f"p{number:03}" for number in range(count)]

    def begin(batch: Batch) -> None:
        for name in names:
            batch.add(processes, process(name))

    def move(batch: Batch) -> None:
        for name in names:
            batch.update(SEEN, (2, name, 1))

    def miss_the_last(batch: Batch) -> None:
        move(batch)
        batch.update(SEEN, (3, "nobody", 1))

    outcomes = [transactions.run_jobs([job])[0].error for job in (begin, miss_the_last)]
    assert [type(error) for error in outcomes] == [type(None), KeyError]
    assert [row[2] for row in rows_of(engine)] == [1] * count
    assert transactions.run_jobs([move])[0].error is None
    assert [row[2] for row in rows_of(engine)] == [2] * count


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_update_finds_its_rows_by_the_key(engine: Engine) -> None:
    """A search through the table would make each commit as slow as there are tasks."""
    statement = statement_for(SEEN, 3)
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * 9).all()
    assert any("SEARCH processes USING" in row[3] for row in plan)
    assert not any("SCAN processes" in row[3] for row in plan)
