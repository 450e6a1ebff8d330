"""How the gateway gets the credentials for one agent or server: `upstream.auth` of its entry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.oauth.discovery import parse_scopes

EXCHANGE_METHOD: Final = "exchange"  # RFC 8693, with the gateway's own word on who the person is
JWT_BEARER: Final = "jwt-bearer"  # RFC 7523, with the same, or with an assertion that the operator's platform gives
ID_JAG: Final = "id-jag"  # with an assertion of the identity provider, where the person is connected once for all servers
ASSERTION_GRANT_KINDS: Final = frozenset({EXCHANGE_METHOD, JWT_BEARER, ID_JAG})


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """The identity provider that vouches for people with an ID-JAG, and who the gateway is there."""

    issuer: str = ""
    client_id: str = ""
    secret: str = field(default="", repr=False)
    method: str = ""


@dataclass(frozen=True, slots=True)
class AuthOptions:
    """`upstream.auth` of an entry. Not `personal`: one account of the gateway's own, for what knows no users."""

    is_personal: bool = True
    issuer: str = ""  # the only authorization server that is asked; empty: the one that the server names
    client_id: str = ""
    secret: str = field(default="", repr=False)
    method: str = ""
    scopes: frozenset[str] = frozenset()
    listed_issuers: frozenset[str] = frozenset()  # issuers elsewhere that the server may name
    grant_kind: str = ""  # of WITH_ASSERTION; empty: a person's consent, or client credentials
    assertion: str = field(default="", repr=False)  # of the gateway's platform, for an account of its own
    provider: ProviderOptions = ProviderOptions()

    @property
    def trusted_issuers(self) -> frozenset[str]:
        """Issuers that an operator names, in one way or another."""
        return self.listed_issuers | {self.issuer}


def read_auth_options(given: Mapping[str, Any], read_secret: Callable[[str], str]) -> AuthOptions:
    """Of a checked `upstream.auth`; `secret` reads what is kept in the environment or in a file."""
    provider = given.get("provider", {})
    return AuthOptions(
        given.get("account", "personal") == "personal",
        given.get("issuer", ""),
        given.get("client_id", ""),
        read_secret(given.get("client_secret", "")),
        given.get("method", ""),
        parse_scopes(given.get("scopes", [])),
        frozenset(given.get("authorization_servers", [])),
        given.get("grant", ""),
        read_secret(given.get("assertion", "")),
        ProviderOptions(
            provider.get("issuer", ""),
            provider.get("client_id", ""),
            read_secret(provider.get("client_secret", "")),
            provider.get("method", ""),
        ),
    )
