"""Work of one process at a time: an outage of the database is an error of the database, and loses the lock."""

import pytest
from sqlalchemy import text

from gateway.audit.retention.sole_process import SoleProcess
from gateway.storage.database import ReadFailed, engine_for

_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_a_database_that_is_away_fails_the_read() -> None:
    with pytest.raises(ReadFailed):
        async with SoleProcess(engine_for("postgresql://nobody@127.0.0.1:1/nothing")).alone():
            raise AssertionError("the work began without the database")


async def test_a_connection_that_is_lost_during_the_work_ends_it_without_another_error(postgres_url: str) -> None:
    engine, other = engine_for(postgres_url, "p_1"), engine_for(postgres_url, "p_2")
    sole = SoleProcess(engine)
    async with sole.alone() as is_alone:
        assert is_alone
        with other.begin() as connection:
            connection.execute(text(_END_SESSIONS))
    async with sole.alone() as is_alone, SoleProcess(other).alone() as is_other_alone:
        assert is_alone and not is_other_alone
    for each in (engine, other):
        each.dispose()
