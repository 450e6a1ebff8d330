"""What befalls databases: they take no writes, they end sessions, they are gone for a while."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, event

from gateway.storage.database import Batch, Database, ReadFailed, WriteFailed
from gateway.storage.readers import Rows

T = TypeVar("T")
Fate = Literal["kept", "refused", "kept unseen"]


class Shaky:
    """A database whose next writes and reads go as `writes` and `reads` say; afterwards it is well."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_sqlite = database.is_sqlite
        self.writes: list[Fate] = []
        self.reads = 0  # so many are not answered
        self.begun = 0  # writes that were handed over

    async def write(self, work: Callable[[Batch], T], on_abandoned: Callable[[T], object] | None = None) -> T:
        fate = self.writes.pop(0) if self.writes else "kept"
        if fate == "refused":
            raise WriteFailed
        self.begun += 1
        result = await self._database.write(work, on_abandoned)
        if fate == "kept unseen":
            raise WriteFailed
        return result

    async def read(self, work: Callable[[Connection], T]) -> T:
        if self.reads:
            self.reads -= 1
            raise ReadFailed
        return await self._database.read(work)

    async def query(self, statement: str, values: tuple[Any, ...], convert: Callable[[Rows], T]) -> T:
        if self.reads:
            self.reads -= 1
            raise ReadFailed
        return await self._database.query(statement, values, convert)

    def post(self, work: Callable[[Batch], Any]) -> None:
        self._database.post(work)


@asynccontextmanager
async def read_only(database: Database) -> AsyncIterator[None]:
    """The database takes no write within this block, as on a read-only disk or a standby server, but answers questions."""
    if not database.is_sqlite:
        setting = "SET SESSION default_transaction_read_only = {}"
        await database.write(lambda batch: batch.connection.exec_driver_sql(setting.format("on")) and None)
        yield
        await database.write(lambda batch: batch.connection.exec_driver_sql(setting.format("off")) and None)
        return
    shut = True

    def checked_out(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA query_only = {'on' if shut else 'off'}")

    event.listen(database.engine, "checkout", checked_out)
    with suppress(WriteFailed):  # a connection made just now is shut already
        await database.write(lambda batch: batch.connection.exec_driver_sql("PRAGMA query_only = on") and None)
    yield
    shut = False
