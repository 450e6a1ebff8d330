"""What the gateway does every moment: looks for changes, signs the audit's head, shows that it lives, ends what died with others."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.storage.database import Database, ReadFailed, WriteFailed
from gateway.storage.outage_log import Outage
from gateway.storage.processes import ProcessRegistry
from policies.audit.heads import HeadsFile
from policies.audit.log import AuditLog, ChainHead

EPOCH_SECONDS = 0.25
HEAD_SECONDS = 1.0
LOG_HEAD_SECONDS = 60.0
HEARTBEAT_SECONDS = 1.0
RECOVER_SECONDS = 1.0
RecoverTasks = Callable[[], Awaitable[int]]  # looks after tasks that nobody works on; returns how many
log = structlog.get_logger()


class PeriodicTasks:
    """The loops of one process."""

    def __init__(self, database: Database, audit: AuditLog, heads: HeadsFile, processes: ProcessRegistry) -> None:
        self._database = database
        self._audit = audit
        self._heads = heads
        self._processes = processes
        self._signed_head: ChainHead | None = None
        self._logged_head: ChainHead | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def start(self, recover: RecoverTasks) -> None:
        """Joins the processes, has tasks looked after that nobody runs any more, and starts the loops.

        A failed first look at such tasks does not prevent the start: the next one follows within SWEEP_SECONDS.
        """
        await self.sign_and_log_head()  # from here on no chain of ours is without a witness
        await self._processes.register()
        try:
            await _recover_all(recover)
        except Exception:  # the root of the first sweep, as _repeat is of all others
            log.exception("first_sweep_failed")
        self.repeat(EPOCH_SECONDS, self._database.refresh_epochs)
        self.repeat(HEAD_SECONDS, self.sign_head)
        self.repeat(LOG_HEAD_SECONDS, self._log_head)
        self.repeat(HEARTBEAT_SECONDS, lambda: self._heartbeat(recover))
        self.repeat(RECOVER_SECONDS, lambda: _recover_all(recover))

    def repeat(self, seconds: float, run: Callable[[], Awaitable[object]]) -> None:
        """One more loop."""
        self._loops.append(asyncio.create_task(_repeat(seconds, run)))

    async def stop(self) -> None:
        """Stops the loops and leaves the processes."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        try:
            await self._processes.depart()
        except WriteFailed:
            log.warning("left_without_a_word")

    async def _heartbeat(self, recover: RecoverTasks) -> None:
        """One process alone has nobody to show that it lives, and only tries whether the database takes writes again."""
        if self._database.is_sqlite and self._database.is_writable:
            return
        if await self._processes.heartbeat():
            await _recover_all(recover)

    async def sign_head(self) -> None:
        """Signs the last record of the audit."""
        head = self._audit.head
        signed = await asyncio.to_thread(self._heads.write_head, head)
        if signed:
            self._signed_head = head

    async def sign_and_log_head(self) -> None:
        """Once more when the last record of all is written, or the first; the log hears of it too."""
        await self.sign_head()
        await self._log_head()

    async def _log_head(self) -> None:
        """The log is a witness that nobody here can edit; it is told of a head now and then, not of all."""
        head = self._signed_head
        if head is not None and head != self._logged_head:
            self._logged_head = head
            log.info("audit_head", chain=head.chain, seq=head.seq, hash=head.hash)


async def _recover_all(recover: RecoverTasks) -> None:
    """Has tasks of dead processes looked after, so many at a time."""
    while await recover():
        pass


async def _repeat(seconds: float, run: Callable[[], Awaitable[object]]) -> None:
    """The next round tries again what failed. While the database is away, it says so itself, once for everybody."""
    outage = Outage()
    while True:
        await asyncio.sleep(seconds)
        try:
            await run()
        except (WriteFailed, ReadFailed):
            log.debug("pulse_missed", exc_info=True)
        except Exception:  # a loop's root
            if (left_out := outage.record_failure()) is not None:
                log.exception("pulse_missed", left_out=left_out)
        else:
            outage.record_success()
