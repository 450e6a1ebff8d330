"""Sessions of signed-in people: begun by a code, continued by refresh tokens that are used once, ended with all tokens."""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, select

from adapters.oauth.grants import challenge_for
from gateway.ingress.oauth.sign_in.tables import sign_in_sessions as sessions
from gateway.ingress.oauth.sign_in.tables import sign_in_tokens as tokens
from gateway.storage.database import Batch, Database, raise_epoch
from policies.delegation.chain import Principal
from policies.ids import new_id
from policies.tokens.hop_tokens import ExchangeRefused
from policies.vault.envelope import CannotOpen, EnvelopeEncryption, SealedSecret

SECOND_US: Final = 1_000_000
CODE_SECONDS: Final = 120
EPOCH: Final = "sign-ins"
KEPT_US: Final = 86_400 * SECOND_US  # an ended session, whose tokens are still known as used
NO_SECRET: Final = SealedSecret("", "", "")
_INSERT: Final = (
    "INSERT INTO sign_in_sessions (tenant, id, owner, roles, provider, client_id, client_name, resource, scope, thumbprint, "
    "kek_id, wrapped, body, created, renewed, until, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
)
_INSERT_ONE_TIME: Final = (
    "INSERT INTO sign_in_tokens (digest, tenant, session_id, kind, redirect_uri, challenge, spent, until) VALUES (?, ?, ?, ?, ?, ?, 0, ?)"
)
_SPEND: Final = "UPDATE sign_in_tokens SET spent = ? WHERE digest = ? AND spent = 0"
_UNSPEND: Final = "UPDATE sign_in_tokens SET spent = 0 WHERE digest = ? AND spent = ?"
_END: Final = "UPDATE sign_in_sessions SET ended = ?, kek_id = '', wrapped = '', body = '' WHERE tenant = ? AND id = ? AND ended = 0"
_RENEW: Final = (
    "UPDATE sign_in_sessions SET roles = ?, kek_id = ?, wrapped = ?, body = ?, renewed = ?, until = ?, thumbprint = ?, renewing = 0 "
    "WHERE tenant = ? AND id = ? AND ended = 0"
)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class SignedInPerson:
    """A person after the login at `provider` ("": as a development user), with the provider's refresh token, if it gave one."""

    principal: Principal
    provider: str
    refresh_token: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A session. Times are microseconds since 1970; `ended` is 0 while it lasts. `refresh_token` is the provider's."""

    id: str
    person: SignedInPerson
    client_id: str
    client_name: str
    resource: str
    scope: str
    thumbprint: str
    created: int
    renewed: int
    until: int
    ended: int = 0


@dataclass(frozen=True, slots=True)
class CodeBinding:
    """What a code is bound to: the redirect URI of its request, and the challenge of its client (RFC 7636)."""

    redirect_uri: str
    challenge: str


@dataclass(frozen=True, slots=True)
class CodeProof:
    """What a client shows with a code: itself, the redirect URI and the verifier of its request, and the resource, or ""."""

    client_id: str
    redirect_uri: str
    verifier: str
    resource: str


@dataclass(frozen=True, slots=True)
class SpentToken:
    """A code or refresh token that this request has used up, and its session. `at` identifies the use."""

    session: Session
    digest: str
    at: int


@dataclass(frozen=True, slots=True)
class SessionLives:
    """Seconds that a session lasts: since the sign-in where its roles can't be renewed, else since the provider renewed them."""

    fixed: int
    renewed: int


RecordAudit = Callable[[Batch, Mapping[str, Any]], None]


class SignInSessions:
    """Stores sessions. Codes and refresh tokens are stored as digests. `now` counts microseconds since 1970.

    `on_end` tells this process of an ended session at once; the epoch tells the others.
    """

    def __init__(
        self,
        database: Database,
        envelope: EnvelopeEncryption,
        lives: SessionLives,
        now: Callable[[], int],
        record_audit: RecordAudit,
        *,
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._envelope = envelope
        self._lives = lives
        self._now = now
        self._record_audit = record_audit
        self._on_end = on_end

    def open(self, batch: Batch, session: Session) -> None:
        """Adds a session in the transaction of the batch. It lasts as long as `session` says."""
        person = session.person
        principal, sealed = person.principal, self._seal(person, session.id)
        given = (session.client_id, session.client_name, session.resource, session.scope, session.thumbprint)
        values = (principal.tenant, session.id, principal.owner_key, _encode(principal.roles).decode(), person.provider, *given, *sealed)
        batch.run(_INSERT, (*values, session.created, session.renewed, session.until))
        self._record_audit(batch, session_record(session, "signed-in", place=session.resource, scope=session.scope))

    def open_briefly(self, batch: Batch, session: Session) -> None:
        """Adds a session that lasts no longer than a code, until its client has the first tokens."""
        self.open(batch, replace(session, until=self._now() + CODE_SECONDS * SECOND_US))

    def new_session(self, person: SignedInPerson, client_id: str, client_name: str, resource: str, scope: str) -> Session:
        """A session that begins now and is not stored yet."""
        now = self._now()
        until = now + (self._lives.renewed if person.refresh_token else self._lives.fixed) * SECOND_US
        return Session(new_id("s"), person, client_id, client_name, resource, scope, "", now, now, until)

    async def open_with_code(self, session: Session, binding: CodeBinding, also: Callable[[Batch], None]) -> str:
        """Adds a session that a code begins, and returns the code. `also` runs in the same transaction.

        Until the code is redeemed, the session lasts no longer than the code.
        """
        code, until = _new_secret("ic"), self._now() + CODE_SECONDS * SECOND_US
        row = (_digest(code), session.person.principal.tenant, session.id, "code", binding.redirect_uri, binding.challenge)

        def work(batch: Batch) -> None:
            self.open_briefly(batch, session)
            batch.run(_INSERT_ONE_TIME, (*row, until))
            also(batch)

        await self._database.write(work)
        return code

    async def redeem_code(self, code: str, proof: CodeProof) -> SpentToken:
        """Uses up a code. Raises ExchangeRefused; the second use of a code ends the session that it began (RFC 6749 s4.1.2)."""
        row, session = await self._find_token(code, "code", proof.client_id)
        is_same_place = hmac.compare_digest(row.redirect_uri.encode(), proof.redirect_uri.encode())
        if not hmac.compare_digest(row.challenge, challenge_for(proof.verifier)) or not is_same_place:
            raise _invalid_grant()
        check_resource(proof.resource, session)
        return await self._spend(row, session)

    async def spend_refresh_token(self, token: str, client_id: str) -> SpentToken:
        """Uses up a refresh token. Raises ExchangeRefused; the second use of one ends the session (RFC 9700 s4.14.2)."""
        return await self._spend(*await self._find_token(token, "refresh", client_id))

    async def give_back(self, spent: SpentToken) -> None:
        """Makes a refresh token usable again, because the provider could not be asked."""
        await self._database.write(lambda batch: batch.run(_UNSPEND, (spent.digest, spent.at)))

    async def renew(self, session: Session, with_refresh_token: bool = True) -> str:
        """Stores the session's renewed person, and returns its next refresh token. Raises ExchangeRefused for a session that has ended."""
        principal, sealed = session.person.principal, self._seal(session.person, session.id)
        token = _new_secret("ir") if with_refresh_token else ""
        key = (principal.tenant, session.id)
        values = (_encode(principal.roles).decode(), *sealed, session.renewed, session.until, session.thumbprint, *key)

        def work(batch: Batch) -> bool:
            if batch.run(_RENEW, values) != 1:
                return False
            if token:
                batch.run(_INSERT_ONE_TIME, (_digest(token), *key, "refresh", "", "", session.until))
            return True

        if not await self._database.write(work):
            raise _invalid_grant()
        return token

    def begun_session(self, session: Session, thumbprint: str) -> Session:
        """The session once its client has the first tokens: with its whole life, and bound to the client's key, if it has one."""
        life = self._lives.renewed if session.person.refresh_token else self._lives.fixed
        return replace(session, until=session.created + life * SECOND_US, thumbprint=thumbprint)

    def renewed_session(self, session: Session, person: SignedInPerson) -> Session:
        """The session after its provider vouched for the person again, from now on."""
        now = self._now()
        return replace(session, person=person, renewed=now, until=now + self._lives.renewed * SECOND_US)

    def is_overdue(self, session: Session) -> bool:
        """Whether a session whose roles can't be renewed has lasted for its whole life."""
        return session.created + self._lives.fixed * SECOND_US <= self._now()

    async def end(self, session: Session, why: str) -> bool:
        """Ends a session with all of its tokens, in every process; False where it has ended already."""
        tenant, now = session.person.principal.tenant, self._now()

        def work(batch: Batch) -> bool:
            if batch.run(_END, (now, tenant, session.id)) != 1:
                return False
            self._record_audit(batch, session_record(session, "signed-out", why=why))
            raise_epoch(batch, EPOCH)
            return True

        has_ended = await self._database.write(work)
        await self._on_end()
        return has_ended

    async def find(self, tenant: str, session_id: str) -> Session | None:
        """The session that lasts; else None."""
        where = (sessions.c.tenant == tenant, sessions.c.id == session_id, sessions.c.ended == 0, sessions.c.until > self._now())
        row = await self._database.read(lambda connection: connection.execute(select(sessions).where(*where)).first())
        return None if row is None else _session_from_row(row, self._envelope)

    async def list_of(self, tenant: str, owner: str, limit: int = 200) -> list[Session]:
        """The sessions of a person that last, the newest first."""
        where = (sessions.c.tenant == tenant, sessions.c.owner == owner, sessions.c.ended == 0, sessions.c.until > self._now())
        wanted = select(sessions).where(*where).order_by(sessions.c.created.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(wanted).all())
        return [_session_from_row(row, self._envelope) for row in rows]

    async def find_by_refresh_token(self, token: str, client_id: str) -> Session | None:
        """The session of a refresh token of this client, used or not, ended or not; else None."""
        found = await self._read_token(token)
        return found[1] if found is not None and found[0].kind == "refresh" and found[1].client_id == client_id else None

    async def holds_token(self, token: str, client_id: str) -> bool:
        """Whether a code or refresh token is of this client, used or not."""
        found = await self._read_token(token)
        return found is not None and found[1].client_id == client_id

    async def _find_token(self, token: str, kind: str, client_id: str) -> "tuple[Row[Any], Session]":
        """The row of a token of this client and its session, whether it is used up or not. Raises ExchangeRefused."""
        found = await self._read_token(token)
        if found is None or found[0].kind != kind or found[1].client_id != client_id:
            raise _invalid_grant()
        row, session = found
        if row.spent:
            await self.end(session, f"{kind}-reused")
            raise _invalid_grant()
        if row.until <= self._now() or session.until <= self._now() or session.ended:
            raise _invalid_grant()
        return row, session

    async def _read_token(self, token: str) -> "tuple[Row[Any], Session] | None":
        digest = _digest(token)

        def read(connection: Connection) -> "tuple[Row[Any], Row[Any]] | None":
            row = connection.execute(select(tokens).where(tokens.c.digest == digest)).first()
            if row is None:
                return None
            where = (sessions.c.tenant == row.tenant, sessions.c.id == row.session_id)
            return row, connection.execute(select(sessions).where(*where)).one()

        found = await self._database.read(read)
        return None if found is None else (found[0], _session_from_row(found[1], self._envelope))

    async def _spend(self, row: "Row[Any]", session: Session) -> SpentToken:
        """Uses up a token: of several requests at once, only one succeeds, and the others end the session."""
        at = self._now()
        if await self._database.write(lambda batch: batch.run(_SPEND, (at, row.digest))) != 1:
            await self.end(session, f"{row.kind}-reused")
            raise _invalid_grant()
        return SpentToken(session, row.digest, at)

    def _seal(self, person: SignedInPerson, session_id: str) -> SealedSecret:
        if not person.refresh_token:
            return NO_SECRET
        return self._envelope.seal(session_context(person.principal.tenant, session_id), person.refresh_token.encode())


def _session_from_row(row: "Row[Any]", envelope: EnvelopeEncryption) -> Session:
    """The session of a row. A secret that can't be opened counts as missing."""
    _, issuer, subject = row.owner.split("|", 2)
    refresh_token = ""
    if row.kek_id:
        try:
            sealed = SealedSecret(row.kek_id, row.wrapped, row.body)
            refresh_token = envelope.open(session_context(row.tenant, row.id), sealed).decode()
        except CannotOpen:
            refresh_token = ""
    principal = Principal(row.tenant, issuer, subject, msgspec.json.decode(row.roles, type=tuple[str, ...]))
    person = SignedInPerson(principal, row.provider, refresh_token)
    given = (row.client_id, row.client_name, row.resource, row.scope, row.thumbprint)
    return Session(row.id, person, *given, row.created, row.renewed, row.until, row.ended)


async def delete_old(database: Database, now: int) -> None:
    """Deletes sessions that are over for a day, with their tokens, and logins, devices and registrations that have expired."""

    def work(batch: Batch) -> None:
        for name in ("sign_in_sessions", "sign_in_tokens"):
            batch.run(f"DELETE FROM {name} WHERE until < ?", (now - KEPT_US,))  # noqa: S608 (names of our own tables)
        for name in ("sign_in_attempts", "sign_in_devices", "sign_in_clients"):
            batch.run(f"DELETE FROM {name} WHERE until < ?", (now,))  # noqa: S608 (names of our own tables)

    await database.write(work)


def check_resource(resource: str, session: Session) -> None:
    """Raises ExchangeRefused for another resource than the one that the person consented to (RFC 8707 s2.2); "" is that one."""
    if resource and resource.removesuffix("/") != session.resource:
        raise ExchangeRefused("invalid_target", "the resource is another than the one of the sign-in")


def session_context(tenant: str, session_id: str) -> tuple[str, ...]:
    """The encryption context of a session's secret."""
    return ("sign-in", tenant, session_id)


def session_record(session: Session, act: str, **more: str) -> dict[str, Any]:
    """The audit record of a session that a person began (`signed-in`), or that ended (`signed-out`)."""
    principal = session.person.principal
    members = {"kind": "session", "tenant": principal.tenant, "decision_id": "", "txn": "", "act": act, "session_id": session.id}
    person = {"issuer": principal.issuer, "subject": principal.subject}
    return {**members, "principal": person, "client_id": session.client_id, **more}


def _invalid_grant() -> ExchangeRefused:
    return ExchangeRefused("invalid_grant", "the code or refresh token is not valid for this client and request; sign in again")


def _new_secret(prefix: str) -> str:
    """256 random bits as base64url. The prefix lets scanners find leaked tokens."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
