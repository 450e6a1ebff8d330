"""Registration requests: an agent or a server, and the terms that only operators set."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.tasks.contracts.skills import BadContract, check_contracts, check_skill_names
from policies.delegation.permissions import BadPermission, Permissions
from policies.delegation.rulings import Grant
from registry.cards.card import CLEARANCE_MAX, AgentCard, AgentEndpoint
from registry.cards.effects import BadEffect, parse_effects
from registry.cards.prices import ANY_CALL, BadPrice, parse_price
from registry.changes import REGISTERED, RegistryChange
from registry.names import InvalidMember

DELEGATIONS = ("bearer", "header", "ticket", "none")
TIMEOUT_MAX = 3600.0
CLIENT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none")
AUTH_GRANTS = ("exchange", "jwt-bearer", "id-jag")
AUTH_TEXTS: Mapping[str, tuple[str, ...]] = {
    "account": ("personal", "service"),
    "issuer": (),
    "client_id": (),
    "client_secret": (),
    "method": CLIENT_AUTH_METHODS,
    "grant": AUTH_GRANTS,
    "assertion": (),
}
AUTH_LISTS = ("scopes", "authorization_servers")
PROVIDER_TEXTS: Mapping[str, tuple[str, ...]] = {"issuer": (), "client_id": (), "client_secret": (), "method": CLIENT_AUTH_METHODS}
CONTEXTS = ("none", "summary")
MEMORIES = ("none", "read", "write")
ERAS = ("auto", "initialize")  # MCP eras in which the gateway can speak to a server
ENDPOINTS_MAX = 16
WEIGHT_MAX = 100
OPERATOR_FIELDS = (
    "ceiling",
    "delegation",
    "upstream",
    "trusted_keys",
    "rank",
    "sensitivity",
    "clearance",
    "sensitivities",
    "contracts",
    "context",
    "endpoints",
    "model_free",
    "prices",
    "effects",
    "memory",
    "label",
)
ACCOUNT_KINDS = ("person", "service")
_LABEL_FORM = re.compile(r"[a-z0-9._/-]{1,64}")
SHARED_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token"})


class BadRequest(InvalidMember):
    """A member of a request is invalid. `field` is its path; both texts are public."""


class PreconditionFailed(Exception):
    """An entry has changed since the caller last read it."""


class PreconditionRequired(Exception):
    """The caller does not say which version of an entry they approve."""


class UrlRefused(BadRequest):
    """A URL that the egress guard refuses."""


@dataclass(frozen=True, slots=True)
class Registrant:
    """The caller that registers. Entries of operators are active at once; entries of others wait for an operator."""

    tenant: str
    owner: str
    is_operator: bool
    registry_change: RegistryChange = REGISTERED
    grant: Grant | None = None  # under which an operator reads what a server offers


@dataclass(frozen=True, slots=True)
class OperatorTerms:
    """The members that only operators set. A `ceiling` of None sets no limit."""

    ceiling: tuple[str, ...] | None = None
    delegation: str = ""
    upstream: Mapping[str, Any] = field(default_factory=dict)
    trusted_keys: tuple[Mapping[str, Any], ...] = ()  # JWKs, one of which has to sign the card
    rank: int = 0  # preference among agents that fit equally well
    sensitivity: int | None = None  # sensitivity of a server's results, 0..3
    clearance: int | None = None  # the highest sensitivity that the entry may receive, 0..3
    sensitivities: Mapping[str, int] | None = None  # by tool
    contracts: Mapping[str, Mapping[str, Any]] | None = None  # by skill
    context: str | None = None  # how much of the caller's conversation the agent gets: none or summary
    endpoints: tuple[AgentEndpoint, ...] | None = None  # further addresses of the agent
    model_free: tuple[str, ...] | None = None  # tools of a server behind which no model works
    effects: Mapping[str, Mapping[str, Any]] | None = None  # whom calls act on, by tool or skill; `*`: of every other call
    prices: Mapping[str, str] | None = None  # of one call, as decimal texts, by tool; `*`: of every other call
    memory: str | None = None  # what the agent may do with memory: none, read or write
    label: str | None = None  # of the documents that declare the entry

    def check(self, registrant: "Registrant") -> None:
        """Raises BadRequest, naming the field, if a term is invalid or the registrant is no operator and sets one."""
        if not registrant.is_operator:
            for name in OPERATOR_FIELDS:
                if getattr(self, name) not in (None, "", {}, ()) and (name, getattr(self, name)) != ("rank", 0):
                    raise BadRequest(name, "is for operators to set")
        if self.delegation and self.delegation not in DELEGATIONS:
            raise BadRequest("delegation", f"must be one of: {', '.join(DELEGATIONS)}")
        if self.delegation == "bearer" and "auth" in self.upstream:
            raise BadRequest("delegation", "bearer leaves no place for the token of upstream.auth: header or none is needed")
        try:
            Permissions.parse(self.ceiling or ())
        except BadPermission as error:
            raise BadRequest("ceiling", f"has an entry that is no permission: {error}") from error
        check_label(self.label)
        self._check_labels()
        self._check_tools()
        self._check_calls()
        self._check_upstream()

    def check_skills(self, card: AgentCard | None) -> None:
        """Checks the contracts against the skills of the card. Raises BadRequest."""
        try:
            check_skill_names(self.contracts or {}, card.skills if card else ())
        except BadContract as error:
            raise BadRequest(error.field, error.problem) from error

    def _check_labels(self) -> None:
        labels = {"sensitivity": self.sensitivity, "clearance": self.clearance}
        labels |= {f"sensitivities.{tool[:100]}": label for tool, label in (self.sensitivities or {}).items()}
        for name, label in labels.items():
            if label is not None and (isinstance(label, bool) or not 0 <= label <= CLEARANCE_MAX):
                raise BadRequest(name, f"must be a whole number from 0 to {CLEARANCE_MAX}")

    def _check_tools(self) -> None:
        names = self.model_free or ()
        if len(set(names)) < len(names) or not all(name and name.isprintable() for name in names):
            raise BadRequest("model_free", "must be names of tools, none of them twice")
        try:
            parse_effects(self.effects or {})
        except BadEffect as error:
            raise BadRequest(error.field, error.problem) from error
        for name, text in (self.prices or {}).items():
            if not name or not name.isprintable():
                raise BadRequest("prices", "must be by names of tools, or `*` for all others")
            try:
                parse_price(text)
            except BadPrice as error:
                raise BadRequest("price" if name == ANY_CALL else f"prices.{name[:100]}", str(error)) from error

    def _check_calls(self) -> None:
        """Checks contracts, context, memory and endpoints. Raises BadRequest."""
        try:
            check_contracts(self.contracts or {})
        except BadContract as error:
            raise BadRequest(error.field, error.problem) from error
        if self.context is not None and self.context not in CONTEXTS:
            raise BadRequest("context", f"must be one of: {', '.join(CONTEXTS)}")
        if self.memory is not None and self.memory not in MEMORIES:
            raise BadRequest("memory", f"must be one of: {', '.join(MEMORIES)}")
        endpoints = self.endpoints or ()
        if len(endpoints) > ENDPOINTS_MAX or len({each.url for each in endpoints}) < len(endpoints):
            raise BadRequest("endpoints", f"must be at most {ENDPOINTS_MAX}, none of them twice")
        for at, each in enumerate(endpoints):
            if isinstance(each.weight, bool) or not 0 <= each.weight <= WEIGHT_MAX:
                raise BadRequest(f"endpoints[{at}].weight", f"must be a whole number from 0 to {WEIGHT_MAX}")

    def _check_upstream(self) -> None:
        if not isinstance(self.upstream.get("tls", True), bool):
            raise BadRequest("upstream.tls", "must be true or false")
        if self.upstream.get("era", ERAS[0]) not in ERAS:
            raise BadRequest("upstream.era", f"must be one of: {', '.join(ERAS)}")
        headers = self.upstream.get("headers", {})
        texts = [text for pair in headers.items() for text in pair] if isinstance(headers, dict) else [None]
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise BadRequest("upstream.headers", "must map names to texts of one line")
        for name in ("timeout", "idle_timeout"):
            seconds = self.upstream.get(name, 1)
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= TIMEOUT_MAX:
                raise BadRequest(f"upstream.{name}", f"must be a number of seconds, at most {TIMEOUT_MAX:.0f}")
        names = [str(name).lower() for name in headers]
        if "auth" in self.upstream:
            _check_auth(self.upstream["auth"], names)
        if "account" in self.upstream:
            _check_account(self.upstream, names)


def check_label(label: str | None) -> None:
    """Raises BadRequest unless the label of declarations is empty or has the form of a name, which may have `/`, `.` and `_` too."""
    if label and not _LABEL_FORM.fullmatch(label):
        raise BadRequest("label", "must be at most 64 of a-z, 0-9 and -._/")


def _check_account(upstream: Mapping[str, Any], headers: list[str]) -> None:
    """Checks `account`: personal accounts exclude credentials that all users would share. Raises BadRequest naming the member."""
    if upstream["account"] not in ACCOUNT_KINDS:
        raise BadRequest("upstream.account", f"must be one of: {', '.join(ACCOUNT_KINDS)}")
    personal = upstream["account"] == "person"
    if personal and "auth" not in upstream:
        raise BadRequest("upstream.auth", "is needed beside account: person; auth: {} is enough for most servers")
    if "auth" in upstream and (upstream["auth"].get("account", "personal") == "personal") != personal:
        raise BadRequest("upstream.auth.account", "contradicts upstream.account")
    shared = sorted(SHARED_HEADERS.intersection(headers))
    if personal and shared:
        raise BadRequest("upstream.headers", f"has headers that all users would share ({', '.join(shared)}), beside account: person")


def _check_auth(auth: Any, headers: list[str]) -> None:
    """Raises BadRequest naming the member."""
    known = (*AUTH_TEXTS, *AUTH_LISTS, "provider")
    if not isinstance(auth, dict) or auth.keys() - set(known):
        raise BadRequest("upstream.auth", f"must be a mapping with some of: {', '.join(known)}")
    if "authorization" in headers:
        raise BadRequest("upstream.headers", "has an authorization already, so upstream.auth can't give one")
    _check_texts("upstream.auth", auth, AUTH_TEXTS)
    for name in AUTH_LISTS:
        values = auth.get(name, [])
        if not isinstance(values, list) or not all(isinstance(one, str) and one.isprintable() and one and " " not in one for one in values):
            raise BadRequest(f"upstream.auth.{name}", "must be a list of texts without spaces")
    if "client_id" in auth and "issuer" not in auth:
        raise BadRequest("upstream.auth.issuer", "is needed beside client_id, which is valid at one authorization server only")
    if auth.keys() & {"client_secret", "method"} and "client_id" not in auth:
        raise BadRequest("upstream.auth.client_id", "is needed beside client_secret and method")
    _check_grant(auth)


def _check_grant(auth: Mapping[str, Any]) -> None:
    """Raises BadRequest naming the member."""
    service = auth.get("account") == "service"
    if auth.get("grant") == "id-jag" and (service or "provider" not in auth):
        raise BadRequest("upstream.auth.provider", "is needed beside grant: id-jag, which is for people's accounts")
    if "provider" in auth:
        provider = auth["provider"]
        if auth.get("grant") != "id-jag" or not isinstance(provider, dict) or not {"issuer", "client_id"} <= provider.keys():
            raise BadRequest("upstream.auth.provider", "must have an issuer and a client_id, beside grant: id-jag")
        if provider.keys() - PROVIDER_TEXTS.keys():
            raise BadRequest("upstream.auth.provider", f"must be a mapping with some of: {', '.join(PROVIDER_TEXTS)}")
        _check_texts("upstream.auth.provider", provider, PROVIDER_TEXTS)
    if auth.get("grant") == "exchange" and service:
        raise BadRequest("upstream.auth.grant", "exchange is for people's accounts")
    if "assertion" in auth and not (service and auth.get("grant") == "jwt-bearer"):
        raise BadRequest("upstream.auth.assertion", "is for grant: jwt-bearer of account: service")


def _check_texts(field: str, members: Mapping[str, Any], texts: Mapping[str, tuple[str, ...]]) -> None:
    for name in members.keys() & texts.keys():
        if not isinstance(members[name], str) or not members[name].isprintable() or not members[name]:
            raise BadRequest(f"{field}.{name}", "must be a text of one line")
        if texts[name] and members[name] not in texts[name]:
            raise BadRequest(f"{field}.{name}", f"must be one of: {', '.join(texts[name])}")


@dataclass(frozen=True, slots=True)
class AgentRegistrationRequest:
    """The registration of an agent, by `url` or by `card`. Without a name, the card's name is used."""

    url: str = ""
    card: Mapping[str, Any] | None = None
    name: str = ""
    kind: str = "a2a"
    terms: OperatorTerms = OperatorTerms()
    jwks: Mapping[str, Any] | None = None  # the keys with which the agent authenticates at the token endpoint


@dataclass(frozen=True, slots=True)
class ServerRegistrationRequest:
    """The registration of a server.

    `openapi` is a document that describes an HTTP API, or its address; `url` may then be empty. `known_digest` is the digest of the
    document that was last read there.
    """

    name: str
    url: str
    terms: OperatorTerms = OperatorTerms()
    openapi: str | Mapping[str, Any] | None = None
    known_digest: str = ""
