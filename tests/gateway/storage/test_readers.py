"""Reader threads keep their connections, and get over one that the server has closed."""

import pytest
from sqlalchemy import text

from gateway.storage.database import Database, ReadFailed
from gateway.storage.readers import READER_CACHE_KB, READER_THREADS, Rows


def first(rows: Rows) -> int:
    return int(rows[0][0])


async def test_a_query_sees_commits_and_begins_no_transaction(database: Database) -> None:
    for count in range(3):
        assert await database.query("SELECT COUNT(*) FROM mail WHERE body = ?", ("x",), first) == count
        await database.write(lambda batch, count=count: batch.run("INSERT INTO mail VALUES (?, 'x', 1)", (f"a{count}",)))
        assert await database.read(lambda connection: connection.execute(text("SELECT COUNT(*) FROM mail")).scalar()) == count + 1


async def test_a_query_that_fails_is_a_failed_read_and_leaves_the_connection(database: Database) -> None:
    for _ in range(2 * READER_THREADS):
        with pytest.raises(ReadFailed):
            await database.query("SELECT missing FROM mail", (), first)
    assert await database.query("SELECT 7", (), first) == 7


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_reads_go_on_after_the_server_has_closed_their_connections(database: Database) -> None:
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    for _ in range(READER_THREADS):
        await database.query("SELECT 1", (), first)
    with database.engine.connect() as connection:
        connection.execute(text(ours)).all()
    for number in range(2 * READER_THREADS):
        assert await database.query("SELECT CAST(? AS bigint)", (number,), first) == number
    assert await database.read(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_thread_that_reads_sqlite_caches_few_pages(database: Database) -> None:
    assert await database.query("PRAGMA cache_size", (), first) == -READER_CACHE_KB
