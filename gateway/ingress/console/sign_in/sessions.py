"""Sessions of browsers. `ConsoleSessions.open` is the one place where a proven person gets a session."""

import hashlib
import hmac
import json
import math
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqlalchemy import Row, select

from gateway.ingress.console.sign_in.tables import console_sessions as table
from gateway.storage.database import Batch, Database
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from policies.delegation.chain import Principal
from policies.delegation.permissions import Permissions

SESSION_SECONDS = 8 * 3600.0  # a session ends then at the latest
IDLE_SECONDS = 3600.0  # a session that asked for no page for that long has ended
SEEN_SECONDS = 60.0  # how exactly `seen` is stored
PER_PERSON_MAX = 20  # sessions of one person; the oldest gives way
_INSERT = (
    "INSERT INTO console_sessions (digest, tenant, issuer, subject, roles, scope, sign_in, created, seen, until) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DELETE_OLDEST = (
    "DELETE FROM console_sessions WHERE digest IN (SELECT digest FROM console_sessions "
    "WHERE tenant = ? AND issuer = ? AND subject = ? ORDER BY created DESC LIMIT 1000 OFFSET ?)"
)
_DELETE_OVER = "DELETE FROM console_sessions WHERE until < ? OR seen < ?"
RecordAudit = Callable[[Batch, Mapping[str, Any]], None]


class NoSession(Exception):
    """The browser has no session, or its session has ended."""


@dataclass(frozen=True, slots=True)
class ProvenPerson:
    """A person whom a token proved, and what that token allowed.

    `principal.roles` are those that the issuer vouched for. `until`: seconds since 1970 at which a session of theirs ends. `sign_in` is
    the sign-in at the gateway that the token belongs to, whose end is that of the session; "" for a token of another issuer.
    """

    principal: Principal
    scope: Permissions
    until: float
    sign_in: str = ""


class SignIns(Protocol):
    """The sign-ins of people at the gateway."""

    async def find_person(self, tenant: str, session_id: str) -> tuple[Principal, float] | None:
        """The person of a sign-in that lasts, with the roles that count now, and until when they do; None where it has ended.

        Raises SignInNotRenewed while the roles can't be renewed.
        """

    async def end_browser_session(self, tenant: str, session_id: str) -> None:
        """Ends a sign-in that no client has but a browser."""


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A session of a browser. `csrf` is what each form of its pages carries."""

    digest: str
    person: ProvenPerson
    created: float
    csrf: str = field(repr=False)

    @property
    def ends_by(self) -> float:
        """When the session has ended at the latest, in seconds since 1970. The roles of `person` count for a shorter time."""
        return self.created + SESSION_SECONDS


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session of a browser as its person sees it. Times are microseconds since 1970."""

    digest: str = field(repr=False)
    created: int
    seen: int
    until: int
    sign_in: str

    @property
    def id(self) -> str:
        return session_id_of(self.digest)

    def to_document(self) -> dict[str, Any]:
        """Returns the session as /api shows it. `session_id` is that of the sign-in, of one that a link opened None."""
        times = {"since": self.created, "seen": self.seen, "until": min(self.until, self.seen + int(IDLE_SECONDS * 1e6))}
        return {"id": self.id, **{name: to_rfc3339(at) for name, at in times.items()}, "session_id": self.sign_in or None}


def proven_person_of(caller: Caller) -> ProvenPerson:
    """Returns the person of a token, for a session that ends with the token's sign-in, or else with the token."""
    until = math.inf if caller.session_id else caller.expires
    return ProvenPerson(caller.principal, caller.delegation.scope, until, caller.session_id)


class ConsoleSessions:
    """Opens, finds and ends sessions. `now` returns microseconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], int], record_audit: RecordAudit, sign_ins: SignIns) -> None:
        self._database = database
        self._now = now
        self._record_audit = record_audit
        self._sign_ins = sign_ins

    async def open(self, person: ProvenPerson, via: str, former_cookie: str, also: Callable[[Batch], None]) -> str:
        """Opens a session for a proven person and returns its cookie. Every way to sign in ends here, after it has proven the person.

        `via` says in the audit how the person was proven. The session of `former_cookie` ends: no cookie outlives a sign-in. `also` runs in
        the same commit.
        """

        def work(batch: Batch) -> str:
            also(batch)
            return self.open_in(batch, person, via, former_cookie)

        async with self.replacing(former_cookie):
            return await self._database.write(work)

    @asynccontextmanager
    async def replacing(self, former_cookie: str) -> AsyncIterator[None]:
        """Ends the sign-in of the session of `former_cookie`, if it is this browser's alone, once another session is open."""
        digest = digest_of(former_cookie)
        former = await self._database.read(lambda connection: connection.execute(select(table).where(table.c.digest == digest)).first())
        yield
        if former is not None and former.sign_in:
            await self._sign_ins.end_browser_session(former.tenant, former.sign_in)

    def open_in(self, batch: Batch, person: ProvenPerson, via: str, former_cookie: str) -> str:
        """Does what `open` does in a commit of the caller's."""
        cookie, now, who = secrets.token_urlsafe(32), self._now(), person.principal
        until = min(now + int(SESSION_SECONDS * 1e6), int(min(person.until, 1e12) * 1e6))
        batch.run(_DELETE_OVER, (now, now - int(IDLE_SECONDS * 1e6)))
        if former_cookie:
            batch.run("DELETE FROM console_sessions WHERE digest = ?", (digest_of(former_cookie),))
        batch.run(_DELETE_OLDEST, (who.tenant, who.issuer, who.subject, PER_PERSON_MAX - 1))
        batch.run(_INSERT, (digest_of(cookie), *person_columns(person), now, now, until))
        self._record_audit(batch, session_record(who, "signed-in", via=via))
        return cookie

    async def find(self, cookie: str, *, is_activity: bool = True) -> BrowserSession:
        """Returns the session of a cookie. `is_activity`: the person asked, and not a script of the page.

        Raises NoSession, and SignInNotRenewed while it is not known whether the person still has their roles.
        """
        digest, now = digest_of(cookie), self._now()
        row = await self._database.read(lambda connection: connection.execute(select(table).where(table.c.digest == digest)).first())
        if not cookie or row is None or row.until <= now or row.seen <= now - int(IDLE_SECONDS * 1e6):
            raise NoSession
        if is_activity and row.seen < now - int(SEEN_SECONDS * 1e6):
            values = (now, digest)
            await self._database.write(lambda batch: batch.run("UPDATE console_sessions SET seen = ? WHERE digest = ?", values))
        csrf = urlsafe_b64encode(hmac.digest(cookie.encode(), b"console form", "sha256")).decode()
        return BrowserSession(digest, await self._current_person(row), row.created / 1e6, csrf)

    async def _current_person(self, row: "Row[Any]") -> ProvenPerson:
        """The person of a session. One of a sign-in has the roles of now, for as long as a token would have them. Raises NoSession."""
        person = person_from_columns(row, row.until)
        if not person.sign_in:
            return person
        found = await self._sign_ins.find_person(row.tenant, row.sign_in)
        if found is None:
            raise NoSession
        principal, until = found
        return replace(person, principal=principal, until=min(person.until, until))

    async def list_of(self, who: Principal) -> list[ListedSession]:
        """Returns the sessions of a person's browsers that last, the newest first."""
        now, columns = self._now(), table.c
        match = (columns.tenant == who.tenant) & (columns.issuer == who.issuer) & (columns.subject == who.subject)
        lasts = (columns.until > now) & (columns.seen > now - int(IDLE_SECONDS * 1e6))
        query = select(table).where(match, lasts).order_by(columns.created.desc()).limit(PER_PERSON_MAX)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [ListedSession(row.digest, row.created, row.seen, row.until, row.sign_in) for row in rows]

    async def end(self, who: Principal, session_id: str) -> bool:
        """Ends a session of a browser of this person; False where they have no such session."""
        found = next((each for each in await self.list_of(who) if each.id == session_id), None)
        if found is None:
            return False
        await self._end(found.digest, who, found.sign_in, "ended-by-person")
        return True

    async def close(self, session: BrowserSession) -> None:
        """Ends a session, and with it the sign-in of this browser. A sign-in of a client goes on."""
        await self._end(session.digest, session.person.principal, session.person.sign_in, "signed-out")

    async def _end(self, digest: str, who: Principal, sign_in: str, act: str) -> None:
        def work(batch: Batch) -> None:
            if batch.run("DELETE FROM console_sessions WHERE digest = ?", (digest,)):
                self._record_audit(batch, session_record(who, act))

        await self._database.write(work)
        if sign_in:
            await self._sign_ins.end_browser_session(who.tenant, sign_in)


def person_columns(person: ProvenPerson) -> tuple[str, ...]:
    """Returns the values of the columns that say for whom a link or a session is."""
    who = person.principal
    return (who.tenant, who.issuer, who.subject, json.dumps(who.roles), str(person.scope), person.sign_in)


def person_from_columns(row: "Row[Any]", until: int) -> ProvenPerson:
    """Returns the person of a row. `until`: microseconds since 1970."""
    principal = Principal(row.tenant, row.issuer, row.subject, tuple(json.loads(row.roles)))
    return ProvenPerson(principal, Permissions.parse(row.scope.split()), until / 1e6, row.sign_in)


def session_record(who: Principal, act: str, **more: str) -> dict[str, Any]:
    """Returns the audit record of a link that was made, of a sign-in or of a sign-out."""
    members = {"kind": "console", "tenant": who.tenant, "decision_id": "", "txn": "", "act": act}
    return {**members, "principal": {"issuer": who.issuer, "subject": who.subject}, **more}


def digest_of(secret: str) -> str:
    """Returns what the database stores of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def session_id_of(digest: str) -> str:
    """Returns the name of a session, which opens nothing."""
    return f"cs_{digest_of(digest)[:24]}"


def seconds_left(person: ProvenPerson, now: float) -> int:
    """Returns how long a cookie of this session is good, in whole seconds."""
    return max(0, math.floor(min(person.until - now, SESSION_SECONDS)))
