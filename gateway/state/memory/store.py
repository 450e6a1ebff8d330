"""Stores facts, corrects them, and deletes them with everything that was kept of them. Rights are checked by access.py."""

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Row, select

from gateway.state.memory.facts import (
    VERSIONS_MAX,
    Authorship,
    BadFact,
    Correction,
    Fact,
    FactChanged,
    MemoryFull,
    MemoryScope,
    NewFact,
    UnknownFact,
    WrittenByPerson,
    check_expiry,
    check_sensitivity,
    checked_text,
    source_columns,
)
from gateway.state.memory.index import add_terms, remove_terms
from gateway.state.memory.rows import fact_from_row, has_to_do_with, in_scope, is_found
from gateway.state.memory.tables import memory_facts, memory_scopes, memory_versions
from gateway.state.memory.words import keyed_digest, terms_of, words_of
from gateway.storage.database import Batch, Database
from policies.audit.log import AuditLog
from policies.delegation.history import read_totals

SALT_BYTES: Final = 16
SWEPT_MAX: Final = 1000  # expired facts that one round deletes
DELETED_AT_ONCE: Final = 500  # facts that one statement deletes
_OPEN_SCOPE: Final = (
    "INSERT INTO memory_scopes (tenant, owner, workflow, salt, facts) VALUES (?, ?, ?, ?, 0) "
    "ON CONFLICT (tenant, owner, workflow) DO NOTHING"
)
_COUNT: Final = "UPDATE memory_scopes SET facts = facts + ? WHERE tenant = ? AND owner = ? AND workflow = ?"
_CORRECT: Final = (
    "UPDATE memory_facts SET version = ?, text = ?, digest = ?, sensitivity = ?, agent = ?, task_id = ?, author = ?, "
    "updated = ?, expires = ? WHERE tenant = ? AND id = ?"
)
_CLOSE_SCOPE: Final = "DELETE FROM memory_scopes WHERE tenant = ? AND owner = ? AND workflow = ?"


class FactWriter(Struct, frozen=True):
    """A writer of facts with its transaction and ruling, and with what it may see, since it corrects only what it can read."""

    source: Authorship
    txn: str = ""
    decision_id: str = ""
    clearance: int = 3


class FactStore:
    """Writes facts, with an audit record in the same commit that names a fact and has nothing of its text."""

    def __init__(
        self, database: Database, audit: AuditLog, *, new_id: Callable[[str], str], now: Callable[[], int], facts_max: int
    ) -> None:
        """`facts_max`: how many facts a person, or a workflow, may have."""
        self.database = database
        self.now = now
        self._audit = audit
        self._new_id = new_id
        self._facts_max = facts_max

    async def put(self, scope: MemoryScope, new: NewFact, writer: FactWriter) -> tuple[Fact, bool]:
        """Stores a fact, and returns it and whether it is new: the same text of the same source is stored once.

        A fact is at least as sensitive as what the writer's transaction has read. Raises BadFact and MemoryFull.
        """
        text, now = checked_text(new.text), self.now()
        check_sensitivity(new.sensitivity)
        check_expiry(new.expires, now)

        def work(batch: Batch) -> tuple[Fact, bool]:
            salt, count = _take_place(batch, scope)
            digest = keyed_digest(text, salt)
            if (known := _same_fact(batch, scope, digest, writer, now)) is not None:
                _count(batch, scope, -1)
                return known, False
            if count > self._facts_max and count - self._delete_expired(batch, in_scope(scope), now) > self._facts_max:
                _count(batch, scope, -1)
                raise MemoryFull(f"the scope has {self._facts_max} facts already; forget some first")
            sensitivity = max(new.sensitivity, _taint_of(batch, scope.tenant, writer))
            fact = Fact(self._new_id("f"), scope, 1, text, sensitivity, writer.source, now, now, new.expires)
            self._add(batch, fact, digest, salt)
            self._record(batch, "memory-put", fact, writer)
            return fact, True

        return await self.database.write_or_refuse(work, MemoryFull)

    def _add(self, batch: Batch, fact: Fact, digest: str, salt: str) -> None:
        scope, number = fact.scope, _number_of(fact.scope.tenant, fact.id)
        row = {"id": fact.id, "number": number, "tenant": scope.tenant, "owner": scope.owner, "workflow": scope.workflow}
        row |= {"version": fact.version, "text": fact.text, "digest": digest, "sensitivity": fact.sensitivity}
        times = {"created": fact.created, "updated": fact.updated, "expires": fact.expires}
        batch.add(memory_facts, {**row, **source_columns(fact.source), **times})
        add_terms(batch, number, terms_of(words_of(fact.text), salt))

    async def correct(self, fact: Fact, change: Correction, writer: FactWriter) -> Fact:
        """Writes a new version, and keeps the current one in the history. `fact` is as the writer was allowed to see it.

        An agent can neither lower a sensitivity nor change what a person wrote. Raises BadFact, UnknownFact, FactChanged, MemoryFull and
        WrittenByPerson.
        """
        now = self.now()
        text = None if change.text is None else checked_text(change.text)
        check_sensitivity(change.sensitivity)
        check_expiry(change.expires, now)
        if text is None and change.sensitivity is None and change.expires is None:
            raise BadFact("text", "is missing: there is nothing to correct")

        def work(batch: Batch) -> Fact:
            row, current = _lock_fact(batch, fact, writer, now)
            if change.version not in (None, current.version):
                raise FactChanged
            if current.version >= VERSIONS_MAX:
                raise MemoryFull(f"the fact has {VERSIONS_MAX} versions; forget it and put it anew")
            least = max(_taint_of(batch, fact.scope.tenant, writer), current.sensitivity if writer.source.agent else 0)
            wanted = current.sensitivity if change.sensitivity is None else change.sensitivity
            newer = replace(
                current,
                version=current.version + 1,
                text=current.text if text is None else text,
                sensitivity=max(wanted, least),
                source=writer.source,
                updated=now,
                expires=current.expires if change.expires is None else change.expires,
            )
            self._replace(batch, row, current, newer)
            self._record(batch, "memory-corrected", newer, writer)
            return newer

        return await self.database.write_or_refuse(work, UnknownFact, WrittenByPerson, FactChanged, MemoryFull)

    def _replace(self, batch: Batch, row: Row[Any], current: Fact, newer: Fact) -> None:
        kept = {"tenant": row.tenant, "fact_id": row.id, "version": current.version, "text": current.text, "at": current.updated}
        batch.add(memory_versions, {**kept, "sensitivity": current.sensitivity, **source_columns(current.source)})
        salt, _ = _read_scope(batch, current.scope)
        source, digest = newer.source, keyed_digest(newer.text, salt)
        said = (newer.version, newer.text, digest, newer.sensitivity, source.agent, source.task_id, source.author)
        batch.run(_CORRECT, (*said, newer.updated, newer.expires, row.tenant, row.id))
        if newer.text != current.text:
            remove_terms(batch, [row.number])
            add_terms(batch, row.number, terms_of(words_of(newer.text), salt))

    async def forget(self, fact: Fact, writer: FactWriter) -> None:
        """Deletes a fact with its history. Raises UnknownFact, and WrittenByPerson for an agent."""

        def work(batch: Batch) -> None:
            row, current = _lock_fact(batch, fact, writer, self.now())
            _delete_rows(batch, [row])
            self._record(batch, "memory-forgotten", current, writer)

        await self.database.write_or_refuse(work, UnknownFact, WrittenByPerson)

    async def erase(self, tenant: str, person: str, writer: FactWriter) -> int:
        """Deletes every fact about a person, and every one that they or agents for them wrote or corrected; returns how many.

        Nothing of them is left in any table of memory. The salt of the person's scope goes too.
        """

        def work(batch: Batch) -> int:
            scope = MemoryScope(tenant, person)
            count = _delete_all(batch, has_to_do_with(tenant, person))
            _count(batch, scope, 0)  # from here on no process puts facts into the scope; those it has put until now are deleted too
            count += _delete_all(batch, in_scope(scope))
            batch.run(_CLOSE_SCOPE, scope.columns)
            record = {"kind": "memory-erased", "tenant": tenant, "txn": writer.txn, "task_id": "", "decision_id": writer.decision_id}
            self._audit.record(batch, {**record, "person": person, "by": writer.source.author, "count": count})
            return count

        return await self.database.write(work)

    async def sweep(self) -> None:
        """Deletes facts that have expired."""
        now, expired = self.now(), memory_facts.c.expires
        query = select(memory_facts.c.id).where(expired <= now).limit(1)
        if await self.database.read(lambda connection: connection.execute(query).first()) is not None:
            await self.database.write(lambda batch: self._delete_expired(batch, expired.is_not(None), now))

    def _delete_expired(self, batch: Batch, which: ColumnElement[bool], now: int) -> int:
        query = select(memory_facts).where(which, memory_facts.c.expires <= now).limit(SWEPT_MAX).with_for_update(skip_locked=True)
        rows = list(batch.connection.execute(query).all())
        _delete_rows(batch, rows)
        return len(rows)

    def _record(self, batch: Batch, kind: str, fact: Fact, writer: FactWriter) -> None:
        """Records a change without the text: a digest of a short text can be guessed."""
        where = {"tenant": fact.scope.tenant, "txn": writer.txn, "task_id": writer.source.task_id, "decision_id": writer.decision_id}
        what = {"fact_id": fact.id, "scope": fact.scope.name, "version": fact.version, "sensitivity": fact.sensitivity}
        self._audit.record(batch, {"kind": kind, **where, **what, "agent": writer.source.agent, "by": writer.source.author})


def _number_of(tenant: str, fact_id: str) -> int:
    """The row number in the index: 63 bits of a digest of the id."""
    return int.from_bytes(hashlib.sha256(f"{tenant}\n{fact_id}".encode()).digest()[:8]) >> 1


def _take_place(batch: Batch, scope: MemoryScope) -> tuple[str, int]:
    """Counts one more fact, which keeps other processes from counting in this scope until the commit; returns its salt and the count."""
    batch.run(_OPEN_SCOPE, (*scope.columns, secrets.token_hex(SALT_BYTES)))
    _count(batch, scope, 1)
    return _read_scope(batch, scope)


def _count(batch: Batch, scope: MemoryScope, more: int) -> None:
    batch.run(_COUNT, (more, *scope.columns))


def _read_scope(batch: Batch, scope: MemoryScope) -> tuple[str, int]:
    """The salt of a scope, and how many facts it has."""
    columns = memory_scopes.c
    mine = (columns.tenant == scope.tenant) & (columns.owner == scope.owner) & (columns.workflow == scope.workflow)
    row = batch.connection.execute(select(columns.salt, columns.facts).where(mine)).one()
    return row.salt, row.facts


def _same_fact(batch: Batch, scope: MemoryScope, digest: str, writer: FactWriter, now: int) -> Fact | None:
    """The fact with the same text that the same source wrote before, if the writer may see it."""
    columns = memory_facts.c
    same = in_scope(scope) & (columns.digest == digest) & (columns.agent == writer.source.agent) & (columns.author == writer.source.author)
    row = batch.connection.execute(select(memory_facts).where(same, is_found(writer.clearance, now)).limit(1)).first()
    return None if row is None else fact_from_row(row)


def _lock_fact(batch: Batch, fact: Fact, writer: FactWriter, now: int) -> tuple[Row[Any], Fact]:
    """The fact as it is now, which no other process changes until the commit. Raises UnknownFact, and WrittenByPerson for an agent."""
    columns = memory_facts.c
    query = select(memory_facts).where(in_scope(fact.scope), columns.id == fact.id, is_found(writer.clearance, now)).with_for_update()
    row = batch.connection.execute(query).first()
    if row is None:
        raise UnknownFact
    if writer.source.agent and not row.agent:
        raise WrittenByPerson("A person wrote this fact, and only people change it.")
    return row, fact_from_row(row)


def _taint_of(batch: Batch, tenant: str, writer: FactWriter) -> int:
    """The sensitivity of what the writer's transaction has read."""
    return read_totals(batch.connection, tenant, writer.txn).taint if writer.txn else 0


def _delete_all(batch: Batch, which: ColumnElement[bool]) -> int:
    rows = list(batch.connection.execute(select(memory_facts).where(which).with_for_update()).all())
    _delete_rows(batch, rows)
    return len(rows)


def _delete_rows(batch: Batch, rows: "list[Row[Any]]") -> None:
    """Deletes facts with their terms; their history goes with them."""
    remove_terms(batch, [row.number for row in rows])
    numbers = [row.number for row in rows]
    for at in range(0, len(numbers), DELETED_AT_ONCE):
        batch.connection.execute(memory_facts.delete().where(memory_facts.c.number.in_(numbers[at : at + DELETED_AT_ONCE])))
    counts = Counter((row.tenant, row.owner, row.workflow) for row in rows)
    for columns, count in sorted(counts.items()):  # so that processes wait in one order
        _count(batch, MemoryScope(*columns), -count)
