"""Periodic work of one process: epochs, signed audit heads, heartbeats, and recovery of tasks of dead processes."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.storage.database import Database, ReadFailed, WriteFailed
from gateway.storage.outage_log import Outage
from gateway.storage.processes import Election, ProcessRegistry
from policies.audit.heads import HeadsFile
from policies.audit.log import AuditLog, ChainHead

EPOCH_SECONDS = 0.25
HEAD_SECONDS = 1.0
LOG_HEAD_SECONDS = 60.0
HEARTBEAT_SECONDS = 1.0
RECOVER_SECONDS = 1.0
RecoverTasks = Callable[[], Awaitable[int]]  # recovers tasks that no process runs; returns how many
log = structlog.get_logger()


class PeriodicTasks:
    """The periodic loops of one process."""

    def __init__(self, database: Database, audit: AuditLog, heads: HeadsFile, processes: ProcessRegistry) -> None:
        self._database = database
        self._audit = audit
        self._heads = heads
        self._processes = processes
        self._election = Election(database.engine)
        self._signed_head: ChainHead | None = None
        self._logged_head: ChainHead | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def start(self, recover: RecoverTasks) -> None:
        """Registers the process, recovers tasks that no process runs, and starts the loops.

        A failed first recovery does not prevent the start; the next one follows after RECOVER_SECONDS.
        """
        await self.sign_and_log_head()  # from here on the audit chain has a signed head
        await self._processes.register()
        try:
            await _recover_all(recover)
        except Exception:  # a task's root: _repeat tries again
            log.exception("first_recovery_failed")
        self.repeat(EPOCH_SECONDS, self._database.refresh_epochs)
        self.repeat(HEAD_SECONDS, self.sign_head)
        self.repeat(LOG_HEAD_SECONDS, self._log_head)
        self.repeat(HEARTBEAT_SECONDS, lambda: self._heartbeat(recover))
        self.repeat(RECOVER_SECONDS, lambda: _recover_all(recover))

    def repeat(self, seconds: float, run: Callable[[], Awaitable[object]]) -> None:
        """Starts a loop that calls `run` every `seconds`."""
        self._loops.append(asyncio.create_task(_repeat(seconds, run)))

    def repeat_elected(self, seconds: float, run: Callable[[], Awaitable[object]]) -> None:
        """Starts a loop that calls `run` every `seconds` in one of the processes that share the database."""

        async def run_if_elected() -> None:
            if await self._election.is_won():
                await run()

        self.repeat(seconds, run_if_elected)

    async def stop(self) -> None:
        """Stops the loops and removes the process from the registry of processes."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await asyncio.to_thread(self._election.give_up)
        try:
            await self._processes.depart()
        except WriteFailed:
            log.warning("process_departure_not_written")

    async def _heartbeat(self, recover: RecoverTasks) -> None:
        """Writes a heartbeat.

        A single process on SQLite writes one only while the database takes no writes, to find out whether it has recovered.
        """
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
        """Signs and logs the head, at the start and after the last record."""
        await self.sign_head()
        await self._log_head()

    async def _log_head(self) -> None:
        """Logs the signed head when it has changed. The log is a witness outside the database, and gets some heads only."""
        head = self._signed_head
        if head is not None and head != self._logged_head:
            self._logged_head = head
            log.info("audit_head", chain=head.chain, seq=head.seq, hash=head.hash)


async def _recover_all(recover: RecoverTasks) -> None:
    """Recovers tasks of dead processes in batches until none are left."""
    while await recover():
        pass


async def _repeat(seconds: float, run: Callable[[], Awaitable[object]]) -> None:
    """Calls `run` forever. A failure is retried in the next round; repeated failures are logged at a limited rate."""
    outage = Outage()
    while True:
        await asyncio.sleep(seconds)
        try:
            await run()
        except (WriteFailed, ReadFailed):
            log.debug("periodic_task_failed", exc_info=True)
        except Exception:  # a loop's root
            if (left_out := outage.record_failure()) is not None:
                log.exception("periodic_task_failed", left_out=left_out)
        else:
            outage.record_success()
