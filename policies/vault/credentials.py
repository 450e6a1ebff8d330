"""Credentials for upstreams: each has a key of owner, issuer and resource, and is read against a Grant only."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from policies.delegation.rulings import Grant


class WrongOwner(Exception):
    """The credential belongs to another tenant or person than the Grant."""


def origin_of(url: str) -> str:
    """Scheme, host and port of an http(s) URL; empty for anything else."""
    try:
        parts = urlsplit(url)
        usual = {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{parts.hostname}:{parts.port or usual}" if parts.hostname else ""
    except (ValueError, KeyError):
        return ""


class CredentialKey(NamedTuple):
    """The key of one credential. `owner` is tenant|issuer|subject of a person, or empty for the gateway's own account.

    `issuer` is the authorization server, byte for byte; `resource` the identifier of the resource (RFC 9728), an origin with a path.
    """

    tenant: str
    owner: str
    issuer: str
    resource: str

    @property
    def full_key(self) -> tuple[str, ...]:
        """The encryption context and lease name of this credential, unique among all sealed secrets."""
        return ("credential", *self)

    def is_open_to(self, grant: Grant) -> bool:
        """Whether the Grant is of the same tenant and, for a personal credential, of the same person."""
        principal = grant.delegation.principal
        return self.tenant == principal.tenant and self.owner in ("", principal.owner_key)


@dataclass(frozen=True, slots=True)
class Credential:
    """Tokens for one resource. `expires` and `obtained` are seconds since 1970, 0 if unknown. `asked` are the requested scopes.

    The consent was given to `client_id` with the redirect URI `redirect`. `endpoint` issued the tokens, and only it refreshes them.
    `id_token` identifies the person, where the issuer sent one (OpenID Connect).
    """

    access_token: str = field(repr=False)
    client_id: str
    scopes: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    expires: float = 0.0
    obtained: float = 0.0
    refresh_token: str = field(default="", repr=False)
    redirect: str = ""
    endpoint: str = ""
    id_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ClientRegistration:
    """The gateway's client registration at one authorization server. `method` is its client authentication method (RFC 7591 s2)."""

    issuer: str
    client_id: str
    method: str = "none"
    secret: str = field(default="", repr=False)


class CredentialVault(Protocol):
    """Stores credentials, and the gateway's client registrations."""

    async def read(self, grant: Grant, key: CredentialKey) -> Credential | None:
        """The credential of a key, or None. Raises WrongOwner."""
        ...

    async def find(self, grant: Grant, origin: str, personal: bool) -> Sequence[tuple[CredentialKey, Credential]]:
        """The credentials of the Grant's person, or of the gateway's own account, for resources of one origin; the latest last."""
        ...

    async def write(self, key: CredentialKey, credential: Credential) -> None: ...

    async def delete(self, key: CredentialKey) -> None: ...

    def lease(self, name: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """A lease on `name` across all processes, since a refresh token can be used only once."""
        ...

    async def find_client(self, tenant: str, issuer: str) -> ClientRegistration | None: ...

    async def write_client(self, tenant: str, client: ClientRegistration) -> None: ...

    async def delete_client(self, tenant: str, issuer: str) -> None: ...
