"""Consents that people are asked for: one page each, for one person, for ten minutes; whoever waits for one is told."""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from adapters.contract import ConsentNeeded
from adapters.mcp_oauth import Consent

LIFE_SECONDS = 600.0
KEPT = 10_000
PER_OWNER = 20


class UnknownConnection(Exception):
    """No such page, or its time is over, or it is somebody else's."""


@dataclass(slots=True)
class Connection:
    """`state` comes back from the authorization server (RFC 6749 s10.12), `verifier` proves that we asked (RFC 7636).

    `browser` is the digest of the cookie of the browser in which the person proved who they are; none may go on but that one.
    """

    id: str
    consent: Consent
    until: float
    state: str = field(repr=False)
    verifier: str = field(repr=False)
    browser: str = field(default="", repr=False)
    done: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class Connections:
    """Those of this process. `now` counts seconds since 1970."""

    def __init__(self, public_url: str, now: Callable[[], float]) -> None:
        self._public_url = public_url
        self._now = now
        self._open: OrderedDict[str, Connection] = OrderedDict()
        self._given: OrderedDict[str, None] = OrderedDict()  # whoever waits may come later than the person

    def ask(self, consent: Consent) -> ConsentNeeded:
        """The same page for the same consent, as long as it is good."""
        self._sweep()
        for one in self._open.values():
            if one.consent == consent:
                return self._needed(one)
        self._make_room(consent.key.owner)
        made = Connection(_secret(), consent, self._now() + LIFE_SECONDS, _secret(), _secret())
        self._open[made.id] = made
        return self._needed(made)

    def find(self, connection_id: str) -> Connection:
        """Raises UnknownConnection."""
        found = self._open.get(connection_id)
        if found is None or found.until <= self._now():
            raise UnknownConnection
        return found

    def returned(self, state: str, cookies: Mapping[str, str]) -> Connection:
        """The one that a browser with these cookies comes back for, once. Raises UnknownConnection."""
        found = next((one for one in self._open.values() if hmac.compare_digest(one.state.encode(), state.encode())), None)
        if found is None or found.until <= self._now() or not is_of(found, cookies):
            raise UnknownConnection
        del self._open[found.id]
        return found

    def admit(self, connection: Connection) -> str:
        """The cookie of the browser that may go on; any other loses its place."""
        cookie = _secret()
        connection.browser = _digest(cookie)
        return cookie

    def given(self, connection: Connection) -> None:
        """The person has consented, and the credential is kept."""
        self._given[connection.id] = None
        if len(self._given) > KEPT:
            self._given.popitem(last=False)
        connection.done.set()

    async def wait(self, connection_id: str, seconds: float) -> bool:
        """Whether the person has consented by then. It takes all of the time where nobody can any more."""
        if connection_id in self._given:
            return True
        found = self._open.get(connection_id)
        done = found.done if found is not None else asyncio.Event()
        try:
            await asyncio.wait_for(done.wait(), max(0.0, seconds))
        except TimeoutError:
            return False
        return True

    def _needed(self, connection: Connection) -> ConsentNeeded:
        return ConsentNeeded(f"{self._public_url}/connect/{connection.id}", connection.id, connection.consent.server)

    def _make_room(self, owner: str) -> None:
        """Nobody's pages push out somebody else's before their own."""
        own = [one.id for one in self._open.values() if one.consent.key.owner == owner]
        if len(own) >= PER_OWNER:
            del self._open[own[0]]
        elif len(self._open) >= KEPT:
            self._open.popitem(last=False)

    def _sweep(self) -> None:
        now = self._now()
        while self._open and next(iter(self._open.values())).until <= now:
            self._open.popitem(last=False)


def cookie_name(connection: Connection) -> str:
    """Each page has its own, so that two at once do not take each other's."""
    return f"interlock-connect-{_digest(connection.id)[:16]}"


def is_of(connection: Connection, cookies: Mapping[str, str]) -> bool:
    """Whether these are of the browser in which the person proved who they are."""
    name = cookie_name(connection)
    shown = cookies.get(name) or cookies.get(f"__Host-{name}", "")
    return bool(connection.browser) and hmac.compare_digest(connection.browser, _digest(shown))


def _secret() -> str:
    """256 bits, 43 characters of base64url."""
    return secrets.token_urlsafe(32)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
