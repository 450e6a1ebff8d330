"""Reloads policies and signing keys while the gateway runs. Each process polls for changes, and announces them by an epoch."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from gateway.storage.database import Batch, Database, raise_epoch
from policies.audit.log import AuditLog
from policies.cedar.engine import PolicyEngine
from policies.keys.signing import SigningKeys

RELOAD_POLL_SECONDS = 0.5
log = structlog.get_logger()


class PolicyReload:
    """Reloads the policy folder once two polls find it unchanged, so that a half-written file is not read.

    `invalidate` clears cached rulings of the previous policies.
    """

    def __init__(
        self,
        database: Database,
        engine: PolicyEngine,
        audit: AuditLog,
        invalidate: Callable[[], None],
        generation: Callable[[], int] = lambda: 0,
        *,
        find_doubts: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """`generation` changes with the servers, whose tools policies refer to. `find_doubts`: warnings beside those of the engine."""
        self._find_doubts = find_doubts
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
        """Polls once. A change that could not be recorded is retried by the next poll."""
        stamp = await asyncio.to_thread(self._engine.current_stamp)
        is_settled, self._last_stamp = stamp == self._last_stamp, stamp
        if is_settled:
            await self.reload()
        if self._checked_generation != self._generation():
            await self._check_against_tools()

    async def reload(self) -> None:
        """Reloads a changed folder, records the change, and announces it to other processes."""
        async with self._reload_lock:
            if await asyncio.to_thread(lambda: self._engine.is_outdated):
                await asyncio.to_thread(self._engine.reload)
                self._invalidate()
                self.log_outcome()
            if self._announced_version != self._engine.version:
                previous_version, now = self._announced_version, self._engine.version
                await self._database.write(lambda batch: self._record_and_announce(batch, previous_version, now))
                self._announced_version = now

    async def _check_against_tools(self) -> None:
        """Checks the policies against the registered tools again. Warnings don't change the policies."""
        async with self._reload_lock:
            is_first, previous_version = self._checked_generation == -1, self._engine.version
            self._checked_generation = self._generation()
            for doubt in self._find_doubts() if is_first else ():
                log.warning("policy_doubtful", policy=doubt)
            for doubt in await asyncio.to_thread(self._engine.recheck_tools):
                log.warning("policy_doubtful", policy=doubt)
            if self._engine.version != previous_version:
                self._invalidate()
                self.log_outcome()

    def log_outcome(self) -> None:
        """Logs the outcome of a reload, with its warnings."""
        problem = self._engine.problem
        if problem is not None:
            log.error("policies_refused", file=problem.file, line=problem.line, problem=problem.problem, version=self._engine.version)
            return
        log.info("policies_read", version=self._engine.version)
        for doubt in (*self._engine.rules.warnings, *self._find_doubts()):
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
    """Notices rotated or removed signing keys and announces them, so that tokens verified with former keys are verified again."""

    def __init__(self, database: Database, keys: SigningKeys) -> None:
        self._database = database
        self._keys = keys
        self._announced_keys = keys.serving_kids

    async def poll(self) -> None:
        """Polls once. SigningKeys itself reads its folder once a second."""
        served = await asyncio.to_thread(lambda: self._keys.serving_kids)
        if served != self._announced_keys:
            log.info("keys_changed", active=self._keys.active_kid)
            await self._database.write(lambda batch: raise_epoch(batch, "keys"))
            self._announced_keys = served
