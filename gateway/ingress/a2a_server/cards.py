"""The re-published cards of registered agents, public, with what caches need."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import msgspec
import structlog

from gateway.ingress.a2a_server.parameters import asked_version
from gateway.ingress.http.asgi import Scope, Send, header, list_header, respond
from gateway.ingress.http.authentication import Admission
from gateway.ingress.http.error_bodies import problem
from gateway.ingress.http.errors import told
from registry.cards.card import Family, Registration, Status
from registry.cards.server_card import as_agent
from registry.names import FRONT_DOOR
from registry.store import Registry, UnknownName

Publish = Callable[[Registration], dict[str, Any]]
Unite = Callable[[Registration, Mapping[str, Any]], dict[str, Any]]
PUBLIC_TENANT = "default"
MAX_AGE = 60  # seconds
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class Key(Protocol):
    """policies/keys/signing.py: the key that signs now."""

    @property
    def active(self) -> str: ...

    @property
    def since(self) -> int:
        """Microseconds since 1970."""
        ...


@dataclass(frozen=True, slots=True)
class Publishing:
    """`publish` makes the signed card, pure 1.0; `unite` adds the members of 0.3, for those who do not ask for 1.0."""

    publish: Publish
    unite: Unite
    key: Key


@dataclass(frozen=True, slots=True)
class _Published:
    entry: Registration
    kid: str
    body: bytes = field(repr=False)
    tag: str
    changed: datetime

    def unchanged(self, scope: Scope) -> bool:
        """Whether the caller has it already (RFC 9110 s13.2.2): a date counts where no tag is given, and a wrong one not at all."""
        tags = list_header(scope, b"if-none-match")
        if tags is not None:
            return tags.strip() == "*" or self.tag.removeprefix("W/") in (each.strip() for each in tags.replace("W/", "").split(","))
        try:
            return self.changed <= parsedate_to_datetime(header(scope, b"if-modified-since") or "")
        except (ValueError, TypeError):  # no date, or one without a zone
            return False

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"cache-control", b"public, max-age=%d" % MAX_AGE),
            (b"etag", self.tag.encode()),
            (b"last-modified", self.changed.strftime("%a, %d %b %Y %H:%M:%S GMT").encode()),
            (b"vary", b"A2A-Version"),
        ]


class Cards:
    """Serves cards of active agents and of the front door; the others do not exist for the public."""

    def __init__(self, admission: Admission, registry: Registry, front_door: Registration, publishing: Publishing) -> None:
        self._admission = admission
        self._registry = registry
        self._front_door = front_door
        self._publishing = publishing
        self._known: dict[tuple[str, bool], _Published] = {}

    async def __call__(self, scope: Scope, send: Send, name: str) -> None:
        """Answers one GET or HEAD."""
        try:
            self._admission.check_host(scope)
            asked = asked_version(scope)
            both = not asked or asked.startswith("0.3") or scope["path"].endswith("/agent.json")  # no version means 0.3 (A2A 1.0 s3.6.2)
            card = self._card(name, both)
            unchanged = card.unchanged(scope)
        except Exception as error:  # the door: whatever happens, the caller gets an answer, and the log the rest
            said = told(error)
            if said.row.status == 500:
                log.exception("card_failed", agent=name)
            await respond(send, said.row.status, encode(problem(said)), media_type=b"application/problem+json")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await respond(send, 405, b"{}", [(b"allow", b"GET, HEAD")])
        elif unchanged:
            await respond(send, 304, b"", card.headers())
        else:
            await respond(send, 200, card.body, card.headers())

    def _card(self, name: str, both: bool) -> _Published:
        """Signed anew when the agent changed, and when the key did. Raises UnknownName."""
        found = self._front_door if name == FRONT_DOOR else self._registry.find(PUBLIC_TENANT, name)
        reached = found.status is Status.DOWN and (found.card is not None or found.family is Family.SERVER)
        if found.family is Family.VIRTUAL or not (found.status is Status.ACTIVE or reached):
            raise UnknownName(name)
        known = self._known.get((name, both))
        if known is None or known.entry is not found or known.kid != self._publishing.key.active:
            known = self._known[name, both] = self._published(found, both)
        return known

    def _published(self, found: Registration, both: bool) -> _Published:
        """The tag is of what the card says and which key signed it: the same in every process, though no two signatures are alike."""
        shown = as_agent(found) if found.family is Family.SERVER else found
        key, card = self._publishing.key, self._publishing.publish(shown)
        if both:
            card = self._publishing.unite(shown, card)
        said = {name: value for name, value in card.items() if name != "signatures"}
        tag = f'W/"{hashlib.sha256(encode([key.active, said])).hexdigest()[:32]}"'
        changed = datetime.fromtimestamp(max(found.updated, key.since) // 1_000_000, UTC)
        return _Published(found, key.active, encode(card), tag, changed)
