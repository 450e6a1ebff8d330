"""A commit that breaks in the middle: whatever the database made of it, the chain goes on and nobody is told a lie."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import capture_logs

from gateway.storage.batch import Batch, BulkInsert, CommitUncertain, RowsByTarget, WriteFailed
from gateway.storage.database import engine_for
from gateway.storage.sqlite_insert import bulk_insert_for
from gateway.storage.tables import processes
from gateway.storage.transactions import TransactionRunner
from policies.audit.heads import HEAD_JWT_TYPE
from policies.audit.log import AuditLog
from policies.audit.proof import read_rows, verify_chains
from policies.tables import audit_records as audit_table
from tests.fakes.trail import Plain


class Faults:
    """What befalls the next commits and connections of an engine. `then` is what the database itself does with a commit that breaks."""

    def __init__(self, engine: Engine) -> None:
        self.commits: list[Callable[[Connection], object]] = []
        self.connects = 0  # so many of the next connections are refused
        event.listen(engine, "commit", self._commit)
        event.listen(engine, "do_connect", self._connect)

    def _commit(self, connection: Connection) -> None:
        if self.commits:
            self.commits.pop(0)(connection)
            raise OperationalError("COMMIT", None, ConnectionResetError("reset by peer"))

    def _connect(self, *_: Any) -> None:
        if self.connects:
            self.connects -= 1
            raise OperationalError("connect", None, ConnectionRefusedError())

    def intake_for(self, connection: Connection) -> BulkInsert | None:
        intake = bulk_insert_for(connection)
        return intake and Breaking(intake, self)


class Breaking:
    """An intake whose own commits break like any other."""

    def __init__(self, intake: BulkInsert, faults: Faults) -> None:
        self._intake = intake
        self._faults = faults

    def write(self, connection: Connection, rows: RowsByTarget) -> None:
        if connection.in_transaction() or not self._faults.commits:
            self._intake.write(connection, rows)
            return
        connection.begin()
        self._intake.write(connection, rows)
        try:
            connection.commit()
        except OperationalError as error:
            raise CommitUncertain from error


def kept(connection: Connection) -> None:
    connection.connection.commit()


def lost(connection: Connection) -> None:
    connection.connection.rollback()


class Kept:
    """A chain on a database whose commits can be broken."""

    def __init__(self, url: str) -> None:
        self.engine = engine_for(url)
        self.faults = Faults(self.engine)
        self.audit = AuditLog("a_1", lambda: 1)
        self.transactions = TransactionRunner(self.engine, self.faults.intake_for)
        self.transactions.participants.append(self.audit)
        self.told: dict[str, bool] = {}

    def record(self, name: str) -> Callable[[Batch], None]:
        return lambda batch: self.audit.record(batch, {"kind": "decision", "allowed": True, "tenant": "t", "decision_id": name, "txn": ""})

    def keep(self, *names: str) -> list[Exception | None]:
        outcomes = self.transactions.run_jobs([self.record(name) for name in names])
        self.told |= {name: outcome.error is None for name, outcome in zip(names, outcomes, strict=True)}
        return [outcome.error for outcome in outcomes]

    def there(self) -> list[str]:
        with self.engine.connect() as connection:
            rows = list(read_rows(connection.execution_options(interlock_read=True)))
        head = self.audit.head
        keys = Plain()
        proof = verify_chains(
            rows, [keys.sign({"chain": head.chain, "seq": head.seq, "hash": head.hash}, HEAD_JWT_TYPE)] if head.seq else [], keys
        )
        assert proof.is_sound, proof.flaws
        return [row["decision_id"] for row in rows]

    def close(self) -> None:
        self.transactions.drop_connection()
        self.engine.dispose()


@pytest.fixture
def chain(database_url: str) -> Iterator[Kept]:
    built = Kept(database_url)
    yield built
    built.close()


def test_a_commit_that_broke_but_was_kept_counts_as_kept(chain: Kept) -> None:
    chain.faults.commits = [kept]
    assert chain.keep("a", "b") == [None, None]
    assert chain.keep("c") == [None]
    assert chain.there() == ["a", "b", "c"]
    assert chain.audit.head.seq == 3


def test_a_commit_that_broke_and_was_lost_is_refused_and_leaves_no_gap(chain: Kept) -> None:
    chain.keep("a")
    chain.faults.commits = [lost]
    with capture_logs() as lines:
        assert all(isinstance(error, WriteFailed) for error in chain.keep("b", "c"))
    assert "reset by peer" in [line["reason"] for line in lines if line["event"] == "commit_broke"]
    assert chain.audit.head.seq == 1
    assert chain.keep("d") == [None]
    assert chain.there() == ["a", "d"]


def test_a_commit_in_doubt_is_settled_before_anything_is_appended(chain: Kept) -> None:
    chain.keep("first")
    chain.faults.commits = [kept]
    chain.faults.connects = 2
    assert isinstance(chain.keep("a")[0], WriteFailed)  # nobody could tell
    assert isinstance(chain.keep("b")[0], WriteFailed)
    assert chain.keep("c") == [None]
    assert chain.there() == ["first", "a", "c"]


def test_a_late_commit_believed_lost_does_not_stop_the_audit_chain(chain: Kept, database_url: str) -> None:
    """The server may still be at it when we ask: our record stands there the next time we look."""
    chain.keep("a")
    stolen: list[dict[str, Any]] = []

    def later(connection: Connection) -> None:
        stolen.extend(row for row in read_rows(connection) if row["decision_id"] == "b")
        connection.connection.rollback()

    chain.faults.commits = [later]
    assert isinstance(chain.keep("b")[0], WriteFailed)
    other = engine_for(database_url)
    with other.begin() as connection:
        connection.execute(audit_table.insert(), stolen)
    other.dispose()
    assert chain.keep("c") == [None]
    assert chain.there() == ["a", "b", "c"]


def test_a_record_that_is_not_ours_is_never_taken_for_the_head(chain: Kept, database_url: str) -> None:
    chain.keep("a")
    chain.faults.commits = [lost]
    chain.keep("lost")
    other = engine_for(database_url)
    with other.begin() as connection:
        connection.execute(
            text("INSERT INTO audit SELECT chain, 2, tenant, kind, at, 'forged', txn, body, hash, hash FROM audit WHERE seq = 1")
        )
    other.dispose()
    for name in "bcd":
        assert chain.keep(name) != [None]
    assert chain.audit.head.seq == 1


FAULT = st.sampled_from(["well", "kept", "lost", "kept unseen", "lost unseen", "culprit"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(FAULT, st.integers(1, 3)), max_size=12))
def test_whatever_breaks_the_chain_is_sound_and_what_was_acknowledged_is_there(
    sqlite_template: Path, tmp_path: Path, story: list[tuple[str, int]]
) -> None:
    path = tmp_path / "chain.db"
    for leftover in tmp_path.glob("chain.db*"):
        leftover.unlink()
    path.write_bytes(sqlite_template.read_bytes())
    chain = Kept(f"sqlite:///{path}")
    for number, (fault, size) in enumerate(story):
        names = [f"{number}.{index}" for index in range(size)]
        chain.faults.commits = {"kept": [kept], "kept unseen": [kept], "lost": [lost], "lost unseen": [lost]}.get(fault, [])
        chain.faults.connects = 1 if fault.endswith("unseen") else 0
        if fault == "culprit":
            outcomes = chain.transactions.run_jobs([*(chain.record(name) for name in names), _fail])
            assert [outcome.error is None for outcome in outcomes] == [True] * size + [False]
            chain.told |= dict.fromkeys(names, True)
        else:
            chain.keep(*names)
    chain.faults.commits, chain.faults.connects = [], 0
    assert chain.keep("last") == [None]
    there = chain.there()
    chain.close()
    assert len(there) == len(set(there))
    assert {name for name, well in chain.told.items() if well} <= set(there)


def _fail(batch: Batch) -> None:
    raise KeyError("culprit")


def _terminate_all(url: str) -> None:
    with _as_admin(url) as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        )


@contextmanager
def _as_admin(url: str) -> Iterator[Connection]:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_a_session_that_was_ended_while_idle_costs_nobody_a_write(postgres_url: str) -> None:
    chain = Kept(postgres_url)
    chain.keep("a")
    _terminate_all(postgres_url)
    assert chain.keep("b", "c") == [None, None]
    assert chain.there() == ["a", "b", "c"]
    chain.close()


def test_a_session_that_is_ended_within_a_transaction_costs_nobody_a_write(postgres_url: str) -> None:
    chain = Kept(postgres_url)
    ended: list[int] = []

    def work(batch: Batch) -> None:
        chain.record("a")(batch)
        if not ended:
            ended.append(1)
            _terminate_all(postgres_url)

    outcomes = chain.transactions.run_jobs([work, chain.record("b")])
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert chain.there() == ["a", "b"]
    chain.close()


def test_a_session_that_is_ended_at_its_commit_is_told_the_truth(postgres_url: str) -> None:
    chain = Kept(postgres_url)
    chain.keep("a")
    event.listen(chain.engine, "commit", lambda _: _terminate_all(postgres_url), once=True)
    refused = chain.keep("b")
    assert chain.keep("c") == [None]
    assert chain.there() == (["a", "b", "c"] if refused == [None] else ["a", "c"])
    chain.close()


def test_a_role_that_may_not_insert_is_refused_until_it_may(postgres_url: str) -> None:
    with _as_admin(postgres_url) as admin:
        admin.execute(text("DROP ROLE IF EXISTS limited"))
        admin.execute(text("CREATE ROLE limited LOGIN"))
        admin.execute(text("GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO limited"))
        chain = Kept(make_url(postgres_url).set(username="limited").render_as_string(hide_password=False))
        assert all(isinstance(error, WriteFailed) for error in chain.keep("a", "b", "c"))
        admin.execute(text("GRANT INSERT ON ALL TABLES IN SCHEMA public TO limited"))
        assert chain.keep("d") == [None]
        assert chain.there() == ["d"]
        chain.close()
        admin.execute(text("DROP OWNED BY limited"))
        admin.execute(text("DROP ROLE limited"))


def test_a_lock_of_others_is_not_waited_for_by_each_job_in_turn(postgres_url: str) -> None:
    chain = Kept(postgres_url)
    chain.keep("a")
    tried: list[str] = []

    def blocked(name: str) -> Callable[[Batch], None]:
        def work(batch: Batch) -> None:
            tried.append(name)
            batch.connection.execute(text("SET LOCAL lock_timeout = 50"))
            chain.record(name)(batch)
            batch.flush()

        return work

    with _as_admin(postgres_url) as admin:
        admin.execute(text("BEGIN"))
        admin.execute(text("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE"))
        outcomes = chain.transactions.run_jobs([blocked(f"x{index}") for index in range(20)])
        admin.execute(text("ROLLBACK"))
    assert all(isinstance(outcome.error, WriteFailed) for outcome in outcomes)
    assert len(tried) <= 3
    assert chain.keep("b") == [None]
    chain.close()


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "full.db"
    path.write_bytes(sqlite_template.read_bytes())
    chain = Kept(f"sqlite:///{path}")
    chain.transactions.run_jobs([lambda batch: batch.connection.exec_driver_sql("PRAGMA max_page_count = 1")])  # as many as there are
    names = [f"r{number}" for number in range(400)]
    for name in names:
        chain.keep(name)
    refused = [name for name in names if not chain.told[name]]
    assert refused and refused == names[-len(refused) :]
    chain.transactions.run_jobs([lambda batch: batch.connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")])
    assert chain.keep("after") == [None]
    assert chain.there() == [*(name for name in names if chain.told[name]), "after"]
    chain.close()


def test_a_trigger_that_refuses_is_no_duplicate(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "triggered.db"
    path.write_bytes(sqlite_template.read_bytes())
    chain = Kept(f"sqlite:///{path}")
    add = "CREATE TRIGGER shut BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'shut'); END"
    chain.transactions.run_jobs([lambda batch: batch.connection.exec_driver_sql(add)])
    assert all(isinstance(error, WriteFailed) for error in chain.keep("a"))
    chain.transactions.run_jobs([lambda batch: batch.connection.exec_driver_sql("DROP TRIGGER shut")])
    assert chain.keep("b") == [None]
    chain.close()


def test_a_duplicate_is_told_as_what_it_is(chain: Kept) -> None:
    row = {"id": "p_1", "started": 1, "seen": 1}
    outcomes = chain.transactions.run_jobs(
        [lambda batch: batch.add(processes, row), lambda batch: batch.add(processes, row), chain.record("a")]
    )
    assert [type(outcome.error) for outcome in outcomes] == [type(None), IntegrityError, type(None)]
    with chain.engine.connect() as connection:
        assert connection.execution_options(interlock_read=True).execute(select(processes.c.id)).scalars().all() == ["p_1"]
