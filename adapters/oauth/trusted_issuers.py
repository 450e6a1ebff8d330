"""Which authorization servers a server may name by itself: those of its own host. All others an operator has to list."""

import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import LOOPBACK, AuthorizationServer

_LISTED: Final = "an operator who trusts it lists its issuer, which the log names, in upstream.auth.authorization_servers"
ELSEWHERE: Final = f"The server names an authorization server that is not of its own host; {_LISTED}"
SCATTERED: Final = f"The authorization server has endpoints at another host; {_LISTED}"


def at_own_host(url: str, named: str) -> bool:
    """Whether what a URL names is at its own host, or at one below that. This machine is one site, whatever it is called.

    A neighbour (login.tracker.example for mcp.tracker.example) may be a stranger, as under co.uk or vercel.app: no text of a name tells,
    and the lists that do are never complete. The same goes for what is above.
    """
    here, there = ((urlsplit(each).hostname or "").lower().rstrip(".") for each in (url, named))
    if not here or not there:
        return False
    if here in LOOPBACK and there in LOOPBACK:
        return True
    return here == there or ("." in here and not _is_address(here) and there.endswith(f".{here}"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def chosen(url: str, named: Collection[str], listed: Collection[str]) -> str:
    """The first of the `named` issuers that a server at `url` may name, or that an operator listed. Raises UpstreamFault."""
    for issuer in named:
        if issuer in listed or at_own_host(url, issuer):
            return issuer
    raise UpstreamFault(ELSEWHERE, str(list(named))[:300])


def check_endpoints(at: AuthorizationServer, listed: Collection[str]) -> None:
    """Of one that nobody listed: it sends codes and secrets to its own host alone. Raises UpstreamFault."""
    if at.issuer in listed:
        return
    endpoints = (at.token_endpoint, at.authorization_endpoint, at.registration_endpoint)
    strange = next((each for each in endpoints if each and not at_own_host(at.issuer, each)), "")
    if strange:
        raise UpstreamFault(SCATTERED, strange[:300])


def may_revoke(at: AuthorizationServer, listed: Collection[str]) -> bool:
    """Whether tokens may be sent to its revocation endpoint: at its own host, or of an issuer that an operator listed."""
    return bool(at.revocation_endpoint) and (at.issuer in listed or at_own_host(at.issuer, at.revocation_endpoint))
