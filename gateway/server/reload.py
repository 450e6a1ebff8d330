"""Policies and signing keys that change while the gateway runs: each process looks for them, and tells the others by an epoch."""

import asyncio
from collections.abc import Callable

import structlog

from gateway.storage.database import Batch, Database, bump
from policies.audit.log import Audit
from policies.cedar.engine import PolicyEngine
from policies.keys.signing import SigningKeys

LOOK_SECONDS = 0.5
log = structlog.get_logger()


class PolicyReload:
    """Takes up the folder of policies as soon as two looks find it the same: a file that is half written, is not read.

    `forget`: rulings made by other rules may not be believed any more.
    """

    def __init__(
        self,
        database: Database,
        engine: PolicyEngine,
        audit: Audit,
        forget: Callable[[], None],
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        """`generation` changes with the registry, whose tools policies speak of."""
        self._database = database
        self._generation = generation
        self._fitted = -1
        self._engine = engine
        self._audit = audit
        self._forget = forget
        self._told = engine.version
        self._seen = engine.stamp()
        self._busy = asyncio.Lock()

    async def look(self) -> None:
        """One look. What could not be kept of a change is tried again by the next."""
        stamp = await asyncio.to_thread(self._engine.stamp)
        settled, self._seen = stamp == self._seen, stamp
        if settled:
            await self.take_up()
        if self._fitted != self._generation():
            await self._refit()

    async def take_up(self) -> None:
        """Reads the folder where it has changed, and tells the other processes, which wait no longer then."""
        async with self._busy:
            if await asyncio.to_thread(lambda: self._engine.outdated):
                await asyncio.to_thread(self._engine.reload)
                self._forget()
                self.report()
            if self._told != self._engine.version:
                before, now = self._told, self._engine.version
                await self._database.write(lambda batch: self._keep(batch, before, now))
                self._told = now

    async def _refit(self) -> None:
        """Looks at the rules beside the tools of now: whatever is said of them, the rules stay."""
        async with self._busy:
            self._fitted, before = self._generation(), self._engine.version
            for doubt in await asyncio.to_thread(self._engine.refit):
                log.warning("policy_doubtful", policy=doubt)
            if self._engine.version != before:
                self._forget()
                self.report()

    def report(self) -> None:
        """Says in the log what became of the policies."""
        problem = self._engine.problem
        if problem is not None:
            log.error("policies_refused", file=problem.file, line=problem.line, problem=problem.problem, version=self._engine.version)
            return
        log.info("policies_read", version=self._engine.version)
        for doubt in self._engine.doubts:
            log.warning("policy_doubtful", policy=doubt)

    def _keep(self, batch: Batch, before: str, now: str) -> None:
        bump(batch, "policies")
        record = {"kind": "policies", "tenant": "", "decision_id": "", "txn": "", "before": before, "policy_version": now}
        self._audit.append(batch, record)


class KeyReload:
    """Notices a rotation, or a key that was taken away: what was verified with the keys of before, is verified again."""

    def __init__(self, database: Database, keys: SigningKeys) -> None:
        self._database = database
        self._keys = keys
        self._told = keys.served

    async def look(self) -> None:
        """One look; the keys themselves look at their folder once a second."""
        served = await asyncio.to_thread(lambda: self._keys.served)
        if served != self._told:
            log.info("keys_changed", active=self._keys.active)
            await self._database.write(lambda batch: bump(batch, "keys"))
            self._told = served
