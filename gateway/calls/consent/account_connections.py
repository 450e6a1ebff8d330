"""Pending consents to connect an account: each is one page for one user, good for ten minutes at any process of the gateway."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Row, select

from adapters.contract import ConsentNeeded
from adapters.oauth.authorized import Consent
from gateway.storage.database import Batch, Database
from gateway.storage.tables import connections as table
from policies.delegation.rulings import Act
from policies.vault.credentials import CredentialKey
from policies.vault.envelope import CannotOpen, EnvelopeEncryption, SealedSecret

PAGE_SECONDS = 600.0
CONSENTED_SECONDS = 7 * 86_400.0  # how long a given consent is kept for waiting tasks
PER_OWNER_MAX = 20
MANAGE_CONNECTIONS = Act("manageConnections", "Key", "connections", "", "connections")  # users manage only their own: no policy applies
_INSERT = (
    "INSERT INTO connections (id, tenant, owner, consent, state, browser, kek_id, wrapped, body, until, given) "
    "VALUES (?, ?, ?, ?, ?, '', ?, ?, ?, ?, 0)"
)
_DELETE_OLDEST = (
    "DELETE FROM connections WHERE id IN (SELECT id FROM connections WHERE owner = ? AND given = 0 ORDER BY until DESC LIMIT 1000 OFFSET ?)"
)
_DELETE_OVER = "DELETE FROM connections WHERE (given = 0 AND until < ?) OR until < ?"
_encode = msgspec.json.Encoder(order="deterministic").encode


RecordConnection = Callable[[Batch, Mapping[str, Any]], None]


class UnknownConnection(Exception):
    """The page does not exist, has expired, or belongs to another user."""


class _Body(msgspec.Struct):
    consent: Consent
    state: str
    verifier: str


_decode_body = msgspec.json.Decoder(_Body).decode


@dataclass(frozen=True, slots=True)
class PendingConnection:
    """A consent that the user has not given yet.

    `state` comes back from the authorization server (RFC 6749 s10.12), `verifier` proves that the gateway sent the request (RFC 7636).
    `browser_digest` is the digest of the cookie of the browser in which the user signed in; only that browser may continue.
    """

    id: str
    consent: Consent
    state: str = field(repr=False)
    verifier: str = field(repr=False)
    browser_digest: str = field(default="", repr=False)


class AccountConnections:
    """Stores pending consents. The row of a task says that it waits for one (gateway/calls/resumption/consented.py).

    `now` returns microseconds since 1970; `record_audit` writes an audit record.
    """

    def __init__(
        self, database: Database, envelope: EnvelopeEncryption, public_url: str, now: Callable[[], int], record_audit: RecordConnection
    ) -> None:
        self._database = database
        self._envelope = envelope
        self._public_url = public_url
        self.uses_https = public_url.startswith("https://")
        self._now = now
        self._record_audit = record_audit

    async def request_consent(self, consent: Consent) -> ConsentNeeded:
        """Returns the page for a consent.

        An equal consent, of the same user, client, scopes and redirect, gets the same page until it expires.
        """
        digest = hashlib.sha256(_encode(consent)).hexdigest()
        same = select(table.c.id).where(
            table.c.owner == consent.key.owner, table.c.consent == digest, table.c.until > self._now(), table.c.state != ""
        )
        found = await self._database.read(lambda connection: connection.execute(same.order_by(table.c.until.desc())).scalar())
        return self._consent_needed(found or await self._create(consent, digest), consent)

    async def find(self, connection_id: str) -> PendingConnection:
        """Returns an open pending connection. Raises UnknownConnection."""
        return self._connection_from_row(await self._read_row(table.c.id == connection_id, table.c.state != ""))

    async def consume_callback(self, state: str, cookies: Mapping[str, str]) -> PendingConnection:
        """Returns the pending connection for a callback with this `state` and these cookies, once. Raises UnknownConnection."""
        if not state:
            raise UnknownConnection
        found = self._connection_from_row(await self._read_row(table.c.state == _digest(state)))
        if not is_same_browser(found, cookies, self.uses_https):
            raise UnknownConnection
        values = (found.id, _digest(state))
        spent = await self._database.write(lambda batch: batch.run("UPDATE connections SET state = '' WHERE id = ? AND state = ?", values))
        if spent != 1:
            raise UnknownConnection
        return found

    async def bind_browser(self, connection: PendingConnection) -> str:
        """Binds the connection to one browser, replacing any other, and returns the value for that browser's cookie."""
        cookie = _new_secret()
        values = (_digest(cookie), connection.id)
        await self._database.write(lambda batch: batch.run("UPDATE connections SET browser = ? WHERE id = ?", values))
        return cookie

    async def record_consent(self, connection: PendingConnection) -> None:
        """Records that the user has consented and that the credential is stored."""
        consent = connection.consent
        record = connection_record(consent.key, "connected", server=consent.server, scopes=sorted(consent.scopes))

        def work(batch: Batch) -> None:
            batch.run("UPDATE connections SET given = 1 WHERE id = ?", (connection.id,))
            self._record_audit(batch, record)

        await self._database.write(work)

    async def sweep(self) -> None:
        """Deletes expired pages, and given consents after seven days."""
        now = self._now()
        over = (now - int(PAGE_SECONDS * 1e6), now - int(CONSENTED_SECONDS * 1e6))
        await self._database.write(lambda batch: batch.run(_DELETE_OVER, over))

    async def _create(self, consent: Consent, consent_digest: str) -> str:
        made = PendingConnection(_new_secret(), consent, _new_secret(), _new_secret())
        sealed = self._envelope.seal(encryption_context_of(made.id), _encode(_Body(consent, made.state, made.verifier)))
        key, until = consent.key, self._now() + int(PAGE_SECONDS * 1e6)
        values = (made.id, key.tenant, key.owner, consent_digest, _digest(made.state), *sealed, until)

        def work(batch: Batch) -> None:
            batch.run(_DELETE_OLDEST, (key.owner, PER_OWNER_MAX - 1))  # the bound is per user: no user can displace the pages of another
            batch.run(_INSERT, values)

        await self._database.write(work)
        return made.id

    async def _read_row(self, *where: Any) -> "Row[Any]":
        wanted = select(table).where(*where, table.c.until > self._now())
        row = await self._database.read(lambda connection: connection.execute(wanted).first())
        if row is None:
            raise UnknownConnection
        return row

    def _connection_from_row(self, row: "Row[Any]") -> PendingConnection:
        """Decrypts the row. Raises UnknownConnection if the row cannot be decrypted."""
        try:
            body = _decode_body(self._envelope.open(encryption_context_of(row.id), SealedSecret(row.kek_id, row.wrapped, row.body)))
        except CannotOpen:
            raise UnknownConnection from None
        return PendingConnection(row.id, body.consent, body.state, body.verifier, row.browser)

    def _consent_needed(self, connection_id: str, consent: Consent) -> ConsentNeeded:
        return ConsentNeeded(f"{self._public_url}/connect/{connection_id}", connection_id, consent.server)


def connection_record(key: CredentialKey, act: str, **more: Any) -> dict[str, Any]:
    """Returns the audit record of an account that was `connected` or `forgotten`."""
    _, issuer, subject = key.owner.split("|", 2)
    members = {"kind": "connection", "tenant": key.tenant, "decision_id": "", "txn": "", "act": act}
    return {**members, "principal": {"issuer": issuer, "subject": subject}, "issuer": key.issuer, "resource": key.resource, **more}


def encryption_context_of(connection_id: str) -> tuple[str, ...]:
    """Returns the encryption context of a connection's secrets."""
    return ("connection", connection_id)


def cookie_name(connection: PendingConnection, uses_https: bool) -> str:
    """Returns the name of the cookie of one page. Over https no sibling domain can set the cookie (RFC 6265bis s4.1.3.2)."""
    return f"{'__Host-' if uses_https else ''}interlock-connect-{_digest(connection.id)[:16]}"


def is_same_browser(connection: PendingConnection, cookies: Mapping[str, str], uses_https: bool) -> bool:
    """Returns whether the cookies are those of the browser in which the user signed in."""
    shown = cookies.get(cookie_name(connection, uses_https), "")
    return bool(connection.browser_digest) and hmac.compare_digest(connection.browser_digest, _digest(shown))


def _new_secret() -> str:
    """Returns 256 random bits as 43 characters of base64url."""
    return secrets.token_urlsafe(32)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
