"""The re-published cards of registered agents, public, with what caches need."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from gateway.admission import Admission
from gateway.asgi import Scope, Send, header, respond
from gateway.errors import problem, told
from registry.card import Family, Registration, Status
from registry.names import FRONT_DOOR
from registry.store import Registry, UnknownName

PUBLIC_TENANT = "default"
MAX_AGE = 60  # seconds
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class Cards:
    """Serves cards of active agents and of the front door; the others do not exist for the public. `publish` makes the signed card."""

    def __init__(
        self, admission: Admission, registry: Registry, front_door: Registration, publish: Callable[[Registration], dict[str, Any]]
    ) -> None:
        self._admission = admission
        self._registry = registry
        self._front_door = front_door
        self._publish = publish
        self._known: dict[str, tuple[Registration, bytes, str]] = {}

    async def __call__(self, scope: Scope, send: Send, name: str) -> None:
        """Answers one GET or HEAD."""
        try:
            self._admission.check_host(scope)
            body, tag, changed = self._card(name)
            validator = header(scope, b"if-none-match")
        except Exception as error:  # the door: whatever happens, the caller gets an answer, and the log the rest
            said = told(error)
            if said.row.status == 500:
                log.exception("card_failed", agent=name)
            await respond(send, said.row.status, encode(problem(said)), media_type=b"application/problem+json")
            return
        headers = [
            (b"cache-control", b"public, max-age=%d" % MAX_AGE),
            (b"etag", tag.encode()),
            (b"last-modified", changed.encode()),
            (b"vary", b"A2A-Version"),
        ]
        if scope["method"] not in ("GET", "HEAD"):
            await respond(send, 405, b"{}", [(b"allow", b"GET, HEAD")])
        elif validator == tag:
            await respond(send, 304, b"", headers)
        else:
            await respond(send, 200, body, headers)

    def _card(self, name: str) -> tuple[bytes, str, str]:
        found = self._front_door if name == FRONT_DOOR else self._registry.find(PUBLIC_TENANT, name)
        if found.family is not Family.AGENT or found.status is not Status.ACTIVE:
            raise UnknownName(name)
        known = self._known.get(name)
        if known is None or known[0] is not found:
            body = encode(self._publish(found))
            known = self._known[name] = (found, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        changed = datetime.fromtimestamp(found.updated / 1_000_000, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        return known[1], known[2], changed
