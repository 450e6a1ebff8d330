"""Policies and signing keys that change while the gateway runs: each process looks for them, and tells the others by an epoch."""

import asyncio
from collections.abc import Callable

import structlog

from gateway.storage.database import Batch, Database, raise_epoch
from policies.audit.log import AuditLog
from policies.cedar.engine import PolicyEngine
from policies.keys.signing import SigningKeys

RELOAD_POLL_SECONDS = 0.5
log = structlog.get_logger()


class PolicyReload:
    """Takes up the folder of policies as soon as two looks find it the same: a file that is half written, is not read.

    `forget`: rulings made by other rules may not be believed any more.
    """

    def __init__(
        self,
        database: Database,
        engine: PolicyEngine,
        audit: AuditLog,
        invalidate: Callable[[], None],
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        """`generation` changes with the registry, whose tools policies speak of."""
        self._database = database
        self._generation = generation
        self._checked_generation = -1
        self._engine = engine
        self._audit = audit
        self._invalidate = invalidate
        self._announced_version = engine.version
        self._last_stamp = engine.current_stamp()
        self._reload_lock = asyncio.Lock()

    async def poll(self) -> None:
        """One look. What could not be kept of a change is tried again by the next."""
        stamp = await asyncio.to_thread(self._engine.current_stamp)
        settled, self._last_stamp = stamp == self._last_stamp, stamp
        if settled:
            await self.reload()
        if self._checked_generation != self._generation():
            await self._check_against_tools()

    async def reload(self) -> None:
        """Reads the folder where it has changed, and tells the other processes, which wait no longer then."""
        async with self._reload_lock:
            if await asyncio.to_thread(lambda: self._engine.is_outdated):
                await asyncio.to_thread(self._engine.reload)
                self._invalidate()
                self.log_outcome()
            if self._announced_version != self._engine.version:
                before, now = self._announced_version, self._engine.version
                await self._database.write(lambda batch: self._record_and_announce(batch, before, now))
                self._announced_version = now

    async def _check_against_tools(self) -> None:
        """Looks at the rules beside the tools of now: whatever is said of them, the rules stay."""
        async with self._reload_lock:
            self._checked_generation, before = self._generation(), self._engine.version
            for doubt in await asyncio.to_thread(self._engine.recheck_tools):
                log.warning("policy_doubtful", policy=doubt)
            if self._engine.version != before:
                self._invalidate()
                self.log_outcome()

    def log_outcome(self) -> None:
        """Says in the log what became of the policies."""
        problem = self._engine.problem
        if problem is not None:
            log.error("policies_refused", file=problem.file, line=problem.line, problem=problem.problem, version=self._engine.version)
            return
        log.info("policies_read", version=self._engine.version)
        for doubt in self._engine.warnings:
            log.warning("policy_doubtful", policy=doubt)

    def _record_and_announce(self, batch: Batch, previous_version: str, current_version: str) -> None:
        raise_epoch(batch, "policies")
        record = {
            "kind": "policies",
            "tenant": "",
            "decision_id": "",
            "txn": "",
            "before": previous_version,
            "policy_version": current_version,
        }
        self._audit.record(batch, record)


class KeyReload:
    """Notices a rotation, or a key that was taken away: what was verified with the keys of before, is verified again."""

    def __init__(self, database: Database, keys: SigningKeys) -> None:
        self._database = database
        self._keys = keys
        self._announced_keys = keys.serving_kids

    async def poll(self) -> None:
        """One look; the keys themselves look at their folder once a second."""
        served = await asyncio.to_thread(lambda: self._keys.serving_kids)
        if served != self._announced_keys:
            log.info("keys_changed", active=self._keys.active_kid)
            await self._database.write(lambda batch: raise_epoch(batch, "keys"))
            self._announced_keys = served
