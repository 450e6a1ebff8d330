"""Tests get empty databases, whatever earlier tests did to theirs."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests.fakes.postgres_databases import PostgresDatabases


@pytest.fixture
def databases(postgres_template: str) -> PostgresDatabases:
    return PostgresDatabases(postgres_template)


def run(url: str, *statements: str) -> list[object]:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        found = results[-1].scalars().all() if results[-1].returns_rows else []
    engine.dispose()
    return list(found)


def test_a_database_is_lent_again_without_its_rows(databases: PostgresDatabases) -> None:
    with databases.lend() as first:
        run(first, "INSERT INTO processes (id, started, seen) VALUES ('p_1', 1, 1)", "UPDATE epochs SET value = 7")
    with databases.lend() as second:
        assert second == first
        assert run(second, "SELECT id FROM processes") == []
        assert set(run(second, "SELECT value FROM epochs")) == {0}


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE other (id text)",
        "DROP TABLE budgets",
        "ALTER TABLE tasks ADD COLUMN other text",
        "ALTER TABLE tasks DROP COLUMN trace",
        "ALTER TABLE deliveries DROP CONSTRAINT deliveries_config",
        "GRANT SELECT ON tasks TO PUBLIC",
        "DELETE FROM epochs WHERE name = 'kills'",
        "UPDATE alembic_version SET version_num = '0001'",
    ],
)
def test_a_changed_database_is_not_lent_again(databases: PostgresDatabases, change: str) -> None:
    with databases.lend() as first:
        run(first, change)
    with databases.lend() as second:
        assert second != first


def test_a_database_in_use_is_not_lent_again(databases: PostgresDatabases) -> None:
    engine = None
    with databases.lend() as first:
        engine = create_engine(make_url(first).set(drivername="postgresql+psycopg"))
        connection = engine.connect()
    with databases.lend() as second:
        assert second != first
    connection.close()
    engine.dispose()
