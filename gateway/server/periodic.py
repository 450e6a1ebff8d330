"""What the gateway does every moment: looks for changes, signs the audit's head, shows that it lives, ends what died with others."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.storage.database import Database, NotKept, NotRead
from gateway.storage.outage_log import Outage
from gateway.storage.processes import Presence
from policies.audit.heads import HeadsFile
from policies.audit.log import Audit, Head

EPOCH_SECONDS = 0.25
HEAD_SECONDS = 1.0
WITNESS_SECONDS = 60.0
BEAT_SECONDS = 1.0
SWEEP_SECONDS = 1.0
Recover = Callable[[], Awaitable[int]]  # looks after tasks that nobody works on; returns how many
log = structlog.get_logger()


class Pulse:
    """The loops of one process."""

    def __init__(self, database: Database, audit: Audit, heads: HeadsFile, presence: Presence) -> None:
        self._database = database
        self._audit = audit
        self._heads = heads
        self._presence = presence
        self._signed: Head | None = None
        self._said: Head | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def begin(self, recover: Recover) -> None:
        """Joins the processes, has tasks looked after that nobody runs any more, and starts the loops.

        A failed first look at such tasks does not prevent the start: the next one follows within SWEEP_SECONDS.
        """
        await self.keep_last_head()  # from here on no chain of ours is without a witness
        await self._presence.join()
        try:
            await _sweep(recover)
        except Exception:  # the root of the first sweep, as _repeat is of all others
            log.exception("first_sweep_failed")
        self.repeat(EPOCH_SECONDS, self._database.refresh)
        self.repeat(HEAD_SECONDS, self.keep_head)
        self.repeat(WITNESS_SECONDS, self._say_head)
        self.repeat(BEAT_SECONDS, lambda: self._beat(recover))
        self.repeat(SWEEP_SECONDS, lambda: _sweep(recover))

    def repeat(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        """One more loop."""
        self._loops.append(asyncio.create_task(_repeat(seconds, act)))

    async def end(self) -> None:
        """Stops the loops and leaves the processes."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        try:
            await self._presence.leave()
        except NotKept:
            log.warning("left_without_a_word")

    async def _beat(self, recover: Recover) -> None:
        """One process alone has nobody to show that it lives, and only tries whether the database takes writes again."""
        if self._database.sqlite and self._database.writable:
            return
        if await self._presence.beat():
            await _sweep(recover)

    async def keep_head(self) -> None:
        """Signs the last record of the audit."""
        head = self._audit.head
        signed = await asyncio.to_thread(self._heads.keep, head)
        if signed:
            self._signed = head

    async def keep_last_head(self) -> None:
        """Once more when the last record of all is written, or the first; the log hears of it too."""
        await self.keep_head()
        await self._say_head()

    async def _say_head(self) -> None:
        """The log is a witness that nobody here can edit; it is told of a head now and then, not of all."""
        head = self._signed
        if head is not None and head != self._said:
            self._said = head
            log.info("audit_head", chain=head.chain, seq=head.seq, hash=head.hash)


async def _sweep(recover: Recover) -> None:
    """Has tasks of dead processes looked after, so many at a time."""
    while recovered := await recover():
        log.warning("tasks_recovered", count=recovered)


async def _repeat(seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    """The next round tries again what failed. While the database is away, it says so itself, once for everybody."""
    outage = Outage()
    while True:
        await asyncio.sleep(seconds)
        try:
            await act()
        except (NotKept, NotRead):
            log.debug("pulse_missed", exc_info=True)
        except Exception:  # a loop's root
            if (left_out := outage.failed()) is not None:
                log.exception("pulse_missed", left_out=left_out)
        else:
            outage.ended()
