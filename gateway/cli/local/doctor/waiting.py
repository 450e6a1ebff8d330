"""What waits in the database for people, for webhooks and for repair."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from gateway.cli.local import installation as home
from gateway.cli.local.doctor.kinds import DoctorFinding

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gateway.server.settings import Settings
    from gateway.telemetry.backlog import OpenWork, Waiting

PROCESS_SECONDS: Final = 60  # without a heartbeat, after which a process is gone
_LOST: Final = (
    "SELECT COUNT(*) FROM tasks WHERE runner <> '' AND NOT EXISTS"
    " (SELECT 1 FROM processes WHERE processes.id = tasks.runner AND processes.seen > :since)"
)


def check_waiting(settings: "Settings", hours: float) -> Iterator[DoctorFinding]:
    """Yields what waits too long: people's answers after `hours`, other things at once."""
    from gateway.telemetry.backlog import read_backlog

    file = home.sqlite_file(settings)
    if file is not None and not file.exists():
        return
    now_us = time.time_ns() // 1000
    with home.connect_to_database(settings) as connection:
        lost = _count_lost(connection, now_us)
        backlog = read_backlog(connection, now_us)
    if lost:
        yield DoctorFinding("tasks.lost", f"{lost} tasks of processes that are gone")
    yield from _judge_entries(backlog)
    yield from _judge_deliveries(backlog)
    yield from _judge_people("tasks.waiting", "tasks", backlog.waiting, hours)
    yield from _judge_people("questions.unanswered", "questions", backlog.unanswered, hours)
    if backlog.queued_runs:
        yield DoctorFinding("runs.queued", f"{backlog.queued_runs} runs")


def _count_lost(connection: "Connection", now_us: int) -> int:
    from sqlalchemy import text

    return int(connection.execute(text(_LOST), {"since": now_us - PROCESS_SECONDS * 1_000_000}).scalar_one())


def _judge_entries(backlog: "OpenWork") -> Iterator[DoctorFinding]:
    for family in ("agent", "server"):
        failing = max(backlog.failing.get(family, 0), backlog.entries.get((family, "down"), 0))
        if failing:
            yield DoctorFinding("entries.failing", f"{failing} {family}s", f"interlock {family} list --failing")
        for status, id_ in (("quarantined", "entries.quarantined"), ("pending", "entries.pending")):
            if count := backlog.entries.get((family, status), 0):
                yield DoctorFinding(id_, f"{count} {family}s", f"interlock {family} list; interlock {family} show NAME")


def _judge_deliveries(backlog: "OpenWork") -> Iterator[DoctorFinding]:
    dead = {kind: count for kind, count in backlog.dead.items() if count}
    if dead:
        yield DoctorFinding("deliveries.dead", ", ".join(f"{count} of kind {kind}" for kind, count in dead.items()))
    failing = sum(backlog.retried.values()) + backlog.failing_notice_webhooks
    if failing:
        yield DoctorFinding("deliveries.failing", f"{failing} deliveries failed at least once and are tried again")


def _judge_people(id_: str, noun: str, found: "Mapping[str, Waiting]", hours: float) -> Iterator[DoctorFinding]:
    for kind, waiting in found.items():
        if waiting.oldest_seconds > hours * 3600:
            detail = f"{waiting.count} {noun} ({kind}), the oldest for {waiting.oldest_seconds / 3600:.0f} hours"
            yield DoctorFinding(id_, detail)
