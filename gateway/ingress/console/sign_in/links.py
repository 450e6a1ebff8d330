"""One-time links to the console: each is good for five minutes and one use, and makes a session of the person who asked for it."""

import secrets
from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, select

from gateway.ingress.console.sign_in.sessions import (
    ConsoleSessions,
    ProvenPerson,
    RecordAudit,
    digest_of,
    person_columns,
    person_from_columns,
    session_record,
)
from gateway.ingress.console.sign_in.tables import console_links as table
from gateway.storage.database import Batch, Database

LINK_SECONDS = 300.0
PER_PERSON_MAX = 10  # open links of one person; the oldest gives way
_INSERT = (
    "INSERT INTO console_links (digest, tenant, issuer, subject, roles, scope, sign_in, session_until, created, until) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DELETE_OLDEST = (
    "DELETE FROM console_links WHERE digest IN (SELECT digest FROM console_links "
    "WHERE tenant = ? AND issuer = ? AND subject = ? ORDER BY created DESC LIMIT 1000 OFFSET ?)"
)


class LinkSpent(Exception):
    """The link does not exist, was used, or has expired."""


class ConsoleLinks:
    """Makes links and redeems them. `now` returns microseconds since 1970."""

    def __init__(self, database: Database, sessions: ConsoleSessions, now: Callable[[], int], record_audit: RecordAudit) -> None:
        self._database = database
        self._sessions = sessions
        self._now = now
        self._record_audit = record_audit

    async def create(self, person: ProvenPerson) -> str:
        """Returns the secret of a new link for a person."""
        secret, now, who = secrets.token_urlsafe(32), self._now(), person.principal
        times = (int(min(person.until, 1e12) * 1e6), now, now + int(LINK_SECONDS * 1e6))

        def work(batch: Batch) -> None:
            batch.run("DELETE FROM console_links WHERE until < ?", (now,))
            batch.run(_DELETE_OLDEST, (who.tenant, who.issuer, who.subject, PER_PERSON_MAX - 1))
            batch.run(_INSERT, (digest_of(secret), *person_columns(person), *times))
            self._record_audit(batch, session_record(who, "link-made"))

        await self._database.write(work)
        return secret

    async def find(self, secret: str) -> ProvenPerson:
        """Returns for whom a link is that was not used yet. Raises LinkSpent."""
        digest = digest_of(secret)
        row = await self._database.read(lambda connection: connection.execute(select(table).where(table.c.digest == digest)).first())
        return self._check(row)

    async def redeem(self, secret: str, former_cookie: str) -> tuple[str, ProvenPerson]:
        """Opens the session of a link, in one commit with the end of the link. Returns its cookie and its person. Raises LinkSpent."""
        digest = digest_of(secret)

        def work(batch: Batch) -> tuple[str, ProvenPerson]:
            row = batch.connection.execute(select(table).where(table.c.digest == digest)).first()
            person = self._check(row)
            if batch.run("DELETE FROM console_links WHERE digest = ?", (digest,)) != 1:
                raise LinkSpent
            return self._sessions.open_in(batch, person, "link", former_cookie), person

        async with self._sessions.replacing(former_cookie):
            return await self._database.write_or_refuse(work, LinkSpent)

    def _check(self, row: "Row[Any] | None") -> ProvenPerson:
        if row is None or row.until <= self._now() or row.session_until <= self._now():
            raise LinkSpent
        return person_from_columns(row, row.session_until)
