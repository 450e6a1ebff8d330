"""The trace of a task: all that it caused, built from the task's log and the audit, so that it exists without sampling."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from adapters.task import TERMINAL, TaskState
from gateway.storage.paging import with_index
from gateway.storage.tables import task_events, tasks
from gateway.tasks.log import TaskRow
from policies.tables import audit_records

RECORDS_MAX = 2000  # records of one trace
_KINDS_OF_CALLS = {"invokeAgent": "agent", "callTool": "tool"}


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """A ruling, or something that took time. Times are microseconds since 1970; `end` is None while it runs.

    `kind`: task (a row of the log), agent (one turn of it), tool (one call), decision (a refusal, or a grant for anything else).
    `outcome`: a task's state in lower case; ok, asks, failed, canceled, rejected, running or unknown (an interrupted call); allowed or
    refused. `reason` is empty without a failure. `retries`: attempts of a turn that failed before the last one, with `at` and `problem`.
    """

    id: str
    parent: str  # empty for the root
    kind: str
    name: str
    actor: str  # the last agent of the chain, or the user
    start: int
    end: int | None
    outcome: str
    reason: str = ""
    decision_id: str = ""
    retries: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A task and all that it caused, each span after its parent, siblings by time."""

    task_id: str
    txn: str
    spans: tuple[TraceSpan, ...]
    truncated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the trace for /api, with RFC 3339 times."""
        return {**asdict(self), "spans": [_span_document(span) for span in self.spans]}


@dataclass(frozen=True, slots=True)
class TraceRows:
    """The rows of one transaction from which a trace is built."""

    tasks: Sequence["Row[Any]"]
    records: Sequence[Mapping[str, Any]]
    reasons: Mapping[str, str]  # task id -> the text with which the task ended


def read_trace(connection: Connection, row: TaskRow) -> Trace:
    """Returns the trace of a task. The caller must have checked that the requester owns the task."""
    match = (tasks.c.tenant == row.tenant) & (tasks.c.owner == row.owner) & (tasks.c.txn == row.txn)
    of_txn = select(tasks).where(match).order_by(tasks.c.created, tasks.c.id).limit(RECORDS_MAX)
    rows = connection.execute(with_index(of_txn, tasks, "tasks_txn")).all()
    match = (audit_records.c.tenant == row.tenant) & (audit_records.c.txn == row.txn)
    order = (audit_records.c.at, audit_records.c.chain, audit_records.c.seq)
    recorded = select(audit_records.c.body).where(match).order_by(*order).limit(RECORDS_MAX)
    found = connection.execute(with_index(recorded, audit_records, "audit_txn")).all()
    ended_badly = [one.id for one in rows if one.state in (TaskState.FAILED, TaskState.REJECTED)]
    traced = TraceRows(rows, [json.loads(one.body) for one in found], _read_end_texts(connection, row.tenant, ended_badly))
    return Trace(row.id, row.txn, tuple(_in_tree_order(row.id, build_spans(traced))), truncated=RECORDS_MAX in (len(rows), len(found)))


def build_spans(rows: TraceRows) -> list[TraceSpan]:
    """Returns a span for each task and decision of the transaction, even if its parent is unknown."""
    by_id = {row.id: row for row in rows.tasks}
    by_grant = {row.grant_id: row.id for row in rows.tasks if row.grant_id}
    outcomes = {record["decision_id"]: record for record in rows.records if record["kind"] == "outcome"}
    spans = [_task_span(row, by_id, rows.reasons.get(row.id, "")) for row in rows.tasks]
    for record in rows.records:
        if record["kind"] == "decision":
            task_id = record["task_id"] if record["task_id"] in by_id else by_grant.get(record["grant_id"], "")
            spans.append(_ruling_span(record, by_id.get(task_id), outcomes.get(record["decision_id"])))
    return spans


def _task_span(row: "Row[Any]", by_id: Mapping[str, "Row[Any]"], reason: str) -> TraceSpan:
    ended = row.state in TERMINAL
    return TraceSpan(
        id=row.id,
        parent=row.parent_id if row.parent_id in by_id else "",
        kind="task",
        name=row.agent,
        actor=by_id[row.parent_id].agent if row.parent_id in by_id else row.owner.split("|", 2)[2],
        start=row.created,
        end=row.updated if ended else None,
        outcome=row.state.removeprefix("TASK_STATE_").replace("_", " ").lower(),
        reason=reason,
        decision_id=row.decision_id,
    )


def _ruling_span(record: Mapping[str, Any], task: "Row[Any] | None", outcome: Mapping[str, Any] | None) -> TraceSpan:
    """Returns the span of a refusal, of a call with its outcome, or of a grant for an act without duration."""
    path, allowed = record["path"], record["allowed"]
    kind = _KINDS_OF_CALLS.get(record["action"], "decision") if allowed else "decision"
    result, end = _outcome_and_end(kind, record, task, outcome) if allowed else ("refused", record["at"])
    return TraceSpan(
        id=record["decision_id"],
        parent=task.id if task else "",
        kind=kind,
        name=record["resource"],
        actor=path[-1]["agent"] if path else record["principal"]["subject"],
        start=record["at"],
        end=end,
        outcome=result,
        reason="" if allowed else ": ".join(filter(None, (record["reason_id"], ", ".join(record["missing"])))),
        decision_id=record["decision_id"],
        retries=tuple((outcome or {}).get("retries", ())),
    )


def _outcome_and_end(
    kind: str, record: Mapping[str, Any], task: "Row[Any] | None", outcome: Mapping[str, Any] | None
) -> tuple[str, int | None]:
    """Returns the outcome of an allowed act and when it ended."""
    if kind == "decision":
        return "allowed", record["at"]
    over = None if task is None or task.state not in TERMINAL else max(record["at"], task.updated)
    if outcome is not None and kind == "agent":  # written just after the task's end, which a turn does not outlast
        return outcome["outcome"], outcome["at"] if over is None else min(outcome["at"], over)
    if outcome is not None:  # a tool's outcome is written later than its end
        return outcome["outcome"], record["at"] + outcome["duration_us"]
    return ("running", None) if over is None else ("unknown", over)


def _in_tree_order(root: str, spans: Iterable[TraceSpan]) -> list[TraceSpan]:
    """Returns `root` and its descendants in depth-first order. A span is placed once, so rows that name each other cannot loop."""
    children: dict[str, list[TraceSpan]] = {}
    first: list[TraceSpan] = []
    for span in sorted(spans, key=lambda span: (span.start, span.kind != "task", span.id)):
        if span.id == root:
            first.append(span)
        else:
            children.setdefault(span.parent, []).append(span)
    ordered: list[TraceSpan] = []
    waiting = first
    while waiting:
        span = waiting.pop()
        ordered.append(span)
        waiting += reversed(children.pop(span.id, []))
    return ordered


def _read_end_texts(connection: Connection, tenant: str, ids: Sequence[str]) -> dict[str, str]:
    """Returns the last status text of each of these tasks."""
    match = (task_events.c.tenant == tenant) & task_events.c.task_id.in_(ids) & (task_events.c.kind == "status")
    last = select(task_events.c.task_id, func.max(task_events.c.seq).label("seq")).where(match).group_by(task_events.c.task_id).subquery()
    both = (task_events.c.task_id == last.c.task_id) & (task_events.c.seq == last.c.seq) & (task_events.c.tenant == tenant)
    rows = connection.execute(select(task_events.c.task_id, task_events.c.body).join(last, both)).all() if ids else []
    return {row.task_id: _status_text(json.loads(row.body)) for row in rows}


def _status_text(status: Mapping[str, Any]) -> str:
    parts = status.get("message", {}).get("parts", [])
    return "\n".join(part["text"] for part in parts if "text" in part)


def _span_document(span: TraceSpan) -> dict[str, Any]:
    retries = [{**each, "at": _to_rfc3339_us(each["at"])} for each in span.retries]
    end = None if span.end is None else _to_rfc3339_us(span.end)
    return {**asdict(span), "retries": retries, "start": _to_rfc3339_us(span.start), "end": end}


def _to_rfc3339_us(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
