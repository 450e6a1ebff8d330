"""Messages between the gateway's processes: one message per address, readable any number of times until it expires."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection, func, select

from gateway.concurrency.background import run_in_background
from gateway.storage.database import Batch, Database, ReadFailed
from gateway.storage.tables import mail
from policies.cache import BoundedCache

POLL_SECONDS = 0.1  # between two polls for messages of other processes, while a caller waits
CACHED_MAX = 10_000
FOLDER_ROWS_MAX, FOLDER_BYTES_MAX = 64, 16 << 20  # bounds of the messages of one folder
log = structlog.get_logger()
_INSERT = "INSERT INTO mail (address, body, until) VALUES (?, ?, ?) ON CONFLICT (address) DO NOTHING"


class MailboxFull(Exception):
    """A folder has reached its bounds of messages or bytes."""


class ProcessMailbox:
    """Delivers messages within this process, and through the database to the processes that share it.

    Only the first message to an address counts. `now` returns microseconds since 1970.
    """

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now
        self._cache: BoundedCache[str, bytes] = BoundedCache(CACHED_MAX, lambda: now() / 1e6)
        self._waiters: defaultdict[str, set[asyncio.Future[bytes]]] = defaultdict(set)
        self._polling: asyncio.Task[None] | None = None

    @property
    def is_shared(self) -> bool:
        """Returns whether other processes may share the database."""
        return not self._database.is_sqlite

    async def send(self, address: str, body: bytes, seconds: float, folder: str = "") -> None:
        """Sends a message that can be read for `seconds`. Raises WriteFailed.

        Addresses of a `folder` begin with its name; a full folder raises MailboxFull.
        """
        if address in self._waiters:
            self._deliver(address, body, seconds)
        if self.is_shared:
            row = (address, body.decode(), self._now() + int(seconds * 1e6))
            if not await self._database.write(lambda batch: _insert(batch, row, folder)):
                raise MailboxFull

    async def has_message(self, address: str) -> bool:
        """Returns whether the address has a message in the database. Raises ReadFailed."""
        found = select(mail.c.until).where(mail.c.address == address)
        return await self._database.read(lambda connection: connection.execute(found).first()) is not None

    def delete(self, address: str) -> None:
        """Deletes the message of an address with a later commit."""
        self._database.post(lambda batch: batch.run("DELETE FROM mail WHERE address = ?", (address,)))

    async def wait_for(self, address: str, seconds: float) -> bytes:
        """Waits for the message of an address and returns it. Raises TimeoutError after `seconds`."""
        known = self._cache.get(address)
        if known is not None:
            return known
        letter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiters[address].add(letter)
        if self.is_shared and (self._polling is None or self._polling.done()):
            self._polling = run_in_background(self._poll(), "mail_poll_failed")
        try:
            return await asyncio.wait_for(letter, seconds)
        finally:
            self._waiters[address].discard(letter)
            if not self._waiters[address]:
                del self._waiters[address]

    async def sweep(self) -> None:
        """Deletes expired messages. The process calls it periodically."""
        if self.is_shared:
            now = self._now()
            await self._database.write(lambda batch: _delete_expired(batch, now))

    def _deliver(self, address: str, body: bytes, seconds: float) -> None:
        if self._cache.get(address) is not None:
            return
        self._cache.put(address, body, seconds)
        for letter in self._waiters.get(address, ()):
            if not letter.done():
                letter.set_result(body)

    async def _poll(self) -> None:
        """Polls the database as long as a caller waits."""
        while self._waiters:
            try:
                for address, body, until in await self._database.read(lambda connection: _read_letters(connection, list(self._waiters))):
                    self._deliver(address, body.encode(), (until - self._now()) / 1e6)
            except ReadFailed as error:  # the next poll may succeed; waiting callers have their own timeout
                log.info("mail_not_read", waiting=len(self._waiters), error=str(error))
            await asyncio.sleep(POLL_SECONDS)


def _read_letters(connection: Connection, addresses: Sequence[str]) -> list[tuple[str, str, int]]:
    rows = connection.execute(select(mail).where(mail.c.address.in_(addresses))).all()
    return [(row.address, row.body, row.until) for row in rows]


def _insert(batch: Batch, row: tuple[str, str, int], folder: str) -> bool:
    """Inserts the message. Returns False if the folder is full."""
    if folder:
        inside = (mail.c.address >= folder) & (mail.c.address < folder + "~")  # addresses are plain ASCII
        count, size = batch.connection.execute(select(func.count(), func.sum(func.length(mail.c.body))).where(inside)).one()
        if count >= FOLDER_ROWS_MAX or (size or 0) + len(row[1]) > FOLDER_BYTES_MAX:
            return False
    batch.run(_INSERT, row)
    return True


def _delete_expired(batch: Batch, now: int) -> None:
    batch.run("DELETE FROM mail WHERE until < ?", (now,))
