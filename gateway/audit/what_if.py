"""What-if: replays past decisions under other policies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from gateway.audit.decisions import NEWEST_FIRST, PLACED_BODY, is_older_than, place_of
from gateway.storage.paging import with_index
from gateway.tasks.log import to_rfc3339
from policies.delegation.rulings import Act
from policies.tables import audit_records
from policies.what_if.replay import SAME, UNKNOWN, Replay, ReplayOutcome

RECORDS_READ_MAX = 20_000  # records that one request searches
ROWS_AT_ONCE = 500
REPLAYED_MAX = 500
WRITE_POLICY = Act("writePolicy", "Key", "policies", "policy:write", "policies")


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """Selects decisions by id, or the newest of one outcome: denied, allowed or all. `arguments` has known arguments by decision id."""

    decisions: Sequence[str] = ()
    only: str = "denied"
    limit: int = 100
    cursor: str = ""  # the `next` of the decisions before
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_past_decisions(connection: Connection, tenant: str, filters: DecisionFilter) -> tuple[list[dict[str, Any]], str | None]:
    """Returns records of decisions, newest first, and the cursor of older ones. Raises BadCursor."""
    query = select(*PLACED_BODY).where(audit_records.c.tenant == tenant, audit_records.c.kind == "decision")
    if filters.decisions:
        query = query.where(audit_records.c.decision_id.in_(list(filters.decisions)))
    query = with_index(query, audit_records, "audit_decision" if filters.decisions else "audit_at")
    if filters.cursor:
        query = query.where(is_older_than(filters.cursor))
    found: list[dict[str, Any]] = []
    last, seen = None, 0
    for row in connection.execute(query.order_by(*NEWEST_FIRST).limit(RECORDS_READ_MAX).execution_options(yield_per=ROWS_AT_ONCE)):
        if len(found) == filters.limit:
            return found, place_of(last)
        record, last, seen = json.loads(row.body), row, seen + 1
        if filters.decisions or filters.only == "all" or record["allowed"] == (filters.only == "allowed"):
            found.append(record)
    return found, place_of(last) if seen == RECORDS_READ_MAX else None


def replay_decisions(replay: Replay, records: Sequence[Mapping[str, Any]], filters: DecisionFilter) -> list[dict[str, Any]]:
    """Returns for each record what it was about, the former ruling and the ruling now."""
    return [_comparison_row(record, replay.rule_again(record, filters.arguments.get(record["decision_id"]))) for record in records]


def _comparison_row(record: Mapping[str, Any], outcome: ReplayOutcome) -> dict[str, Any]:
    then = "allow" if record["allowed"] else "ask" if record["reason_id"] == "approval-needed" else "deny"
    now = then if outcome.ruling == SAME else outcome.ruling
    return {
        "id": record["decision_id"],
        "at": to_rfc3339(record["at"]),
        "principal": "|".join((record["tenant"], record["principal"]["issuer"], record["principal"]["subject"])),
        "chain": [link["agent"] for link in record["path"]],
        "permission": record["permission"],
        "then": {"ruling": then, "reason_id": record["reason_id"], "policies": record["policies"]},
        "now": {"ruling": now, "policies": list(outcome.policies), "note": outcome.note},
        "changed": None if now == UNKNOWN else now != then,
    }
