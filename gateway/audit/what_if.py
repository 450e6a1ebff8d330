"""What-if: which decisions of the past would come out otherwise by other policies."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from gateway.tasks.log import rfc3339
from policies.tables import audit
from policies.what_if.replay import SAME, UNKNOWN, Outcome, Replay

LOOKED_AT = 20_000  # records, the newest first
REPLAYED_MAX = 500


@dataclass(frozen=True, slots=True)
class Which:
    """Decisions by id, or the newest of one outcome: denied, allowed or all. `arguments` by decision, where they are known."""

    decisions: Sequence[str] = ()
    only: str = "denied"
    limit: int = 100
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def past(connection: Connection, tenant: str, which: Which) -> list[dict[str, Any]]:
    """Records of decisions, the newest first."""
    query = select(audit.c.body).where(audit.c.tenant == tenant, audit.c.kind == "decision")
    if which.decisions:
        query = query.where(audit.c.decision_id.in_(list(which.decisions)))
    rows = connection.execute(query.order_by(audit.c.at.desc(), audit.c.chain, audit.c.seq.desc()).limit(LOOKED_AT)).scalars()
    return list(_wanted(rows, which))


def _wanted(rows: Any, which: Which) -> Iterator[dict[str, Any]]:
    left = which.limit
    for body in rows:
        record = json.loads(body)
        if which.decisions or which.only == "all" or record["allowed"] == (which.only == "allowed"):
            yield record
            left -= 1
            if not left:
                return


def replayed(replay: Replay, records: Sequence[Mapping[str, Any]], which: Which) -> list[dict[str, Any]]:
    """A row for each: what it was about, then, and now."""
    return [_row(record, replay.again(record, which.arguments.get(record["decision_id"]))) for record in records]


def _row(record: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    then = "allow" if record["allowed"] else "ask" if record["reason_id"] == "approval-needed" else "deny"
    now = then if outcome.ruling == SAME else outcome.ruling
    return {
        "id": record["decision_id"],
        "at": rfc3339(record["at"]),
        "principal": "|".join((record["tenant"], record["principal"]["issuer"], record["principal"]["subject"])),
        "chain": [link["agent"] for link in record["path"]],
        "permission": record["permission"],
        "then": {"ruling": then, "reason_id": record["reason_id"], "policies": record["policies"]},
        "now": {"ruling": now, "policies": list(outcome.policies), "note": outcome.note},
        "changed": None if now == UNKNOWN else now != then,
    }
