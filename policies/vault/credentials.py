"""Credentials for servers, each in a place of its own: whose it is, who gave it, and what it opens. Read against a Grant only."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from policies.delegation.rulings import Grant


class WrongOwner(Exception):
    """A Grant does not open a credential of another tenant or person."""


def origin_of(url: str) -> str:
    """Scheme, host and port, or nothing for what is no http(s) URL."""
    try:
        parts = urlsplit(url)
        usual = {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{parts.hostname}:{parts.port or usual}" if parts.hostname else ""
    except (ValueError, KeyError):
        return ""


class CredentialKey(NamedTuple):
    """The place of one credential. `owner` is tenant|issuer|subject of a person, or empty for the gateway's own account.

    `issuer` is the authorization server, byte for byte; `resource` the identifier of what it opens (RFC 9728), an origin with a path.
    """

    tenant: str
    owner: str
    issuer: str
    resource: str

    @property
    def full_key(self) -> tuple[str, ...]:
        """What names it among all that is sealed, and is changed by one at a time."""
        return ("credential", *self)

    def is_open_to(self, grant: Grant) -> bool:
        """Whether a Grant is the same tenant's and, where the credential is a person's, the same person's."""
        principal = grant.delegation.principal
        return self.tenant == principal.tenant and self.owner in ("", principal.owner_key)


@dataclass(frozen=True, slots=True)
class Credential:
    """`expires` and `obtained` are seconds since 1970; 0: nobody said. `asked` are the scopes asked for, `scopes` those that were given.

    A consent was given to `client_id`, which was to come back at `redirect`; `endpoint` gave the tokens, and no other renews them.
    `id_token` says who the person is, where the issuer said so (OpenID Connect).
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
    """Who the gateway is to one authorization server. `method` is how it proves that (RFC 7591 s2: client_secret_basic, none, …)."""

    issuer: str
    client_id: str
    method: str = "none"
    secret: str = field(default="", repr=False)


class CredentialVault(Protocol):
    """Keeps credentials, and what authorization servers registered for us."""

    async def read(self, grant: Grant, key: CredentialKey) -> Credential | None:
        """Raises NotTheirs."""
        ...

    async def find(self, grant: Grant, origin: str, personal: bool) -> Sequence[tuple[CredentialKey, Credential]]:
        """Those of the Grant's person, or of the gateway's own account, for resources of one origin; the latest last."""
        ...

    async def write(self, key: CredentialKey, credential: Credential) -> None: ...

    async def delete(self, key: CredentialKey) -> None: ...

    def lease(self, name: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """One at a time, of all processes, changes what `place` names: a refresh token is good for once."""
        ...

    async def find_client(self, tenant: str, issuer: str) -> ClientRegistration | None: ...

    async def write_client(self, tenant: str, client: ClientRegistration) -> None: ...

    async def delete_client(self, tenant: str, issuer: str) -> None: ...
