"""Settings of identity providers, and of how their tokens are read."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.server.sections.switch import Switch
from policies.delegation.permissions import BadPermission, Permissions
from policies.tokens.issuers import TOKEN_LIFE_MAX

MONTH = 30 * 86_400


class _FrozenSettings(BaseModel):
    """Settings that refuse unknown names and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_scope_map(scope_map: dict[str, list[str]]) -> dict[str, list[str]]:
    """Returns the map. Raises ValueError for a scope mapped to something other than permissions."""
    for scope, texts in scope_map.items():
        try:
            Permissions.parse(texts)
        except BadPermission as error:
            raise ValueError(f"{scope!r} is mapped to something that is not a permission: {error}") from None
    return scope_map


class IssuerSettings(_FrozenSettings):
    """A trusted identity provider of people."""

    issuer: str
    audience: str = ""  # empty: the public_url
    other_audiences: list[str] = []  # that its tokens may name besides the gateway's
    jwks_url: str
    algorithms: list[Literal["ES256", "RS256"]] = ["ES256", "RS256"]
    typ: Literal["any", "at+jwt"] = "any"
    token_life: int = Field(int(TOKEN_LIFE_MAX), ge=60, le=MONTH)  # seconds
    subject_claim: str = "sub"
    roles_claim: str | list[str] = "roles"
    default_roles: list[str] = []  # of every person of this issuer
    tenant_claim: str = ""  # empty: all people of this issuer are in the only tenant of `tenants`, or in `default`
    tenants: list[str] = []  # the only tenants that its tokens may name; empty: any
    scopes: Literal["permissions", "ignore"] = "permissions"
    scope_map: Annotated[dict[str, list[str]], AfterValidator(_check_scope_map)] | None = None  # scope: the permissions it grants
    id_jag: bool = False  # whether its identity assertions (ID-JAG) are exchanged for tokens

    @model_validator(mode="after")
    def _check_scope_map_allowed(self) -> Self:
        if self.scopes == "ignore" and self.scope_map is not None:
            raise ValueError("scopes: ignore and scope_map exclude each other; remove one of them")
        return self


class IdentitySettings(_FrozenSettings):
    """Settings of identity providers and of token lifetimes."""

    development: Switch = "auto"
    issuers: list[IssuerSettings] = []
    hop_ttl: int = Field(120, ge=5, le=120)  # seconds a hop token lives
    run_ttl: int = Field(MONTH, ge=60, le=366 * 86_400)  # the longest authority of a run of a workflow, in seconds
    roles_ttl: int = Field(86_400, ge=60, le=MONTH)  # seconds for which roles in a provider's token count in a run
    task_ttl: int = Field(0, ge=0, le=86_400)  # least seconds of a task's authority, even if the person's token expires before
