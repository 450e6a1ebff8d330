"""Serves the signed cards of registered agents without authentication, with the headers that caches need."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import structlog

from gateway.ingress.a2a_server.parameters import requested_version
from gateway.ingress.http.asgi import Scope, Send, header, list_header, respond
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.error_bodies import problem, respond_problem
from gateway.ingress.http.errors import HttpMethodNotAllowed, describe
from policies.keys.signing import SigningKeys
from registry.cards.card import Family, Registration, RegistrationStatus
from registry.cards.server_card import with_card
from registry.names import FRONT_DOOR
from registry.store import Registry, UnknownName

PublishCard = Callable[[Registration], dict[str, Any]]
AddA2a03Members = Callable[[Registration, Mapping[str, Any]], dict[str, Any]]
PUBLIC_TENANT = "default"
MAX_AGE_SECONDS = 60
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CardPublishing:
    """Makes the documents to serve.

    `publish` returns the signed 1.0 card. `add_a2a_03_members` adds the members of 0.3 for requests that do not name version 1.0.
    """

    publish: PublishCard
    add_a2a_03_members: AddA2a03Members
    signing_key: SigningKeys


@dataclass(frozen=True, slots=True)
class _PublishedCard:
    entry: Registration
    kid: str
    body: bytes = field(repr=False)
    etag: str
    changed_at: datetime

    def is_unchanged_for(self, scope: Scope) -> bool:
        """Returns whether the client already has this card (RFC 9110 s13.2.2).

        If-Modified-Since counts only without If-None-Match, and an invalid date is ignored.
        """
        tags = list_header(scope, b"if-none-match")
        if tags is not None:
            return tags.strip() == "*" or self.etag.removeprefix("W/") in (each.strip() for each in tags.replace("W/", "").split(","))
        try:
            return self.changed_at <= parsedate_to_datetime(header(scope, b"if-modified-since") or "")
        except (ValueError, TypeError):  # not a date, or a date without a zone
            return False

    def cache_headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"cache-control", b"public, max-age=%d" % MAX_AGE_SECONDS),
            (b"etag", self.etag.encode()),
            (b"last-modified", self.changed_at.strftime("%a, %d %b %Y %H:%M:%S GMT").encode()),
            (b"vary", b"A2A-Version"),
        ]


class AgentCardEndpoint:
    """Serves the cards of active agents and of the front door. Any other name is answered as unknown."""

    def __init__(
        self, authentication: RequestAuthentication, registry: Registry, front_door: Registration, publishing: CardPublishing
    ) -> None:
        self._authentication = authentication
        self._registry = registry
        self._front_door = front_door
        self._publishing = publishing
        self._cache: dict[tuple[str, bool], _PublishedCard] = {}

    async def __call__(self, scope: Scope, send: Send, name: str) -> None:
        """Answers one GET or HEAD."""
        try:
            self._authentication.check_host(scope)
            version = requested_version(scope)
            both = (
                not version or version.startswith("0.3") or scope["path"].endswith("/agent.json")
            )  # no version means 0.3 (A2A 1.0 s3.6.2)
            card = self._find_or_publish(name, both)
            unchanged = card.is_unchanged_for(scope)
        except Exception as error:  # the request handler: the caller gets an answer after any error, and the log has the rest
            report = describe(error)
            if report.mapping.status == 500:
                log.exception("card_failed", agent=name)
            await respond(send, report.mapping.status, encode(problem(report)), media_type=b"application/problem+json")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await respond_problem(send, HttpMethodNotAllowed(("GET", "HEAD")), [(b"allow", b"GET, HEAD")])
        elif unchanged:
            await respond(send, 304, b"", card.cache_headers())
        else:
            await respond(send, 200, card.body, card.cache_headers())

    def _find_or_publish(self, name: str, both: bool) -> _PublishedCard:
        """Returns the cached card, signed again when the entry or the signing key has changed. Raises UnknownName."""
        found = self._front_door if name == FRONT_DOOR else self._registry.find(PUBLIC_TENANT, name)
        reached = found.status is RegistrationStatus.DOWN and (found.card is not None or found.family is Family.SERVER)
        if found.family is Family.VIRTUAL or not (found.status is RegistrationStatus.ACTIVE or reached):
            raise UnknownName(name)
        known = self._cache.get((name, both))
        if known is None or known.entry is not found or known.kid != self._publishing.signing_key.active_kid:
            known = self._cache[name, both] = self._publish(found, both)
        return known

    def _publish(self, registration: Registration, both: bool) -> _PublishedCard:
        """Signs a card. Its ETag hashes the content and the key id, so that it is equal in every process although signatures differ."""
        shown = with_card(registration) if registration.family is Family.SERVER else registration
        key, card = self._publishing.signing_key, self._publishing.publish(shown)
        if both:
            card = self._publishing.add_a2a_03_members(shown, card)
        unsigned_card = {name: value for name, value in card.items() if name != "signatures"}
        tag = f'W/"{hashlib.sha256(encode([key.active_kid, unsigned_card])).hexdigest()[:32]}"'
        changed = datetime.fromtimestamp(max(registration.updated, key.active_since_us) // 1_000_000, UTC)
        return _PublishedCard(registration, key.active_kid, encode(card), tag, changed)
