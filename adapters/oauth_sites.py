"""Which authorization servers a server may name by itself: those of its own site. All others an operator has to list."""

import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from adapters.contract import UpstreamFault
from adapters.oauth_discovery import LOOPBACK, AuthorizationServer

# Second levels below two-letter domains that anybody may register under, as in co.uk.
OPEN_LEVELS: Final = frozenset(
    (
        *("ac", "co", "com", "edu", "gob", "gov", "gouv", "go", "ltd", "me"),
        *("mil", "ne", "net", "nom", "or", "org", "plc", "sch"),
    )
)
# Where strangers have neighbouring names: each name is a site of its own.
SHARED: Final = (
    *(".amazonaws.com", ".on.aws", ".cloudfront.net", ".appspot.com", ".run.app", ".web.app", ".firebaseapp.com", ".cloudfunctions.net"),
    *(".cloudworkstations.dev", ".azure-api.net", ".azurecontainerapps.io", ".azurewebsites.net", ".cloudapp.net", ".windows.net"),
    *(".workers.dev", ".pages.dev", ".trycloudflare.com", ".vercel.app", ".netlify.app", ".herokuapp.com", ".onrender.com", ".render.com"),
    *(".fly.dev", ".deno.dev", ".railway.app", ".repl.co", ".replit.app", ".replit.dev", ".glitch.me", ".surge.sh", ".streamlit.app"),
    *(".hf.space", ".github.io", ".gitlab.io", ".blogspot.com", ".ngrok-free.app", ".ngrok-free.dev", ".ngrok.app", ".ngrok.dev"),
    *(".ngrok.io", ".loca.lt", ".ts.net", ".duckdns.org", ".nip.io", ".sslip.io"),
)
_LISTED: Final = "an operator who trusts it lists its issuer, which the log names, in upstream.auth.authorization_servers"
ELSEWHERE: Final = f"The server names an authorization server that is not of its site; {_LISTED}"
SCATTERED: Final = f"The authorization server has endpoints at another site; {_LISTED}"


def site_of(host: str) -> str:
    """The part of a host name that one owner has, as far as its text tells; of an address, itself."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        labels = host.rstrip(".").split(".")
    if host.endswith(SHARED) or len(labels) < 3:
        return ".".join(labels)
    known = 3 if len(labels[-1]) == 2 and labels[-2] in OPEN_LEVELS else 2
    return ".".join(labels[-known:])


def same_site(one: str, other: str) -> bool:
    """Of two URLs. This machine is one site, whatever it is called."""
    hosts = [(urlsplit(url).hostname or "").lower() for url in (one, other)]
    if not all(hosts):
        return False
    return all(host in LOOPBACK for host in hosts) or site_of(hosts[0]) == site_of(hosts[1])


def chosen(url: str, named: Collection[str], listed: Collection[str]) -> str:
    """The first of the `named` issuers that a server at `url` may name, or that an operator listed. Raises UpstreamFault."""
    for issuer in named:
        if issuer in listed or same_site(url, issuer):
            return issuer
    raise UpstreamFault(ELSEWHERE, str(list(named))[:300])


def check_endpoints(at: AuthorizationServer, listed: Collection[str]) -> None:
    """Of one that nobody listed: it sends codes and secrets to its own site alone. Raises UpstreamFault."""
    if at.issuer in listed:
        return
    endpoints = (at.token_endpoint, at.authorization_endpoint, at.registration_endpoint)
    strange = next((each for each in endpoints if each and not same_site(at.issuer, each)), "")
    if strange:
        raise UpstreamFault(SCATTERED, strange[:300])
