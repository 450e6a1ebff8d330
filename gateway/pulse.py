"""What the gateway does every moment: looks for changes, signs the audit's head, shows that it lives, ends what died with others."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy import select

from gateway.broker import Broker
from gateway.database import Batch, Database
from gateway.tables import processes
from policies.audit import Audit
from policies.audit_heads import HeadsFile

EPOCH_SECONDS = 0.25
HEAD_SECONDS = 1.0
SWEEP_SECONDS = 5.0
DEAD_US = 10_000_000  # a process that was not seen for so long is no more
log = structlog.get_logger()


class Pulse:
    """The loops of one process."""

    def __init__(self, database: Database, audit: Audit, heads: HeadsFile, process: str, now: Callable[[], int]) -> None:
        self._database = database
        self._audit = audit
        self._heads = heads
        self._process = process
        self._now = now
        self._loops: list[asyncio.Task[None]] = []

    async def begin(self, broker: Broker) -> None:
        """Joins the processes, ends tasks that nobody runs any more, and starts the loops."""
        await self._database.write(self._join)
        recovered = await broker.recover(await self._alive())
        if recovered:
            log.warning("tasks_recovered", count=recovered)
        self._every(EPOCH_SECONDS, self._database.refresh)
        self._every(HEAD_SECONDS, self._keep_head)
        if not self._database.sqlite:
            self._every(HEAD_SECONDS, self._beat)
            self._every(SWEEP_SECONDS, lambda: self._sweep(broker))

    def repeat(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        """One more loop, for a part that needs one."""
        self._every(seconds, act)

    async def end(self) -> None:
        """Stops the loops and signs the last head."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._keep_head()

    def _every(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        self._loops.append(asyncio.create_task(_repeat(seconds, act)))

    def _join(self, batch: Batch) -> None:
        now = self._now()
        batch.connection.execute(processes.delete().where(processes.c.seen < now - DEAD_US))
        batch.connection.execute(processes.insert().values(id=self._process, started=now, seen=now))

    async def _beat(self) -> None:
        now = self._now()
        await self._database.write(lambda batch: batch.run("UPDATE processes SET seen = ? WHERE id = ?", (now, self._process)))

    async def _alive(self) -> list[str]:
        if self._database.sqlite:
            return [self._process]
        since = self._now() - DEAD_US
        query = select(processes.c.id).where(processes.c.seen >= since)
        return list(await self._database.read(lambda connection: connection.execute(query).scalars().all()))

    async def _sweep(self, broker: Broker) -> None:
        await broker.recover(await self._alive())

    async def _keep_head(self) -> None:
        head = self._audit.head
        signed = await asyncio.to_thread(self._heads.keep, head)
        if signed:
            log.info("audit_head", chain=head.chain, seq=head.seq, hash=head.hash)


async def _repeat(seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await act()
        except Exception:  # a loop's root: the next beat tries again
            log.exception("pulse_missed")
