"""Rows of authority in memory: what is asked of the database is answered at once, in the thread that asks."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, create_engine, select
from sqlalchemy.pool import StaticPool

from gateway.storage.batch import Batch
from gateway.storage.sqlite_insert import bulk_insert_for
from policies.tables import metadata

T = TypeVar("T")


class Rows:
    """A reader and a writer; `reads` counts what was read. `meanwhile` is what happens once while the next answer is on its way."""

    def __init__(self) -> None:
        self._engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False, "isolation_level": None})
        metadata.create_all(self._engine)
        self.reads = 0
        self.meanwhile: Callable[[], Any] | None = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        self.reads += 1
        with self._engine.connect() as connection:
            answer = work(connection)
        if (happens := self.meanwhile) is not None:
            self.meanwhile = None
            happens()
        return answer

    def keep(self, work: Callable[[Batch], T]) -> T:
        with self._engine.connect() as connection:
            batch = Batch(connection, bulk_insert_for(connection))
            answer = work(batch)
            batch.commit()
            return answer

    async def write(self, work: Callable[[Batch], T]) -> T:
        return self.keep(work)

    def all(self, table: Table) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(table))]
