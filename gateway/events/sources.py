"""Systems that send events as signed webhooks, each with a secret, types and a schema of its own. They have no token."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from msgspec import Struct

from adapters.contract import UpstreamFault
from gateway.events.standard_webhooks import BadSecret, SignatureRefused, SignedRequest, read_secrets, verify

SENDER_ISSUER: Final = "urn:interlock:source"  # issues no tokens: no person and no service has it
ReadSecret = Callable[[str], str]  # the value of env:NAME or file:PATH; raises UpstreamFault
log = structlog.get_logger()


class UnknownSource(Exception):
    """The settings name no such source of events."""


class SourceRule(Struct, frozen=True):
    """A source of the settings. `secret` is a reference; `subject` a template, empty for none; `schema` is one of the data."""

    tenant: str
    name: str
    secret: str
    types: Sequence[str]
    schema: Mapping[str, Any] | None = None
    subject: str = ""

    @property
    def sender(self) -> str:
        """The owner key under which its events are stored."""
        return f"{self.tenant}|{SENDER_ISSUER}|{self.name}"

    @property
    def uri(self) -> str:
        """The `source` of its events, which only the gateway writes."""
        return f"{SENDER_ISSUER}:{self.name}"


class EventSources:
    """Knows the sources, and verifies what they send."""

    def __init__(self, rules: Sequence[SourceRule], read_secret: ReadSecret, now: Callable[[], float] = time.time) -> None:
        """`now` returns seconds since 1970."""
        self._rules = {rule.name: rule for rule in rules}
        self._read_secret = read_secret
        self._now = now

    def find(self, name: str) -> SourceRule:
        """Raises UnknownSource."""
        found = self._rules.get(name)
        if found is None:
            raise UnknownSource
        return found

    def list_of(self, tenant: str) -> list[SourceRule]:
        """Returns the sources of a tenant, by name."""
        return sorted((rule for rule in self._rules.values() if rule.tenant == tenant), key=lambda rule: rule.name)

    def verify(self, rule: SourceRule, headers: Mapping[str, str], body: bytes) -> SignedRequest:
        """What a request of a source says of itself. Raises SignatureRefused."""
        try:
            secrets = read_secrets(self._read_secret(rule.secret))
        except (BadSecret, UpstreamFault) as error:
            log.error("source_secret_unusable", source=rule.name, problem=str(error))
            raise SignatureRefused("the gateway has no usable secret for this source; its operator finds why in the log") from error
        return verify(secrets, headers, body, self._now())
