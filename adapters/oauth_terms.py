"""How the gateway gets the credentials for one server: `upstream.auth` of its entry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.oauth_discovery import scopes_of


@dataclass(frozen=True, slots=True)
class AuthTerms:
    """`upstream.auth` of a server. Not `personal`: one account of the gateway's own, for servers that know no users."""

    personal: bool = True
    issuer: str = ""  # the only authorization server that is asked; empty: the one that the server names
    client_id: str = ""
    secret: str = field(default="", repr=False)
    method: str = ""
    scopes: frozenset[str] = frozenset()


def auth_terms(given: Mapping[str, Any], secret: Callable[[str], str]) -> AuthTerms:
    """Of a checked `upstream.auth`; `secret` reads what is kept in the environment."""
    return AuthTerms(
        given.get("account", "personal") == "personal",
        given.get("issuer", ""),
        given.get("client_id", ""),
        secret(given.get("client_secret", "")),
        given.get("method", ""),
        scopes_of(given.get("scopes", [])),
    )
