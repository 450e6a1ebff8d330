"""Reads decisions and other records from the audit: one decision with its outcome, or pages of records."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, or_, select, text

from gateway.audit.explanations import decision_document
from gateway.storage.paging import BadCursor, format_place, parse_place, with_index
from gateway.tasks.log import to_rfc3339
from policies.delegation.chain import Delegation, Principal
from policies.delegation.facts import FactNote
from policies.delegation.rulings import Act, ChainLink, Decision
from policies.tables import RARE_KIND, audit_records, refusals

READ_AUDIT = Act("readAudit", "Key", "audit", "audit:read", "audit")

SEARCHED_MAX, SEARCHED_AT_ONCE = 20_000, 500  # records that a page about one person looks through
PLACED_BODY = (audit_records.c.body, audit_records.c.at, audit_records.c.chain, audit_records.c.seq)
NEWEST_FIRST = (audit_records.c.at.desc(), audit_records.c.chain, audit_records.c.seq.desc())


class UnknownDecision(Exception):
    """No such decision exists for this caller."""

    def __init__(self) -> None:
        super().__init__("cursor is not one that a page of this list gave")


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision as recorded in the audit, and the record of its outcome, if there is one."""

    record: Mapping[str, Any]
    outcome: Mapping[str, Any] | None

    def concerns(self, delegation: Delegation) -> bool:
        """Returns whether the decision was made for this user and, for an agent, in the agent's own transaction."""
        person, record = delegation.principal, self.record
        own_members = {"tenant": person.tenant, "principal": {"issuer": person.issuer, "subject": person.subject}}
        return all(record[name] == value for name, value in own_members.items()) and (
            not delegation.path or record["txn"] == delegation.txn
        )

    def to_json(self, *, shows_all: bool = False) -> dict[str, Any]:
        """Returns the document of the refusal, with the members that only the audit has. `shows_all`: for readers of the audit."""
        record = self.record
        return {
            **decision_document(_decision_from_record(record), shows_all=shows_all),
            "at": to_rfc3339(record["at"]),
            "permission": record["permission"],
            "scope": record.get("scope", ["*"]),
            "grant_id": record["grant_id"],
            "trace_id": record["trace_id"],
            "policy_version": record["policy_version"],
            "outcome": self.outcome["outcome"] if self.outcome else None,
            "duration_us": self.outcome["duration_us"] if self.outcome else None,
        }


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Selects audit records: empty members match all. `cursor` is the `next` of the page before.

    `person` is a subject, or `tenant|issuer|subject`: who a record is about or who did it.
    """

    kind: str = ""
    txn: str = ""
    decision_id: str = ""
    cursor: str = ""
    limit: int = 50
    person: str = ""


@dataclass(frozen=True, slots=True)
class RefusalFilter:
    """Selects refusals: of acts of one person, `tenant|issuer|subject`, or with an empty `owner` of the whole tenant.

    Those of one person leave out what the gateway answered as unknown, so that they name nothing that the person may not know of.
    """

    owner: str = ""
    cursor: str = ""
    limit: int = 50


class _Who(msgspec.Struct):
    """Whom a record names."""

    principal: Any = None
    by: Any = None


_decode_who = msgspec.json.Decoder(_Who).decode


def find_decision(connection: Connection, tenant: str, decision_id: str) -> DecisionRecord:
    """Returns a decision of the tenant with its outcome. Raises UnknownDecision."""
    match = (audit_records.c.decision_id == decision_id) & (audit_records.c.tenant == tenant)
    query = with_index(select(audit_records.c.kind, audit_records.c.body).where(match), audit_records, "audit_decision")
    found = {row.kind: json.loads(row.body) for row in connection.execute(query)}
    if "decision" not in found:
        raise UnknownDecision
    return DecisionRecord(found["decision"], found.get("outcome"))


def read_refusals(connection: Connection, tenant: str, filters: RefusalFilter) -> tuple[list[DecisionRecord], str | None]:
    """Returns a page of decisions that refused an act, newest first, and the cursor of the next page. Raises BadCursor."""
    columns = refusals.c
    query = select(columns.at, columns.decision_id.label("id")).where(columns.tenant == tenant)
    if filters.owner:
        query = query.where(columns.owner == filters.owner, columns.hidden == 0)
    else:
        query = with_index(query, refusals, "refusals_at")
    if filters.cursor:
        at, decision_id = parse_place(filters.cursor)
        query = query.where(or_(columns.at < at, and_(columns.at == at, columns.decision_id < decision_id)))
    rows = connection.execute(query.order_by(columns.at.desc(), columns.decision_id.desc()).limit(filters.limit + 1)).all()
    page = list(rows[: filters.limit])
    match = audit_records.c.decision_id.in_([row.id for row in page]) & (audit_records.c.tenant == tenant)
    bodies = with_index(select(audit_records.c.body).where(match, audit_records.c.kind == "decision"), audit_records, "audit_decision")
    found = {(record := json.loads(body))["decision_id"]: DecisionRecord(record, None) for body in connection.execute(bodies).scalars()}
    more = format_place(page[-1].at, page[-1].id) if len(rows) > filters.limit else None
    return [found[row.id] for row in page if row.id in found], more


def read_audit_page(connection: Connection, tenant: str, filters: AuditFilter) -> tuple[list[dict[str, Any]], str | None]:
    """Returns a page of records, newest first, and the cursor of the next page. Raises BadCursor.

    With a person it looks through SEARCHED_MAX records, so a page can have fewer than there is room for, or none, and `next` goes on.
    """
    page, more = _find_rows(connection, tenant, filters) if filters.person else _read_rows(connection, tenant, filters)
    return [{**(body := json.loads(row.body)), "at": to_rfc3339(body["at"])} for row in page], more


def _find_rows(connection: Connection, tenant: str, filters: AuditFilter) -> tuple[list[Any], str | None]:
    """Returns rows about a person, and the cursor of the next page."""
    found, place = list[Any](), filters.cursor
    for _ in range(SEARCHED_MAX // SEARCHED_AT_ONCE):
        rows, more = _read_rows(connection, tenant, replace(filters, cursor=place, limit=SEARCHED_AT_ONCE))
        for number, row in enumerate(rows):
            if _names(row.body, tenant, filters.person):
                found.append(row)
                if len(found) == filters.limit:
                    return found, place_of(row) if more or number + 1 < len(rows) else None
        if more is None:
            return found, None
        place = more
    return found, place


def _names(body: str, tenant: str, person: str) -> bool:
    """Returns whether a record names a person, by the subject or as `tenant|issuer|subject`."""
    who = _decode_who(body)
    named = {str(who.by).split("|", 2)[-1], str(who.by)} if who.by else set()
    if isinstance(who.principal, dict):
        subject = str(who.principal.get("subject", ""))
        named |= {subject, Principal(tenant, str(who.principal.get("issuer", "")), subject).owner_key}
    return person in named


def _read_rows(connection: Connection, tenant: str, filters: AuditFilter) -> tuple[list[Any], str | None]:
    """Returns the rows of a page, whomever they name, and the cursor of the next page."""
    query = select(*PLACED_BODY).where(audit_records.c.tenant == tenant)
    for column, value in (
        (audit_records.c.kind, filters.kind),
        (audit_records.c.txn, filters.txn),
        (audit_records.c.decision_id, filters.decision_id),
    ):
        query = query.where(column == value) if value else query
    if filters.kind not in ("", "decision", "outcome"):
        query = query.where(text(RARE_KIND))
    query = with_index(query, audit_records, _index_for(filters))
    if filters.cursor:
        query = query.where(is_older_than(filters.cursor))
    rows = connection.execute(query.order_by(*NEWEST_FIRST).limit(filters.limit + 1)).all()
    page = list(rows[: filters.limit])
    return page, place_of(page[-1]) if len(rows) > filters.limit else None


def is_older_than(cursor: str) -> ColumnElement[bool]:
    """Returns the condition that a record comes after the cursor, newest first. Raises BadCursor."""
    at, chain, seq = _parse_cursor(cursor)
    same_moment = or_(audit_records.c.chain > chain, and_(audit_records.c.chain == chain, audit_records.c.seq < seq))
    return or_(audit_records.c.at < at, and_(audit_records.c.at == at, same_moment))


def place_of(row: Any) -> str | None:
    """Returns the cursor of what comes after a row of PLACED_BODY."""
    return None if row is None else f"{row.at}.{row.seq}.{row.chain}"


def _index_for(filters: AuditFilter) -> str:
    if filters.decision_id:
        return "audit_decision"
    if filters.txn:
        return "audit_txn"
    return "audit_at" if filters.kind in ("", "decision", "outcome") else "audit_kind"


def _parse_cursor(cursor: str) -> tuple[int, str, int]:
    at, _, rest = cursor.partition(".")
    seq, _, chain = rest.partition(".")
    if not (chain and _is_number(at) and _is_number(seq)):
        raise BadCursor
    return int(at), chain, int(seq)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _decision_from_record(record: Mapping[str, Any]) -> Decision:
    person = record["principal"]
    return Decision(
        id=record["decision_id"],
        at=record["at"],
        allowed=record["allowed"],
        reason_id=record["reason_id"],
        principal=Principal(record["tenant"], person["issuer"], person["subject"]).owner_key,
        roles=tuple(record["roles"]),
        chain=tuple(ChainLink(link["agent"], tuple(link["permissions"])) for link in record["path"]),
        act=Act(record["action"], "", record["resource"], record["permission"], "", record.get("verb", "")),
        policies=tuple(record["policies"]),
        missing=tuple(record["missing"]),
        grant_id=record["grant_id"],
        task_id=record["task_id"],
        txn=record["txn"],
        trace_id=record["trace_id"],
        approval=record.get("approval", ""),
        approvers=tuple(record.get("approvers", ())),
        problem=record.get("problem", ""),
        subject=record.get("subject", ""),
        effect=record.get("effect", ""),
        facts=tuple(msgspec.convert(each, FactNote) for each in record.get("facts", ())),
    )
