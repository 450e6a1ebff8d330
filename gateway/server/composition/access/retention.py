"""Builds the deletion of what is not kept any more, and legal holds."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import gateway.workflows.runs.tables  # noqa: F401 (so that the rows of runs are found with their tasks)
from gateway.audit.retention.archive import TaskArchive
from gateway.audit.retention.holds import LegalHolds
from gateway.audit.retention.pruner import EPOCH, Retention
from gateway.audit.retention.sizes import GrowthStatistics, SizeWatch
from gateway.audit.retention.terms import RetentionTerms, TermsByTenant
from gateway.server.sections.retention import RetentionSettings, TenantRetentionSettings
from gateway.storage.database import Database
from gateway.tasks.ended_tasks import PruningNotice
from policies.audit.log import AuditLog
from policies.ids import new_id, now_us


class RetentionWork(NamedTuple):
    """What prunes, what holds, what warns of a large database, and what keeps its plans good."""

    pruner: Retention
    holds: LegalHolds
    size_watch: SizeWatch
    statistics: GrowthStatistics

    def start(self, repeat: Callable[[float, Callable[[], Awaitable[object]]], None]) -> None:
        """Prunes and looks at the size once an hour, and at the statistics once a minute."""
        for work in (self.pruner.run_once, self.size_watch.run_once):
            repeat(3600.0, work)
        repeat(60.0, self.statistics.run_once)


def terms_of(settings: RetentionSettings) -> TermsByTenant:
    """Returns the terms that the settings give to each tenant."""
    by_name = {name: _terms(given) for name, given in settings.tenants.items()}
    least_by_name = {name: _least_days(given) for name, given in settings.tenants.items()}
    return TermsByTenant(_terms(settings), by_name, _least_days(settings), least_by_name)


def _terms(given: TenantRetentionSettings) -> RetentionTerms:
    return RetentionTerms(given.days, given.tasks)


def _least_days(given: TenantRetentionSettings) -> int:
    """Returns the age below which no request deletes: a request may have deleted what the settings delete anyway."""
    return given.min_days if given.days is None else min(given.min_days, given.days)


def build_retention(
    settings: RetentionSettings, database: Database, audit: AuditLog, pruning: PruningNotice, *, process: str
) -> RetentionWork:
    """Builds all parts. The caches of `pruning` are emptied after each deletion, by any process."""
    terms = terms_of(settings)
    archive = TaskArchive(Path(settings.archive), process) if settings.archive else None
    database.watch(EPOCH, pruning.forget_tasks)
    return RetentionWork(
        Retention(database, terms, audit.record, now=now_us, clock=time.monotonic, archive=archive),
        LegalHolds(database, audit.record, new_id, now_us),
        SizeWatch(database, int(settings.warn_gigabytes * 1e9), lambda: terms.default.keeps_all),
        GrowthStatistics(database.engine),
    )
