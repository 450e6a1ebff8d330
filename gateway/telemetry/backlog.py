"""What waits in the database: for people, for webhooks, for repair. Read by the metrics and by `interlock doctor`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, TextClause, text

ENTRY_STATUSES: Final = ("active", "pending", "quarantined", "down")  # of agents and servers
FAMILIES: Final = ("agent", "server")
LETTERS: Final = ("notification", "event", "trigger")  # kinds of dead letters, and of deliveries that are tried again
ASKING, AWAITING = "input-required", "auth-required"
APPROVAL, CHECKPOINT = "approval", "checkpoint"

# The literal conditions are those of partial indexes (gateway/storage/tables.py), so that no query reads the whole table of tasks.
_ENTRIES = text("SELECT family, status, COUNT(*) AS number FROM registrations GROUP BY family, status")
_FAILING = text(
    "SELECT r.family AS family, COUNT(*) AS number FROM probes p JOIN registrations r ON r.tenant = p.tenant AND r.name = p.name"
    " WHERE p.failures > 0 GROUP BY r.family"
)
_WAITING = {
    ASKING: "SELECT COUNT(*) AS number, MIN(updated) AS oldest FROM tasks{hint} WHERE state = 'TASK_STATE_INPUT_REQUIRED'",
    AWAITING: "SELECT COUNT(*) AS number, MIN(updated) AS oldest FROM tasks{hint} WHERE state = 'TASK_STATE_AUTH_REQUIRED'",
}
# Without statistics SQLite prefers an index of all tasks to the partial one. With a million tasks that is 100 ms at each look.
_HINTS = {ASKING: " INDEXED BY tasks_asking", AWAITING: " INDEXED BY tasks_awaiting"}
_WAITING_BY_DIALECT = {
    dialect: {state: text(query.format(hint=_HINTS[state] if dialect == "sqlite" else "")) for state, query in _WAITING.items()}
    for dialect in ("sqlite", "postgresql")
}
_UNANSWERED = {
    APPROVAL: text("SELECT COUNT(*) AS number, MIN(created) AS oldest FROM approvals WHERE state = 'pending' AND expires > :now"),
    CHECKPOINT: text("SELECT COUNT(*) AS number, MIN(created) AS oldest FROM workflow_checkpoints WHERE state = 'pending'"),
}
_LETTER_TABLES = dict(zip(LETTERS, ("deliveries", "event_deliveries", "event_starts"), strict=True))
_DEAD = {kind: text(f"SELECT COUNT(*) FROM {table} WHERE state = 'dead'") for kind, table in _LETTER_TABLES.items()}  # noqa: S608 (own names)
_RETRIED = {
    kind: text(f"SELECT COUNT(*) FROM {table} WHERE state = 'pending' AND attempts > 0")  # noqa: S608 (own names)
    for kind, table in _LETTER_TABLES.items()
}
_NOTICES = text("SELECT COUNT(*) FROM notice_webhooks WHERE attempts > 0")
_QUEUED = text("SELECT COUNT(*) FROM workflow_runs WHERE queued_at IS NOT NULL")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A number of things that wait, and for how many seconds the oldest has waited."""

    count: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What one look at the database found. `entries` has the number of agents and servers by family and status."""

    entries: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failing: Mapping[str, int] = field(default_factory=dict)  # family: entries whose last check failed
    waiting: Mapping[str, Waiting] = field(default_factory=dict)  # state: tasks that wait for a person
    unanswered: Mapping[str, Waiting] = field(default_factory=dict)  # kind: questions to people
    dead: Mapping[str, int] = field(default_factory=dict)  # kind: dead letters
    retried: Mapping[str, int] = field(default_factory=dict)  # kind: deliveries that failed at least once and are tried again
    failing_notice_webhooks: int = 0
    queued_runs: int = 0


def read_backlog(connection: Connection, now_us: int) -> OpenWork:
    """Returns what waits now. `now_us` is in microseconds since 1970."""
    waiting = _WAITING_BY_DIALECT[connection.dialect.name]
    return OpenWork(
        entries={(row.family, row.status): row.number for row in connection.execute(_ENTRIES)},
        failing={row.family: row.number for row in connection.execute(_FAILING)},
        waiting={state: _read_waiting(connection, query, now_us) for state, query in waiting.items()},
        unanswered={kind: _read_waiting(connection, query, now_us) for kind, query in _UNANSWERED.items()},
        dead={kind: _read_count(connection, query) for kind, query in _DEAD.items()},
        retried={kind: _read_count(connection, query) for kind, query in _RETRIED.items()},
        failing_notice_webhooks=_read_count(connection, _NOTICES),
        queued_runs=_read_count(connection, _QUEUED),
    )


def _read_waiting(connection: Connection, query: TextClause, now_us: int) -> Waiting:
    found = connection.execute(query, {"now": now_us}).one()
    return Waiting(found.number, max(0.0, (now_us - found.oldest) / 1e6)) if found.number else Waiting()


def _read_count(connection: Connection, query: TextClause) -> int:
    return int(connection.execute(query).scalar_one())
