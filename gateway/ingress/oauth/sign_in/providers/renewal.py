"""Renews a session's roles at the identity provider: for a client that refreshes its tokens, and for the console."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from sqlalchemy import Connection, select

from gateway.ingress.http.error_rows.state import SignInNotRenewed
from gateway.ingress.oauth.sign_in.clients.store import BROWSER
from gateway.ingress.oauth.sign_in.providers.logins import KeysAway, ProviderAway, ProviderLogins, RenewalRefused
from gateway.ingress.oauth.sign_in.sessions import SECOND_US, Session, SignInSessions
from gateway.ingress.oauth.sign_in.tables import sign_in_sessions
from gateway.storage.database import Batch, Database
from policies.delegation.chain import Principal
from policies.tokens.hop_tokens import ExchangeRefused

LEASE_US: Final = 120 * SECOND_US  # a process that renews for longer has died; longer than a request to a provider may take
WAIT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.05
_CLAIM: Final = "UPDATE sign_in_sessions SET renewing = ? WHERE tenant = ? AND id = ? AND ended = 0 AND renewing < ?"
_RELEASE: Final = "UPDATE sign_in_sessions SET renewing = 0 WHERE tenant = ? AND id = ? AND renewing = ?"


class SessionOver(Exception):
    """The session has ended, or its provider does not vouch for the person any more; the message is safe to show."""


class SessionRenewal:
    """Renews sessions. `token_life`: seconds for which roles count; `now` counts microseconds since 1970.

    Providers rotate their refresh tokens, and end a session whose token they see twice. So one process at a time asks for a session.
    """

    def __init__(
        self, database: Database, sessions: SignInSessions, logins: ProviderLogins, token_life: int, now: Callable[[], int]
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._logins = logins
        self._token_life_us = token_life * SECOND_US
        self._now = now

    async def renew(self, session: Session, *, with_refresh_token: bool) -> tuple[Session, str]:
        """The session with the roles of now, stored, and its next refresh token, or "".

        Raises SessionOver, ProviderAway, and ExchangeRefused for a session that ended meanwhile.
        """
        if not session.person.provider:  # the settings have the roles of development users
            return session, await self._sessions.renew(session, with_refresh_token)
        if not session.person.refresh_token:
            if self._sessions.is_overdue(session):
                raise SessionOver("the session is over; sign in again")
            return session, await self._sessions.renew(session, with_refresh_token)
        since, held = await self._claim(session)
        is_stored = False
        try:
            renewed = held if held.renewed > session.renewed else await self._ask_provider(held)
            token = await self._sessions.renew(renewed, with_refresh_token)
            is_stored = True
        finally:
            if not is_stored:
                values = (session.person.principal.tenant, session.id, since)
                await self._database.write(lambda batch: batch.run(_RELEASE, values))
        return renewed, token

    async def find_person(self, tenant: str, session_id: str) -> tuple[Principal, float] | None:
        """The person of a session that lasts, and until when their roles count (seconds since 1970); None where it has ended.

        Roles that a provider vouched for longer ago than the life of a token are renewed first. Raises SignInNotRenewed.
        """
        session = await self._sessions.find(tenant, session_id)
        if session is None:
            return None
        now = self._now()
        if session.person.refresh_token and session.renewed + self._token_life_us <= now:
            try:
                session, _ = await self.renew(session, with_refresh_token=False)
            except (SessionOver, ExchangeRefused):
                return None
            except ProviderAway as away:
                raise SignInNotRenewed from away
        return session.person.principal, min(session.until, now + self._token_life_us) / SECOND_US

    async def end_browser_session(self, tenant: str, session_id: str) -> None:
        """Ends a session that only a browser has at the gateway's own pages; those of clients go on."""
        session = await self._sessions.find(tenant, session_id)
        if session is not None and session.client_id == BROWSER:
            await self._sessions.end(session, "signed-out")

    async def _ask_provider(self, session: Session) -> Session:
        """The session with the person as the provider vouches for them now. Raises SessionOver and ProviderAway."""
        try:
            renewed = self._sessions.renewed_session(session, await self._logins.renew(session))
        except RenewalRefused as refusal:
            await self._sessions.end(session, "provider-refused")
            raise SessionOver(str(refusal)) from None
        except KeysAway as away:
            person = replace(session.person, refresh_token=away.refresh_token)
            await self._sessions.renew(replace(session, person=person), with_refresh_token=False)
            raise
        return replace(renewed, until=session.until) if session.client_id == BROWSER else renewed

    async def _claim(self, session: Session) -> tuple[int, Session]:
        """Makes this process the one that renews, when no other does. Returns since when, and the session as it is stored.

        Raises SessionOver, and ProviderAway where another process waits for the provider too long.
        """
        tenant, waited = session.person.principal.tenant, 0.0
        while True:
            since = self._now()
            is_free = await self._database.read(partial(_is_free, tenant=tenant, session_id=session.id, since=since))
            is_ours = is_free and await self._database.write(partial(_claim_row, tenant, session.id, since))
            held = await self._sessions.find(tenant, session.id)
            if held is None:
                raise SessionOver("the session is over; sign in again")
            if is_ours:
                return since, held
            if waited >= WAIT_SECONDS:
                raise ProviderAway("the identity provider does not answer; try again later")
            await asyncio.sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS


def _is_free(connection: Connection, tenant: str, session_id: str, since: int) -> bool:
    """Whether a write could claim the row. Requests that wait ask this often, and write nothing."""
    columns = sign_in_sessions.c
    query = select(columns.renewing).where(columns.tenant == tenant, columns.id == session_id)
    renewing: int | None = connection.execute(query).scalar()
    return renewing is not None and renewing < since - LEASE_US


def _claim_row(tenant: str, session_id: str, since: int, batch: Batch) -> bool:
    """Whether the row was claimed: no other process has, or one that has died."""
    return batch.run(_CLAIM, (since, tenant, session_id, since - LEASE_US)) == 1
