"""What somebody asks to have registered: an agent or a server, and the terms that only operators set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.grant import Grant
from policies.permissions import BadPermission, Permissions
from registry.card import CLEARANCE_MAX
from registry.deeds import REGISTERED, Deed

DELEGATIONS = ("bearer", "header", "ticket", "none")
TIMEOUT_MAX = 3600.0
METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none")
AUTH_TEXTS = {"account": ("personal", "service"), "issuer": (), "client_id": (), "client_secret": (), "method": METHODS}


class BadRequest(Exception):
    """A member of a request can't be used. `field` is its path; both texts are safe to show."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class PreconditionFailed(Exception):
    """An entry is not what the caller last saw of it."""


class PreconditionRequired(Exception):
    """The caller does not say what they saw of an entry before they approve it."""


class UrlRefused(BadRequest):
    """A URL that the egress guard does not go to."""


@dataclass(frozen=True, slots=True)
class Registrant:
    """Who registers. What an operator registers is active at once, what others register waits for an operator."""

    tenant: str
    owner: str
    operator: bool
    deed: Deed = REGISTERED
    grant: Grant | None = None  # under which an operator looks at what a server offers


@dataclass(frozen=True, slots=True)
class Terms:
    """What only operators set. `ceiling` None: no limit of its own."""

    ceiling: tuple[str, ...] | None = None
    delegation: str = ""
    upstream: Mapping[str, Any] = field(default_factory=dict)
    trusted_keys: tuple[Mapping[str, Any], ...] = ()  # JWKs, one of which has to sign the card
    rank: int = 0  # preference among agents that fit equally well
    sensitivity: int | None = None  # of what a server tells, 0..3
    clearance: int | None = None  # the most sensitive that it may be told, 0..3
    sensitivities: Mapping[str, int] | None = None  # of single tools

    def check(self, by: "Registrant") -> None:
        """Nobody but an operator says what an agent may do, what is sent along, and whom to trust. Raises BadRequest naming the field."""
        if not by.operator:
            reserved = ("ceiling", "delegation", "upstream", "trusted_keys", "rank", "sensitivity", "clearance", "sensitivities")
            for name in reserved:
                if getattr(self, name) not in (None, "", {}, ()) and (name, getattr(self, name)) != ("rank", 0):
                    raise BadRequest(name, "is for operators to set")
        if self.delegation and self.delegation not in DELEGATIONS:
            raise BadRequest("delegation", f"must be one of: {', '.join(DELEGATIONS)}")
        try:
            Permissions.of(self.ceiling or ())
        except BadPermission as error:
            raise BadRequest("ceiling", f"has an entry that is no permission: {error}") from error
        self._check_labels()
        self._check_upstream()

    def _check_labels(self) -> None:
        labels = {"sensitivity": self.sensitivity, "clearance": self.clearance}
        labels |= {f"sensitivities.{tool[:100]}": label for tool, label in (self.sensitivities or {}).items()}
        for name, label in labels.items():
            if label is not None and (isinstance(label, bool) or not 0 <= label <= CLEARANCE_MAX):
                raise BadRequest(name, f"must be a whole number from 0 to {CLEARANCE_MAX}")

    def _check_upstream(self) -> None:
        if not isinstance(self.upstream.get("tls", True), bool):
            raise BadRequest("upstream.tls", "must be true or false")
        headers, timeout = self.upstream.get("headers", {}), self.upstream.get("timeout", 1)
        texts = [text for pair in headers.items() for text in pair] if isinstance(headers, dict) else [None]
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise BadRequest("upstream.headers", "must map names to texts of one line")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= TIMEOUT_MAX:
            raise BadRequest("upstream.timeout", f"must be a number of seconds, at most {TIMEOUT_MAX:.0f}")
        if "auth" in self.upstream:
            _check_auth(self.upstream["auth"], [str(name).lower() for name in headers])


def _check_auth(auth: Any, headers: list[str]) -> None:
    """Raises BadRequest naming the member."""
    if not isinstance(auth, dict) or auth.keys() - {*AUTH_TEXTS, "scopes"}:
        raise BadRequest("upstream.auth", f"must be a mapping with some of: {', '.join((*AUTH_TEXTS, 'scopes'))}")
    if "authorization" in headers:
        raise BadRequest("upstream.headers", "has an authorization already, so upstream.auth can't give one")
    for name in auth.keys() & AUTH_TEXTS.keys():
        if not isinstance(auth[name], str) or not auth[name].isprintable() or not auth[name]:
            raise BadRequest(f"upstream.auth.{name}", "must be a text of one line")
        if AUTH_TEXTS[name] and auth[name] not in AUTH_TEXTS[name]:
            raise BadRequest(f"upstream.auth.{name}", f"must be one of: {', '.join(AUTH_TEXTS[name])}")
    scopes = auth.get("scopes", [])
    if not isinstance(scopes, list) or not all(isinstance(one, str) and one.isprintable() and one and " " not in one for one in scopes):
        raise BadRequest("upstream.auth.scopes", "must be a list of scopes")
    if "client_id" in auth and "issuer" not in auth:
        raise BadRequest("upstream.auth.issuer", "is needed beside client_id, which is good at one authorization server alone")
    if auth.keys() & {"client_secret", "method"} and "client_id" not in auth:
        raise BadRequest("upstream.auth.client_id", "is needed beside client_secret and method")


@dataclass(frozen=True, slots=True)
class AgentOffer:
    """Either `url` or `card`. Without a name one is made of the card's."""

    url: str = ""
    card: Mapping[str, Any] | None = None
    name: str = ""
    kind: str = "a2a"
    terms: Terms = Terms()
    jwks: Mapping[str, Any] | None = None  # the keys that it proves itself with at the token endpoint


@dataclass(frozen=True, slots=True)
class ServerOffer:
    """`openapi`: the address of a document that describes an HTTP API, or the document; `url` may then be empty."""

    name: str
    url: str
    terms: Terms = Terms()
    openapi: str | Mapping[str, Any] | None = None
