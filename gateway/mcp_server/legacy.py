"""The `initialize` era (2024-11-05 to 2025-11-25): sessions, each bound to the person who opened it."""

import secrets
from collections.abc import Callable
from typing import Any

from policies.authority import Caller
from policies.bounded import BoundedCache

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
IDLE_SECONDS = 3600.0


class UnknownSession(Exception):
    """No such session for this caller; the client has to initialize again (HTTP 404)."""


class Sessions:
    """Open sessions. Unknown and foreign ones are the same."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._sessions: BoundedCache[str, tuple[str, str]] = BoundedCache(10_000, clock)

    def open(self, caller: Caller, resource: str) -> str:
        session = secrets.token_urlsafe(24)
        self._sessions.put(session, (_holder(caller), resource), IDLE_SECONDS)
        return session

    def check(self, session: str | None, caller: Caller, resource: str) -> None:
        """Raises UnknownSession. Use keeps a session open. A request without one is served as it is: nothing here depends on it."""
        if session is None:
            return
        if self._sessions.get(session) != (_holder(caller), resource):
            raise UnknownSession
        self._sessions.put(session, (_holder(caller), resource), IDLE_SECONDS)

    def close(self, session: str | None, caller: Caller, resource: str) -> None:
        """Raises UnknownSession."""
        self.check(session or "", caller, resource)
        self._sessions.drop(session or "")


def negotiated(asked: Any) -> str:
    """The version to go on with: the one asked for where it is served, else our newest of this era."""
    return asked if asked in VERSIONS else VERSIONS[0]


def _holder(caller: Caller) -> str:
    return f"{caller.principal.owner}\n{caller.delegation.actor}"
