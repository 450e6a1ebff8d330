"""Settings of people: which identity providers vouch for them, and how their tokens are read."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from policies.delegation.permissions import BadPermission, Permissions
from policies.tokens.issuers import TOKEN_LIFE_MAX

MONTH = 30 * 86_400


class _FrozenSettings(BaseModel):
    """Refuses names that are no setting. Nothing changes after start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_scope_map(scope_map: dict[str, list[str]]) -> dict[str, list[str]]:
    """Raises ValueError for a scope that stands for something else than permissions."""
    for scope, texts in scope_map.items():
        try:
            Permissions.parse(texts)
        except BadPermission as error:
            raise ValueError(f"{scope!r} stands for what is no permission: {error}") from None
    return scope_map


class IssuerSettings(_FrozenSettings):
    """A trusted identity provider of people."""

    issuer: str
    audience: str = ""  # empty: the public_url
    other_audiences: list[str] = []  # that its tokens may name beside ours
    jwks_url: str
    algorithms: list[Literal["ES256", "RS256"]] = ["ES256", "RS256"]
    typ: Literal["any", "at+jwt"] = "any"
    token_life: int = Field(int(TOKEN_LIFE_MAX), ge=60, le=MONTH)  # seconds
    subject_claim: str = "sub"
    roles_claim: str | list[str] = "roles"
    default_roles: list[str] = []  # of everybody whom it vouches for
    tenant_claim: str = ""  # empty: everybody of this issuer is in its only tenant of `tenants`, or in `default`
    tenants: list[str] = []  # the only ones that it may speak for; empty: any
    scopes: Literal["permissions", "ignore"] = "permissions"
    scope_map: Annotated[dict[str, list[str]], AfterValidator(_check_scope_map)] | None = (
        None  # its scopes: the permissions each stands for
    )
    id_jag: bool = False  # whether its identity assertions (ID-JAG) are exchanged for tokens

    @model_validator(mode="after")
    def _check_scope_map_allowed(self) -> Self:
        if self.scopes == "ignore" and self.scope_map is not None:
            raise ValueError("scopes: ignore leaves nothing for scope_map to say; leave one of them away")
        return self


class IdentitySettings(_FrozenSettings):
    """Who vouches for people."""

    development: Literal["auto", "on", "off"] = "auto"
    issuers: list[IssuerSettings] = []
    hop_ttl: int = Field(120, ge=5, le=120)  # seconds a hop token lives
    task_ttl: int = Field(0, ge=0, le=86_400)  # seconds that a task's authority lasts at least, though the person's token expires before
