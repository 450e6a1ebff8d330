"""Mail between the gateway's processes: one letter per address, read as often as anybody asks until its time is over."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection, func, select

from gateway.background import run_in_background
from gateway.storage.database import Batch, Database, ReadFailed
from gateway.storage.tables import mail
from policies.cache import BoundedCache

POLL_SECONDS = 0.1  # between two looks for letters from other processes, while anybody waits
CACHED_MAX = 10_000
FOLDER_ROWS_MAX, FOLDER_BYTES_MAX = 64, 16 << 20  # of the letters to one session
log = structlog.get_logger()
_INSERT = "INSERT INTO mail (address, body, until) VALUES (?, ?, ?) ON CONFLICT (address) DO NOTHING"


class MailboxFull(Exception):
    """As much waits for a session's clients, or for other processes on their behalf, as may."""


class ProcessMailbox:
    """Where processes share a database, letters go through it; one process alone keeps those that somebody waits for.

    The first letter to an address is the only one. `now` counts microseconds since 1970.
    """

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now
        self._cache: BoundedCache[str, bytes] = BoundedCache(CACHED_MAX, lambda: now() / 1e6)
        self._waiters: defaultdict[str, set[asyncio.Future[bytes]]] = defaultdict(set)
        self._polling: asyncio.Task[None] | None = None

    @property
    def is_shared(self) -> bool:
        """Whether there may be other processes."""
        return not self._database.is_sqlite

    async def send(self, address: str, body: bytes, seconds: float, folder: str = "") -> None:
        """Leaves a letter, to be read for so long. Raises NotKept.

        Letters of one `folder`, which their addresses begin with, are so many and no more at a time: raises TooMuchKept.
        """
        if address in self._waiters:
            self._deliver(address, body, seconds)
        if self.is_shared:
            row = (address, body.decode(), self._now() + int(seconds * 1e6))
            if not await self._database.write(lambda batch: _insert(batch, row, folder)):
                raise MailboxFull

    async def has_message(self, address: str) -> bool:
        """Whether a letter lies there. Raises NotRead."""
        found = select(mail.c.until).where(mail.c.address == address)
        return await self._database.read(lambda connection: connection.execute(found).first()) is not None

    def delete(self, address: str) -> None:
        """Takes a letter back; nobody waits for that."""
        self._database.post(lambda batch: batch.run("DELETE FROM mail WHERE address = ?", (address,)))

    async def wait_for(self, address: str, seconds: float) -> bytes:
        """The letter. Raises TimeoutError when none came."""
        known = self._cache.get(address)
        if known is not None:
            return known
        letter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiters[address].add(letter)
        if self.is_shared and (self._polling is None or self._polling.done()):
            self._polling = run_in_background(self._poll(), "mail_not_looked_for")
        try:
            return await asyncio.wait_for(letter, seconds)
        finally:
            self._waiters[address].discard(letter)
            if not self._waiters[address]:
                del self._waiters[address]

    async def sweep(self) -> None:
        """Throws away what nobody may read any more; to be called now and then."""
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
        """Goes on for as long as anybody waits."""
        while self._waiters:
            try:
                for address, body, until in await self._database.read(lambda connection: _read_letters(connection, list(self._waiters))):
                    self._deliver(address, body.encode(), (until - self._now()) / 1e6)
            except ReadFailed as error:  # the next look may be luckier; whoever waits gives up by themselves
                log.info("mail_not_read", waiting=len(self._waiters), error=str(error))
            await asyncio.sleep(POLL_SECONDS)


def _read_letters(connection: Connection, addresses: Sequence[str]) -> list[tuple[str, str, int]]:
    rows = connection.execute(select(mail).where(mail.c.address.in_(addresses))).all()
    return [(row.address, row.body, row.until) for row in rows]


def _insert(batch: Batch, row: tuple[str, str, int], folder: str) -> bool:
    """False where the folder is full."""
    if folder:
        inside = (mail.c.address >= folder) & (mail.c.address < folder + "~")  # addresses are plain ASCII
        count, size = batch.connection.execute(select(func.count(), func.sum(func.length(mail.c.body))).where(inside)).one()
        if count >= FOLDER_ROWS_MAX or (size or 0) + len(row[1]) > FOLDER_BYTES_MAX:
            return False
    batch.run(_INSERT, row)
    return True


def _delete_expired(batch: Batch, now: int) -> None:
    batch.run("DELETE FROM mail WHERE until < ?", (now,))
