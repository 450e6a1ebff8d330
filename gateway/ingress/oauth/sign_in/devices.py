"""Device authorization (RFC 8628): a command shows a code, and the person types it in a browser, signs in and approves."""

import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, select

from gateway.ingress.oauth.sign_in.sessions import CODE_SECONDS, SECOND_US, Session, SignInSessions
from gateway.ingress.oauth.sign_in.tables import sign_in_devices as table
from gateway.storage.database import Batch, Database
from policies.tokens.hop_tokens import ExchangeRefused

DEVICE_SECONDS: Final = 600
INTERVAL_SECONDS: Final = 5
DEVICES_MAX: Final = 1000
LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels: no words; none that look alike (RFC 8628 s6.1)
CODE_LENGTH: Final = 8
_INSERT: Final = (
    "INSERT INTO sign_in_devices (device, user_code, client_id, resource, scope, polled, state, tenant, session_id, until) "
    "VALUES (?, ?, ?, ?, ?, 0, 'pending', '', '', ?)"
)
_DELETE_SURPLUS: Final = (
    "DELETE FROM sign_in_devices WHERE device IN (SELECT device FROM sign_in_devices ORDER BY until DESC LIMIT 1000 OFFSET ?)"
)
_APPROVE: Final = (
    "UPDATE sign_in_devices SET state = 'approved', tenant = ?, session_id = ?, until = ? "
    "WHERE device = ? AND state = 'pending' AND until > ?"
)


class UnknownDevice(Exception):
    """No device waits with that code."""


class WaitingDevice(NamedTuple):
    """A device that waits for a person. `id` is the digest of its device code."""

    id: str
    client_id: str
    resource: str
    scope: str


class DeviceCodes(NamedTuple):
    device_code: str
    user_code: str


class Devices:
    """Stores devices that wait. `now` counts microseconds since 1970."""

    def __init__(self, database: Database, sessions: SignInSessions, now: Callable[[], int]) -> None:
        self._database = database
        self._sessions = sessions
        self._now = now

    async def begin(self, client_id: str, resource: str, scope: str) -> DeviceCodes:
        """Adds a device and returns its codes."""
        codes = DeviceCodes(f"id_{secrets.token_urlsafe(32)}", "".join(secrets.choice(LETTERS) for _ in range(CODE_LENGTH)))
        now = self._now()
        values = (_digest(codes.device_code), _digest(codes.user_code), client_id, resource, scope, now + DEVICE_SECONDS * SECOND_US)

        def work(batch: Batch) -> None:
            batch.run("DELETE FROM sign_in_devices WHERE until < ?", (now,))
            batch.run(_DELETE_SURPLUS, (DEVICES_MAX - 1,))
            batch.run(_INSERT, values)

        await self._database.write(work)
        return codes

    async def find(self, user_code: str) -> WaitingDevice:
        """The device that waits with this code, as a person types it. Raises UnknownDevice."""
        plain = "".join(mark for mark in user_code.upper()[:32] if mark in LETTERS)
        wanted = select(table).where(table.c.user_code == _digest(plain), table.c.state == "pending", table.c.until > self._now())
        row = await self._database.read(lambda connection: connection.execute(wanted).first())
        if row is None:
            raise UnknownDevice
        return WaitingDevice(row.device, row.client_id, row.resource, row.scope)

    async def approve(self, device: str, session: Session) -> None:
        """Gives the device a session, once. Raises UnknownDevice."""
        now = self._now()
        until = now + CODE_SECONDS * SECOND_US
        values = (session.person.principal.tenant, session.id, until, device, now)

        def work(batch: Batch) -> bool:
            if batch.run(_APPROVE, values) != 1:
                return False
            self._sessions.open_briefly(batch, session)
            return True

        if not await self._database.write(work):
            raise UnknownDevice

    async def deny(self, device: str) -> None:
        """Refuses the device."""
        statement = "UPDATE sign_in_devices SET state = 'denied' WHERE device = ? AND state = 'pending'"
        await self._database.write(lambda batch: batch.run(statement, (device,)))

    async def redeem(self, device_code: str, client_id: str) -> Session:
        """The session of an approved device, once. Raises ExchangeRefused with the codes of RFC 8628 s3.5."""
        digest, now = _digest(device_code), self._now()
        row = await self._read(digest)
        if row is None or row.client_id != client_id:
            raise ExchangeRefused("invalid_grant", "the device code is unknown, or was used before")
        if row.until <= now:
            raise ExchangeRefused("expired_token", "the device code has expired; begin again")
        if row.state == "denied":
            raise ExchangeRefused("access_denied", "the person refused")
        if row.state == "pending":
            await self._note_poll(row, now)
            raise ExchangeRefused("authorization_pending", "the person has not signed in yet")
        if await self._database.write(lambda batch: batch.run("DELETE FROM sign_in_devices WHERE device = ?", (digest,))) != 1:
            raise ExchangeRefused("invalid_grant", "the device code is unknown, or was used before")
        session = await self._sessions.find(row.tenant, row.session_id)
        if session is None:
            raise ExchangeRefused("expired_token", "the device code has expired; begin again")
        return session

    async def _note_poll(self, row: "Row[Any]", now: int) -> None:
        """Notes when the device asked. Raises ExchangeRefused with slow_down for one that asks too often."""
        await self._database.write(lambda batch: batch.run("UPDATE sign_in_devices SET polled = ? WHERE device = ?", (now, row.device)))
        if now - row.polled < (INTERVAL_SECONDS - 1) * SECOND_US:
            raise ExchangeRefused("slow_down", f"ask every {INTERVAL_SECONDS} seconds")

    async def _read(self, digest: str) -> "Row[Any] | None":
        return await self._database.read(lambda connection: connection.execute(select(table).where(table.c.device == digest)).first())


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
