"""What befalls databases: they take no writes, they end sessions, they are gone for a while."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import event

from gateway.database import Database, NotKept


@asynccontextmanager
async def read_only(database: Database) -> AsyncIterator[None]:
    """The database takes no write within this block, as on a read-only disk or a standby server, but answers questions."""
    if not database.sqlite:
        setting = "SET SESSION default_transaction_read_only = {}"
        await database.write(lambda batch: batch.connection.exec_driver_sql(setting.format("on")) and None)
        yield
        await database.write(lambda batch: batch.connection.exec_driver_sql(setting.format("off")) and None)
        return
    shut = True

    def checked_out(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA query_only = {'on' if shut else 'off'}")

    event.listen(database.engine, "checkout", checked_out)
    with suppress(NotKept):  # a connection made just now is shut already
        await database.write(lambda batch: batch.connection.exec_driver_sql("PRAGMA query_only = on") and None)
    yield
    shut = False
