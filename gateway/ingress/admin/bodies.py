"""Reads bodies of /api: bounded, checked as raw JSON, then validated by a model that knows every member."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from adapters.redaction.validation_texts import describe_problem
from adapters.upstream.aws_access import AWS_OPTION
from gateway.ingress.http.asgi import read_body
from gateway.registration.requests import BadRequest, OperatorTerms
from gateway.registration.stored_secrets import refuse_stored
from gateway.registration.vendor_source import printable_name
from policies.strict_json import LARGE, MEMBERS_MAX, parse, run_off_loop
from registry.cards.card import AgentEndpoint
from registry.cards.effects import EFFECTS_MAX
from registry.cards.prices import ANY_CALL, PRICES_MAX

M = TypeVar("M", bound=BaseModel)
FILE_ONLY_MEMBERS = frozenset({"command", "args", "env"})  # these start a program on the gateway's machine
OWN_CREDENTIAL_MEMBERS = frozenset({"ambient"})  # these send the machine's own credential to the upstream


class ApiBody(BaseModel):
    """A body whose values are not converted, and whose unknown members are refused, as are texts that PostgreSQL does not store."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @field_validator("*")
    @classmethod
    def _refuse_nul(cls, value: Any) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("has a NUL character")
        return value


class ProviderBody(ApiBody):
    """The identity provider of people, and the gateway's client there."""

    issuer: str = Field(max_length=2048)
    client_id: str = Field(max_length=2048)
    client_secret: str | None = Field(None, max_length=4096)
    method: str | None = None


class AuthBody(ApiBody):
    """How the gateway gets the credentials for a server (docs/mcp.md). The client secret is stored and never shown."""

    account: str | None = None
    issuer: str | None = Field(None, max_length=2048)
    client_id: str | None = Field(None, max_length=2048)
    client_secret: str | None = Field(None, max_length=4096)
    method: str | None = None
    scopes: list[str] | None = Field(None, max_length=200)
    authorization_servers: list[str] | None = Field(None, max_length=20)
    grant: str | None = None
    provider: ProviderBody | None = None


class UpstreamBody(ApiBody):
    """The settings of the upstream. Other members are options that the adapter of the agent's kind checks."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    account: str | None = None
    headers: dict[str, str] = {}
    timeout: float | None = None
    auth: AuthBody | None = None


class EndpointBody(ApiBody):
    """One more address of the same agent."""

    url: str = Field(max_length=2048)
    weight: int = 1


def parse_endpoints(bodies: list[EndpointBody] | None) -> tuple[AgentEndpoint, ...] | None:
    return None if bodies is None else tuple(AgentEndpoint(each.url, each.weight) for each in bodies)


def prices_of_agent(price: str | None) -> dict[str, str] | None:
    """The prices of an agent, which has one for every call; an empty text removes it."""
    return None if price is None else {ANY_CALL: price} if price else {}


class TermsBody(ApiBody):
    """The terms that operators may add to a registration."""

    ceiling: list[str] | None = Field(None, max_length=1000)
    delegation: str = ""
    upstream: UpstreamBody | None = None
    clearance: int | None = None
    effects: dict[str, dict[str, Any]] | None = Field(None, max_length=EFFECTS_MAX)
    label: str | None = None

    def operator_terms(self) -> OperatorTerms:
        """Returns the terms. Raises BadRequest."""
        ceiling, upstream = None if self.ceiling is None else tuple(self.ceiling), upstream_settings(self.upstream)
        refuse_stored(upstream)
        return OperatorTerms(ceiling, self.delegation, upstream, clearance=self.clearance, effects=self.effects, label=self.label)


class AgentTermsBody(TermsBody):
    """The terms that operators may add to the registration of an agent."""

    trusted_keys: list[dict[str, Any]] | None = Field(None, max_length=50)
    rank: int | None = Field(None, ge=-1000, le=1000)
    contracts: dict[str, dict[str, Any]] | None = None
    context: str | None = None
    endpoints: list[EndpointBody] | None = Field(None, max_length=100)
    price: str | None = Field(None, max_length=20)
    memory: str | None = None

    def operator_terms(self) -> OperatorTerms:
        return replace(
            super().operator_terms(),
            trusted_keys=tuple(self.trusted_keys or ()),
            rank=self.rank or 0,
            contracts=self.contracts,
            context=self.context,
            endpoints=parse_endpoints(self.endpoints),
            prices=prices_of_agent(self.price),
            memory=self.memory,
        )


class ServerTermsBody(TermsBody):
    """The terms that operators may add to the registration of a server."""

    sensitivity: int | None = None
    sensitivities: dict[str, int] | None = Field(None, max_length=2000)
    model_free: list[str] | None = Field(None, max_length=2000)
    prices: dict[str, str] | None = Field(None, max_length=PRICES_MAX)

    def operator_terms(self) -> OperatorTerms:
        tools = None if self.model_free is None else tuple(self.model_free)
        found = replace(super().operator_terms(), sensitivity=self.sensitivity, sensitivities=self.sensitivities)
        return replace(found, model_free=tools, prices=self.prices)


def upstream_settings(upstream: UpstreamBody | None) -> dict[str, Any]:
    """Returns the upstream settings of an entry. Raises BadRequest for members that only the configuration file may have."""
    settings = upstream.model_dump(exclude_none=True, exclude_defaults=True) if upstream else {}
    for name, value in _option_members((upstream.model_extra or {}) if upstream else {}):
        if name in OWN_CREDENTIAL_MEMBERS or (isinstance(value, str) and value.startswith(("env:", "file:"))):
            raise BadRequest(f"upstream.{printable_name(name)}", "reads the gateway's environment; only the configuration file may do that")
    for name in sorted(settings.keys() & {"tls", "push"}):
        raise BadRequest(f"upstream.{name}", "is not a member of this request")
    for name, value in settings.get("headers", {}).items():
        if value.startswith("env:"):
            raise BadRequest(
                f"upstream.headers.{printable_name(name)}", "reads the gateway's environment; only the configuration file may do that"
            )
    auth = settings.get("auth", {})
    for where, options in (("upstream.auth", auth), ("upstream.auth.provider", auth.get("provider", {}))):
        if options.get("client_secret", "").startswith(("env:", "file:")):
            raise BadRequest(f"{where}.client_secret", "reads the gateway's environment; only the configuration file may do that")
    return settings


def _option_members(upstream_options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the options of an adapter, and the members of its AWS credential."""
    yield from upstream_options.items()
    if isinstance(access := upstream_options.get(AWS_OPTION), Mapping):
        yield from access.items()


async def read_model(request: Request, model: type[M], limit: int, members_max: int = MEMBERS_MAX) -> M:
    """Reads a body of at most `limit` bytes and `members_max` arrays, objects and names. Raises BodyTooLarge, BadJson and BadRequest."""
    raw = await read_body(request.scope, request.receive, limit)
    return await run_off_loop(_parse_model, raw, model, members_max) if len(raw) > LARGE else _parse_model(raw, model)


async def read_optional_model(request: Request, model: type[M], limit: int) -> M | None:
    """Reads a body that may be left out. Raises BodyTooLarge, BadJson and BadRequest."""
    raw = await read_body(request.scope, request.receive, limit)
    if len(raw) > LARGE:
        return await run_off_loop(_parse_model, raw, model)
    return _parse_model(raw, model) if raw else None


def _parse_model(raw: bytes, model: type[M], members_max: int = MEMBERS_MAX) -> M:
    document = parse(raw, members_max)
    if not isinstance(document, dict):
        raise BadRequest("body", "must be a JSON object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = _field_path(first["loc"])
        if first["type"] != "extra_forbidden":
            raise BadRequest(path, describe_problem(first)) from None
        if path in FILE_ONLY_MEMBERS:
            raise BadRequest(path, "is accepted in the configuration file only, never in a request") from None
        raise BadRequest(path, "is not a member of this request") from None


def _field_path(steps: tuple[int | str, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{printable_name(step)}" for step in steps)
    return text.removeprefix(".") or "body"
