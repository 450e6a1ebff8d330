"""Rows of memory as facts, and the condition that a reader may see them."""

from typing import Any

from sqlalchemy import ColumnElement, Row, Select, or_, select

from gateway.state.memory.facts import Authorship, Fact, MemoryScope, OldVersion
from gateway.state.memory.tables import memory_facts, memory_quarantines, memory_versions


def fact_from_row(row: Row[Any]) -> Fact:
    return Fact(
        row.id,
        MemoryScope(row.tenant, row.owner, row.workflow),
        row.version,
        row.text,
        row.sensitivity,
        Authorship(row.author, row.agent, row.task_id),
        row.created,
        row.updated,
        row.expires,
    )


def version_from_row(row: Row[Any]) -> OldVersion:
    return OldVersion(row.version, row.text, row.sensitivity, Authorship(row.author, row.agent, row.task_id), row.at)


def is_found(clearance: int, now: int) -> ColumnElement[bool]:
    """Whether readers with this clearance find a fact: one that has not expired, and whose source is not quarantined."""
    columns = memory_facts.c
    has_time = or_(columns.expires.is_(None), columns.expires > now)
    return (columns.sensitivity <= clearance) & has_time & ~is_quarantined()


def is_quarantined() -> ColumnElement[bool]:
    """Whether an operator holds back what the source of the current version wrote."""
    held = memory_quarantines.c
    return select(held.agent).where(held.tenant == memory_facts.c.tenant, held.agent == memory_facts.c.agent).exists()


def in_scope(scope: MemoryScope) -> ColumnElement[bool]:
    columns = memory_facts.c
    return (columns.tenant == scope.tenant) & (columns.owner == scope.owner) & (columns.workflow == scope.workflow)


def has_to_do_with(tenant: str, person: str) -> ColumnElement[bool]:
    """Whether a fact is about a person, or they wrote a version of it, themselves or by an agent that acted for them."""
    columns, older = memory_facts.c, memory_versions.c
    wrote = select(older.fact_id).where(older.tenant == tenant, older.author == person)
    return (columns.tenant == tenant) & or_(columns.owner == person, columns.author == person, columns.id.in_(wrote))


def versions_of(tenant: str, fact_id: str) -> "Select[Any]":
    """The older versions of a fact, the newest first."""
    older = memory_versions.c
    return select(memory_versions).where(older.tenant == tenant, older.fact_id == fact_id).order_by(older.version.desc())
