"""The re-published cards of registered agents, public, with what caches need."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from gateway.a2a_server.parameters import asked_version
from gateway.admission import Admission
from gateway.asgi import Scope, Send, header, respond
from gateway.errors import problem, told
from registry.card import Family, Registration, Status
from registry.names import FRONT_DOOR
from registry.store import Registry, UnknownName

Publish = Callable[[Registration], dict[str, Any]]
Unite = Callable[[Registration, Mapping[str, Any]], dict[str, Any]]
PUBLIC_TENANT = "default"
MAX_AGE = 60  # seconds
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class Cards:
    """Serves cards of active agents and of the front door; the others do not exist for the public.

    `publish` makes the signed card, pure 1.0; `unite` adds the members of 0.3, for those who ask for 0.3.
    """

    def __init__(self, admission: Admission, registry: Registry, front_door: Registration, publish: Publish, unite: Unite) -> None:
        self._admission = admission
        self._registry = registry
        self._front_door = front_door
        self._publish = publish
        self._unite = unite
        self._known: dict[tuple[str, bool], tuple[Registration, bytes, str]] = {}

    async def __call__(self, scope: Scope, send: Send, name: str) -> None:
        """Answers one GET or HEAD."""
        try:
            self._admission.check_host(scope)
            older = scope["path"].endswith("/agent.json") or asked_version(scope).startswith("0.3")
            body, tag, changed = self._card(name, older)
            validators = (header(scope, b"if-none-match") or "").replace("W/", "").split(",")
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
        elif tag in (each.strip() for each in validators):
            await respond(send, 304, b"", headers)
        else:
            await respond(send, 200, body, headers)

    def _card(self, name: str, older: bool) -> tuple[bytes, str, str]:
        found = self._front_door if name == FRONT_DOOR else self._registry.find(PUBLIC_TENANT, name)
        if found.family is not Family.AGENT or found.status is not Status.ACTIVE:
            raise UnknownName(name)
        known = self._known.get((name, older))
        if known is None or known[0] is not found:
            card = self._publish(found)
            body = encode(self._unite(found, card) if older else card)
            known = self._known[name, older] = (found, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        changed = datetime.fromtimestamp(found.updated / 1_000_000, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        return known[1], known[2], changed
