"""The OAuth options of an agent or server: `upstream.auth` of its entry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.oauth.discovery import parse_scopes

EXCHANGE_METHOD: Final = "exchange"  # RFC 8693, with the gateway's own assertion about the person
JWT_BEARER: Final = "jwt-bearer"  # RFC 7523, with the same, or with an assertion of the operator's platform
ID_JAG: Final = "id-jag"  # with an assertion of the identity provider, to which the person connects once for all servers
ASSERTION_GRANT_KINDS: Final = frozenset({EXCHANGE_METHOD, JWT_BEARER, ID_JAG})


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """The identity provider that issues ID-JAGs for people, and the gateway's client there."""

    issuer: str = ""
    client_id: str = ""
    secret: str = field(default="", repr=False)
    method: str = ""


@dataclass(frozen=True, slots=True)
class AuthOptions:
    """`upstream.auth` of an entry. Not `is_personal`: one account of the gateway, for upstreams without users."""

    is_personal: bool = True
    issuer: str = ""  # the only authorization server to use; empty: the one that the server names
    client_id: str = ""
    secret: str = field(default="", repr=False)
    method: str = ""
    scopes: frozenset[str] = frozenset()
    listed_issuers: frozenset[str] = frozenset()  # issuers on other hosts that the server may name
    grant_kind: str = ""  # one of ASSERTION_GRANT_KINDS; empty: a person's consent, or client credentials
    assertion: str = field(default="", repr=False)  # of the gateway's platform, for its own account
    provider: ProviderOptions = ProviderOptions()

    @property
    def trusted_issuers(self) -> frozenset[str]:
        """The issuers that the operator configured, in either option."""
        return self.listed_issuers | {self.issuer}


def read_auth_options(configured: Mapping[str, Any], read_secret: Callable[[str], str]) -> AuthOptions:
    """Parses a checked `upstream.auth`. `read_secret` resolves secrets in the environment or in files."""
    provider = configured.get("provider", {})
    return AuthOptions(
        configured.get("account", "personal") == "personal",
        configured.get("issuer", ""),
        configured.get("client_id", ""),
        read_secret(configured.get("client_secret", "")),
        configured.get("method", ""),
        parse_scopes(configured.get("scopes", [])),
        frozenset(configured.get("authorization_servers", [])),
        configured.get("grant", ""),
        read_secret(configured.get("assertion", "")),
        ProviderOptions(
            provider.get("issuer", ""),
            provider.get("client_id", ""),
            read_secret(provider.get("client_secret", "")),
            provider.get("method", ""),
        ),
    )
