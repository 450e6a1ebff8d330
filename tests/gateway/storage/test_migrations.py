"""Migrations of a database that an older version filled: what its rows say is what the newer code reads."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import IntegrityError

from gateway.server.composition.storage import check_revision
from gateway.storage.database import Database, engine_for
from gateway.storage.database_start import DatabaseUnusable
from gateway.storage.migrations import HEAD, USABLE_FROM, run
from gateway.storage.migrations.run import BrokenReferences, downgrade, upgrade
from gateway.storage.tables import schema_bounds, session_locks, task_events, task_prompts, tasks
from gateway.tasks.events.entries import event_from_row
from gateway.tasks.log import prompt_digest

BEFORE = "0012"
STATUS = '{"state":"TASK_STATE_COMPLETED","timestamp":"2026-11-22T00:00:00.000Z"}'
ARTIFACT = '{"artifactId":"a","parts":[{"text":"\\",\\"append\\":true}"}],"metadata":{"own":1}}'
MESSAGE = '{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x\\"append\\":true}"}]}'
OLD_EVENTS = (
    ("message", MESSAGE),
    ("status", STATUS),
    ("artifact", f'{ARTIFACT[:-1]},"lastChunk":false,"append":true}}'),
    ("artifact", f'{ARTIFACT[:-1]},"lastChunk":true,"append":false}}'),
    ("artifact", f'{{"updateMetadata":{{"n":1.0,"t":"}},{{"}},{ARTIFACT[1:-1]},"lastChunk":true,"append":true}}'),
    ("status", f'{{"metadata":{{"a":"\\u0000é"}},{STATUS[1:]}'),
    ("status", f'{STATUS[:-1]},"replied":true}}'),
    ("withheld", ARTIFACT),
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database of the older schema."""
    opened = engine_for(database_url)
    downgrade(opened, BEFORE)
    yield opened
    opened.dispose()


def insert(engine: Engine, table: str, **values: Any) -> None:
    marks = ",".join(f":{name}" for name in values)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {table} ({','.join(values)}) VALUES ({marks})"), values)


def insert_task(engine: Engine, task_id: str, state: str = "TASK_STATE_WORKING", vendor_ref: str = "{}") -> None:
    names = dict.fromkeys(("owner", "context_id", "agent", "parent_id", "txn", "decision_id", "grant_id", "runner", "request_digest"), "")
    numbers = dict.fromkeys(("last_seq", "created", "updated"), 1)
    insert(engine, "tasks", tenant="t", id=task_id, state=state, vendor_ref=vendor_ref, **names, **numbers)


def read(engine: Engine, query: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(query).all())


def test_the_marks_and_the_metadata_of_events_become_columns(engine: Engine) -> None:
    for seq, (kind, body) in enumerate(OLD_EVENTS):
        insert(engine, "task_events", tenant="t", task_id="t_1", seq=seq, at=1, kind=kind, body=body)
    upgrade(engine)
    events = [event_from_row(row) for row in read(engine, select(task_events).order_by(task_events.c.seq))]
    bodies = [MESSAGE, STATUS, ARTIFACT, ARTIFACT, ARTIFACT, STATUS, STATUS, ARTIFACT]
    assert [event.body for event in events] == bodies
    assert [(event.is_append, event.is_last_chunk) for event in events[2:5]] == [(True, False), (False, True), (True, True)]
    assert not any(event.is_append or event.is_last_chunk for event in (*events[:2], *events[5:]))
    assert [event.is_reply for event in events] == [False] * 6 + [True, False]
    assert [event.metadata for event in events] == [{}, {}, {}, {}, {"n": 1.0, "t": "},{"}, {"a": "\0é"}, {}, {}]
    assert events[4].metadata_json == '{"n":1.0,"t":"},{"}'


def test_the_older_schema_gets_its_events_back_as_they_were(engine: Engine) -> None:
    for seq, (kind, body) in enumerate(OLD_EVENTS):
        insert(engine, "task_events", tenant="t", task_id="t_1", seq=seq, at=1, kind=kind, body=body)
    upgrade(engine)
    downgrade(engine, BEFORE)
    assert [row.body for row in read(engine, text("SELECT body FROM task_events ORDER BY seq"))] == [body for _, body in OLD_EVENTS]


def test_tasks_name_the_connection_and_the_prompts_that_they_wait_for(engine: Engine) -> None:
    pending = '{"task_id":"k_1","extra":{"waits_for_consent":{"message":"{}","task_id":"","extra":{}}},"prompts":[{"id":"p1"},{"id":"p1"}]}'
    insert_task(engine, "t_1", "TASK_STATE_AUTH_REQUIRED", pending)
    insert_task(engine, "t_2", "TASK_STATE_INPUT_REQUIRED", '{"task_id":"own","prompts":[{"id":"p2"},{"id":"p3"}]}')
    insert_task(engine, "t_3", "TASK_STATE_FAILED", pending)
    insert_task(engine, "t_4")
    upgrade(engine)
    awaited = read(engine, select(tasks.c.id, tasks.c.awaited_connection_id).order_by(tasks.c.id))
    assert awaited == [("t_1", "k_1"), ("t_2", None), ("t_3", None), ("t_4", None)]
    prompts = set(read(engine, select(task_prompts.c.task_id, task_prompts.c.prompt_digest)))
    assert prompts == {("t_1", prompt_digest("p1")), ("t_2", prompt_digest("p2")), ("t_2", prompt_digest("p3"))}


def test_locks_of_sessions_leave_the_table_of_the_vault(engine: Engine) -> None:
    insert(engine, "processes", id="p_1", started=1, seen=1)
    for lock, holder in (("session", "p_1"), ("lost session", "p_gone"), ("credential", "v_1")):
        insert(engine, "vault_leases", id=lock, holder=holder, until=9)
    upgrade(engine)
    assert read(engine, select(session_locks)) == [("session", "p_1", 9)]
    assert read(engine, text("SELECT id FROM vault_leases")) == [("credential",)]


def insert_config(engine: Engine, task_id: str) -> None:
    texts = dict.fromkeys(("owner", "agent", "url", "secrets", "version"), "")
    insert(engine, "push_configs", tenant="t", task_id=task_id, id="w", cursor=0, live=1, created=1, **texts)
    texts = {"id": f"n_{task_id}", "state": "pending", "reason": ""}
    numbers = dict.fromkeys(("seq", "attempts", "next_at", "created", "updated"), 1)
    insert(engine, "deliveries", tenant="t", task_id=task_id, config_id="w", **texts, **numbers)


def test_rows_of_tasks_that_are_gone_do_not_stop_the_migration(engine: Engine) -> None:
    insert_task(engine, "t_1")
    for task_id in ("t_1", "gone"):
        insert_config(engine, task_id)
    upgrade(engine)
    for table in ("push_configs", "deliveries"):
        assert read(engine, text(f"SELECT task_id FROM {table}")) == [("t_1",)]


def test_what_belongs_to_a_task_is_deleted_with_it_and_needs_it(engine: Engine) -> None:
    insert_task(engine, "t_1")
    insert_config(engine, "t_1")
    upgrade(engine)
    with pytest.raises(IntegrityError):
        insert_config(engine, "gone")
    with engine.begin() as connection:
        connection.execute(tasks.delete())
    assert read(engine, text("SELECT count(*) FROM push_configs")) == read(engine, text("SELECT count(*) FROM deliveries")) == [(0,)]


def test_tables_that_are_made_anew_keep_their_partial_and_unique_indexes(engine: Engine) -> None:
    upgrade(engine)
    insert_task(engine, "t_1")
    insert_config(engine, "t_1")
    with pytest.raises(IntegrityError):  # two deliveries of one id
        insert(engine, "deliveries", tenant="t", task_id="t_1", config_id="w", seq=2, id="n_t_1", attempts=0, next_at=0, state="",
               reason="", created=1, updated=1)  # fmt: skip
    catalog = {"sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index'"}
    query = catalog.get(engine.dialect.name, "SELECT indexname, indexdef FROM pg_indexes")
    indexes = {name: str(definition) for name, definition in read(engine, text(query))}
    for name in ("push_configs_live", "deliveries_due", "deliveries_dead"):
        assert " WHERE " in indexes[name], name


def test_a_migration_that_breaks_a_reference_keeps_nothing_on_sqlite(sqlite_template: Any, tmp_path: Any) -> None:
    path = tmp_path / "interlock.db"
    path.write_bytes(sqlite_template.read_bytes())
    engine = engine_for(f"sqlite:///{path}")
    with pytest.raises(BrokenReferences, match="deliveries"), run._migrating(engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO deliveries VALUES ('t','gone','w',1,'n',0,0,'pending','',1,1)"  # as a migration could
        )
    assert read(engine, text("SELECT count(*) FROM deliveries")) == [(0,)]
    with pytest.raises(IntegrityError):  # the connection checks again
        insert_config(engine, "gone")
    engine.dispose()


def test_a_newer_schema_is_used_by_code_that_it_says_works_on_it(database_url: str) -> None:
    opened = Database(engine_for(database_url))
    with opened.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    upgrade_bound(opened, HEAD)
    assert check_revision(opened) == "9999"
    for bound in ("9998", ""):
        upgrade_bound(opened, bound)
        with pytest.raises(DatabaseUnusable, match="knows only revisions up to"):
            check_revision(opened)
    opened.close()


def upgrade_bound(opened: Database, usable_from: str) -> None:
    with opened.engine.begin() as connection:
        connection.execute(schema_bounds.delete())
        connection.execute(schema_bounds.insert().values(id=1, usable_from=usable_from))


def test_a_migration_says_which_older_code_works_on_the_schema(engine: Engine) -> None:
    upgrade(engine)
    assert read(engine, select(schema_bounds.c.usable_from)) == [(USABLE_FROM,)]
