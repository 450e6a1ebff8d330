"""Decides which authorization servers a server may name: those on its own host. An operator has to list all others."""

import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import LOOPBACK, AuthorizationServer

_HOW_TO_LIST: Final = "an operator who trusts it lists its issuer, which the log names, in upstream.auth.authorization_servers"
FOREIGN_ISSUER_TEXT: Final = f"The server names an authorization server on another host; {_HOW_TO_LIST}"
FOREIGN_ENDPOINT_TEXT: Final = f"The authorization server has endpoints on another host; {_HOW_TO_LIST}"


def is_at_own_host(url: str, other_url: str) -> bool:
    """Whether a URL's host is the same as another's, or below it. All names of this machine are one host.

    A sibling host (login.tracker.example for mcp.tracker.example) may belong to another party, as under co.uk or vercel.app: the name does
    not show it, and public lists are incomplete. The same holds for a parent host.
    """
    host, other_host = ((urlsplit(each).hostname or "").lower().rstrip(".") for each in (url, other_url))
    if not host or not other_host:
        return False
    if host in LOOPBACK and other_host in LOOPBACK:
        return True
    return host == other_host or ("." in host and not _is_address(host) and other_host.endswith(f".{host}"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def choose_issuer(url: str, issuers: Collection[str], listed_issuers: Collection[str]) -> str:
    """The first of the `issuers` that a server at `url` may name, or that an operator listed. Raises UpstreamFault."""
    for issuer in issuers:
        if issuer in listed_issuers or is_at_own_host(url, issuer):
            return issuer
    raise UpstreamFault(FOREIGN_ISSUER_TEXT, str(list(issuers))[:300])


def check_endpoints(authorization_server: AuthorizationServer, listed_issuers: Collection[str]) -> None:
    """Checks that an authorization server that is not listed has endpoints on its own host only. Raises UpstreamFault."""
    if authorization_server.issuer in listed_issuers:
        return
    endpoints = (
        authorization_server.token_endpoint,
        authorization_server.authorization_endpoint,
        authorization_server.registration_endpoint,
    )
    foreign_endpoint = next((each for each in endpoints if each and not is_at_own_host(authorization_server.issuer, each)), "")
    if foreign_endpoint:
        raise UpstreamFault(FOREIGN_ENDPOINT_TEXT, foreign_endpoint[:300])


def may_revoke(authorization_server: AuthorizationServer, listed_issuers: Collection[str]) -> bool:
    """Whether tokens may be sent to its revocation endpoint: on its own host, or of an issuer that an operator listed."""
    return bool(authorization_server.revocation_endpoint) and (
        authorization_server.issuer in listed_issuers
        or is_at_own_host(authorization_server.issuer, authorization_server.revocation_endpoint)
    )
