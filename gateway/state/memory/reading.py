"""Reads facts: pages of a scope, search by words, and everything about one person."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, and_, exists, or_, select, union

from gateway.state.memory.facts import Fact, MemoryScope, OldVersion, UnknownFact
from gateway.state.memory.index import ranked_ids
from gateway.state.memory.rows import fact_from_row, has_to_do_with, in_scope, is_found, is_quarantined, version_from_row, versions_of
from gateway.state.memory.tables import memory_facts, memory_quarantines, memory_scopes, memory_versions
from gateway.state.memory.words import query_words, terms_of
from gateway.storage.database import Database
from gateway.storage.paging import BadCursor, format_place, parse_place

EXPORTED_AT_ONCE: Final = 100


class FactView(Struct, frozen=True):
    """What a reader may see: the facts of one scope up to a sensitivity, at a moment in microseconds since 1970."""

    scope: MemoryScope
    clearance: int
    now: int


class FactPage(Struct, frozen=True):
    """Facts after `cursor`, at most `limit`; those with words of `query`, or all where it is empty."""

    query: str = ""
    cursor: str = ""
    limit: int = 50


class StoredFact(Struct, frozen=True):
    """A fact with its older versions, the newest first."""

    fact: Fact
    history: tuple[OldVersion, ...] = ()
    is_quarantined: bool = False


class FactReader:
    """Reads facts for callers with the right to see them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant: str, fact_id: str) -> Fact:
        """A fact of any scope, as the caller of this method has yet to check rights. Raises UnknownFact."""
        query = select(memory_facts).where(memory_facts.c.tenant == tenant, memory_facts.c.id == fact_id)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise UnknownFact
        return fact_from_row(row)

    async def read_with_history(self, view: FactView, fact_id: str) -> StoredFact:
        """A fact with the older versions that the reader may see. Raises UnknownFact."""

        def work(connection: Connection) -> StoredFact:
            visible = in_scope(view.scope) & is_found(view.clearance, view.now)
            row = connection.execute(select(memory_facts).where(visible, memory_facts.c.id == fact_id)).first()
            if row is None:
                raise UnknownFact
            older = versions_of(view.scope.tenant, fact_id).where(memory_versions.c.sensitivity <= view.clearance)
            return StoredFact(fact_from_row(row), tuple(map(version_from_row, connection.execute(older))))

        return await self._database.read(work)

    async def read_page(self, view: FactView, page: FactPage) -> tuple[list[Fact], str | None]:
        """A page of facts and the cursor of the next: the best match first, or without words the newest first.

        Raises BadCursor.
        """
        return await self._database.read(lambda connection: read_page(connection, view, page))

    async def find_people(self, tenant: str, subject: str) -> list[str]:
        """The people (tenant|issuer|subject) with this subject whom facts are about, or who wrote a version of one."""
        return await self._database.read(partial(_read_people, tenant=tenant, subject=subject))

    async def export(self, tenant: str, person: str) -> AsyncIterator[StoredFact]:
        """Yields every fact about a person, and every one that they or agents for them wrote or corrected, with its whole history."""
        found = await self._database.read(partial(_read_export, tenant=tenant, person=person, after=""))
        while found:
            for stored in found:
                yield stored
            found = await self._database.read(partial(_read_export, tenant=tenant, person=person, after=found[-1].fact.id))


def read_page(connection: Connection, view: FactView, page: FactPage) -> tuple[list[Fact], str | None]:
    """A page of facts within one transaction; see FactReader.read_page."""
    return _search(connection, view, page) if page.query.strip() else _newest(connection, view, page)


def _newest(connection: Connection, view: FactView, page: FactPage) -> tuple[list[Fact], str | None]:
    columns, query = memory_facts.c, select(memory_facts).where(in_scope(view.scope), is_found(view.clearance, view.now))
    if page.cursor:
        updated, fact_id = parse_place(page.cursor)
        query = query.where(or_(columns.updated < updated, and_(columns.updated == updated, columns.id < fact_id)))
    rows = connection.execute(query.order_by(columns.updated.desc(), columns.id.desc()).limit(page.limit + 1)).all()
    facts = [fact_from_row(row) for row in rows[: page.limit]]
    return facts, format_place(facts[-1].updated, facts[-1].id) if len(rows) > page.limit else None


def _search(connection: Connection, view: FactView, page: FactPage) -> tuple[list[Fact], str | None]:
    scope, words = view.scope, query_words(page.query)
    columns, after = memory_scopes.c, _parse_rank(page.cursor) if page.cursor else None
    mine = (columns.tenant == scope.tenant) & (columns.owner == scope.owner) & (columns.workflow == scope.workflow)
    has_quarantines = exists().where(memory_quarantines.c.tenant == scope.tenant)
    found = connection.execute(select(columns.salt, has_quarantines).where(mine)).first()
    if found is None or not words:
        return [], None
    limits = {"clearance": view.clearance, "now": view.now, "limit": page.limit + 1}
    wanted = {"tenant": scope.tenant, "owner": scope.owner, "workflow": scope.workflow, **limits}
    ranked = ranked_ids(connection, terms_of(words, found[0]), wanted, after, has_quarantines=bool(found[1]))
    shown = ranked[: page.limit]
    query = select(memory_facts).where(memory_facts.c.tenant == scope.tenant, memory_facts.c.id.in_([each[0] for each in shown]))
    facts = {row.id: fact_from_row(row) for row in connection.execute(query)}
    cursor = f"{shown[-1][2]}.{format_place(shown[-1][1], shown[-1][0])}" if len(ranked) > page.limit else None
    return [facts[fact_id] for fact_id, _, _ in shown if fact_id in facts], cursor


def _parse_rank(cursor: str) -> dict[str, Any]:
    """The place of the last fact of a page of a search. Raises BadCursor."""
    score, _, place = cursor.partition(".")
    if not (score.isascii() and score.isdigit() and len(score) < 19):
        raise BadCursor
    updated, fact_id = parse_place(place)
    return {"score": int(score), "updated": updated, "id": fact_id}


def _read_people(connection: Connection, tenant: str, subject: str) -> list[str]:
    columns = ((memory_facts, "owner"), (memory_facts, "author"), (memory_versions, "author"))
    named = (
        select(table.c[name]).where(table.c.tenant == tenant, table.c[name].endswith(f"|{subject}", autoescape=True))
        for table, name in columns
    )
    found = connection.execute(union(*named)).scalars()
    return sorted(person for person in found if person.split("|", 2)[-1] == subject)  # SQLite compares without case


def _read_export(connection: Connection, tenant: str, person: str, after: str) -> list[StoredFact]:
    columns = memory_facts.c
    query = select(memory_facts, is_quarantined().label("held")).where(has_to_do_with(tenant, person), columns.id > after)
    rows = connection.execute(query.order_by(columns.id).limit(EXPORTED_AT_ONCE)).all()
    older: dict[str, list[OldVersion]] = {}
    history = memory_versions.c
    named = select(memory_versions).where(history.tenant == tenant, history.fact_id.in_([row.id for row in rows]))
    for row in connection.execute(named.order_by(history.version.desc())):
        older.setdefault(row.fact_id, []).append(version_from_row(row))
    return [StoredFact(fact_from_row(row), tuple(older.get(row.id, ())), bool(row.held)) for row in rows]
