"""Settings of the sign-in of people at the gateway: providers, clients, and how long sessions last."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.ingress.oauth.sign_in.clients.redirects import BadRedirect, check_private_redirect, parse_redirect
from gateway.server.sections.switch import Switch
from policies.delegation.permissions import BadPermission, Permissions

DAY = 86_400  # seconds
ADMINISTRATIVE = ("*", "registry:", "approval:", "audit:", "policy:", "workflow:")  # what default scopes never begin with
DEFAULT_SCOPES = ("agent:*", "tool:*", "prompt:*", "resource:*", "state:*", "memory:*")
KNOWN_REDIRECTS = (  # private-use redirect URIs of clients that people use
    "cursor://anysphere.cursor-mcp/oauth/callback",
    "vscode://vscode.github-authentication/did-authenticate",
    "windsurf://codeium.windsurf/oauth/callback",
)


class _SignInPart(BaseModel):
    """Settings that refuse unknown names and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_reference(reference: str) -> str:
    """Returns the reference. Raises ValueError for a secret in the settings themselves, without repeating it."""
    if reference and not reference.startswith(("env:", "file:")):
        raise ValueError("write env:NAME or file:PATH; the settings must not contain the secret itself")
    return reference


def _check_scopes(scopes: list[str]) -> list[str]:
    """Returns the scopes. Raises ValueError for one that is no permission, or administrative."""
    try:
        Permissions.parse(scopes)
    except BadPermission as error:
        raise ValueError(str(error)) from None
    if wrong := [scope for scope in scopes if scope.startswith(ADMINISTRATIVE)]:
        raise ValueError(f"{wrong[0]!r} is administrative; clients ask for it where they need it")
    return scopes


def _check_private_uris(uris: list[str]) -> list[str]:
    """Returns the URIs. Raises ValueError for one that is not of an application's own scheme."""
    for uri in uris:
        try:
            check_private_redirect(uri)
        except BadRedirect as error:
            raise ValueError(f"{uri!r}: {error}") from None
    return uris


class SignInProviderSettings(_SignInPart):
    """The gateway as a client of an identity provider, which is one of `identity.issuers`."""

    issuer: str
    label: str = Field("", max_length=60)  # what people read; empty: the host of the issuer
    client_id: str = Field(min_length=1)
    client_secret: Annotated[str, AfterValidator(_check_reference)] = ""  # env:NAME or file:PATH; empty: a public client
    auth_method: Literal["", "client_secret_basic", "client_secret_post", "private_key_jwt", "none"] = ""
    scopes: list[str] = ["openid", "offline_access"]
    roles_from: Literal["id_token", "access_token"] = "id_token"
    prompt: Literal["", "login", "consent", "select_account"] = ""


class SignInClientSettings(_SignInPart):
    """A client that the operator registers."""

    name: str = Field(min_length=1, max_length=80)
    redirect_uris: list[str] = Field(min_length=1, max_length=20)
    api: bool = False  # whether it may ask for /api, and for the gateway as a whole


class SignInSettings(_SignInPart):
    """How people sign in at the gateway."""

    development: Switch = "auto"  # the page that lets one choose among the development users
    providers: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")], SignInProviderSettings] = {}
    clients: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], SignInClientSettings] = {}
    registration: bool = True  # whether clients may register themselves (RFC 7591)
    documents: bool = True  # whether a client may be the URL of its metadata document
    redirect_uris: Annotated[list[str], AfterValidator(_check_private_uris)] = list(
        KNOWN_REDIRECTS
    )  # private-use redirect URIs, compared exactly
    scopes: Annotated[list[str], AfterValidator(_check_scopes)] = list(DEFAULT_SCOPES)  # of clients that ask for none
    token_life: int = Field(900, ge=60, le=3600)  # seconds of an access token
    session_life: int = Field(28_800, ge=300, le=30 * DAY)  # seconds of a session whose roles can't be renewed
    renewed_life: int = Field(30 * DAY, ge=300, le=366 * DAY)  # seconds of a session whose roles are renewed at the provider
    clients_max: int = Field(1000, ge=1, le=1_000_000)  # clients that registered themselves
    client_life: int = Field(90 * DAY, ge=300, le=3660 * DAY)  # seconds since a person last signed in with such a client

    @model_validator(mode="after")
    def _check_client_names(self) -> Self:
        if reserved := [name for name in self.clients if name.startswith(("interlock", "dyn_", "client_"))]:
            raise ValueError(f"{reserved[0]!r} is reserved for the gateway; choose another client id")
        return self

    @model_validator(mode="after")
    def _check_client_redirects(self) -> Self:
        for name, client in self.clients.items():
            for uri in client.redirect_uris:
                try:
                    parse_redirect(uri, self.redirect_uris)
                except BadRedirect as error:
                    raise ValueError(f"clients.{name}.redirect_uris: {uri!r}: {error}") from None
        return self
