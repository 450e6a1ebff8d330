"""Others that the gateway depends on: its public address, issuers of tokens, certificates, clocks."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from gateway.cli.exit_codes import CommandError
from gateway.cli.local import installation as home
from gateway.cli.local.doctor.kinds import DoctorFinding
from gateway.cli.tokens.authorities import trusted_authorities

if TYPE_CHECKING:
    from adapters.upstream.egress import Egress
    from gateway.server.sections.identity import IssuerSettings
    from gateway.server.settings import Settings

ANSWER_SECONDS: Final = 5.0
SKEW_SECONDS: Final = 30.0  # the Date header has whole seconds, and may come from a cache
ENDING_DAYS: Final = 21
HOSTS_MAX: Final = 50
DAY: Final = 86_400


class TlsPeer(NamedTuple):
    """A host that speaks TLS, and where to connect to it."""

    host: str
    port: int
    address: str


def check_issuers(settings: "Settings") -> Iterator[DoctorFinding]:
    """Yields issuers whose keys can't be read, and clocks that disagree. Reads the keys as the gateway does."""
    from adapters.upstream.egress import Egress

    async def ask_all() -> list[DoctorFinding]:
        egress = Egress(settings.allowed_targets)
        try:
            found = await asyncio.gather(*(_ask_issuer(egress, issuer) for issuer in settings.identity.issuers))
        finally:
            await egress.close()
        return [finding for findings in found for finding in findings]

    if settings.identity.issuers:
        yield from asyncio.run(ask_all())


async def _ask_issuer(egress: "Egress", issuer: "IssuerSettings") -> list[DoctorFinding]:
    from adapters.contract import UpstreamFault
    from adapters.upstream.targets import EgressRefused
    from policies import strict_json

    try:
        answer = await egress.fetch(issuer.jwks_url, timeout=ANSWER_SECONDS)
    except EgressRefused as refused:
        return [DoctorFinding("issuers.unreachable", f"{issuer.jwks_url} may not be called: {refused.public}", "add it to egress.allow")]
    except UpstreamFault as fault:
        return [DoctorFinding("issuers.unreachable", f"{issuer.jwks_url}: {fault.detail or fault}", f"curl {issuer.jwks_url}")]
    findings = list(_judge_date(urlsplit(issuer.jwks_url).hostname or "", answer.headers.get("date", "")))
    if answer.status != 200:
        return [*findings, DoctorFinding("issuers.unreachable", f"{issuer.jwks_url} answers {answer.status}", f"curl -i {issuer.jwks_url}")]
    try:
        document = strict_json.parse(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not document.get("keys"):
        findings.append(DoctorFinding("issuers.no-keys", f"{issuer.jwks_url} has no keys"))
    return findings


def _judge_date(host: str, date: str) -> Iterator[DoctorFinding]:
    try:
        skew = parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError):
        return
    if abs(skew) > SKEW_SECONDS:
        yield DoctorFinding("clock.skewed", f"the clock of {host} is {skew:+.0f} s from the one of this machine")


def check_public_address(settings: "Settings", is_running: bool) -> Iterator[DoctorFinding]:
    """Yields a public address that does not lead to this gateway. Its published keys tell one gateway from another."""
    import httpx

    if not is_running:
        return
    try:
        verify, url = trusted_authorities(settings.public_url), f"{settings.public_url}/.well-known/jwks.json"
        answer = httpx.get(url, timeout=ANSWER_SECONDS, verify=verify, trust_env=False)
        published = {str(key["kid"]) for key in answer.json()["keys"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        detail = f"{settings.public_url} does not answer as a gateway: {type(error).__name__}"
        yield DoctorFinding("settings.public-url", detail, f"curl -i {settings.public_url}/livez")
        return
    if home.open_signing_keys(settings).active_kid not in published:
        yield DoctorFinding("gateway.wrong-address", f"{settings.public_url} publishes other keys than those in {settings.home / 'keys'}")


def check_certificates(settings: "Settings") -> Iterator[DoctorFinding]:
    """Yields certificates that end soon or are not trusted: of the public address, issuers, agents and servers, HOSTS_MAX at most."""
    urls = (settings.public_url, *(issuer.jwks_url for issuer in settings.identity.issuers))
    own = [peer for url in urls if (peer := _tls_peer(url)) is not None]
    peers = list(dict.fromkeys([*own, *find_vetted_peers(settings, _registered_urls(settings))]))[:HOSTS_MAX]
    with ThreadPoolExecutor(max_workers=10) as pool:
        for findings in pool.map(_look_at_certificate, peers):
            yield from findings


def find_vetted_peers(settings: "Settings", urls: Sequence[str]) -> list[TlsPeer]:
    """Returns the hosts of agents and servers that the gateway itself would call, at vetted addresses: others have chosen their names."""
    from adapters.upstream.egress import Egress

    peers = list(dict.fromkeys(peer for url in urls if (peer := _tls_peer(url)) is not None))[:HOSTS_MAX]

    async def vet_all() -> list[TlsPeer | None]:
        egress = Egress(settings.allowed_targets)
        try:
            return await asyncio.gather(*(_vet(egress, peer) for peer in peers))
        finally:
            await egress.close()

    return [peer for peer in asyncio.run(vet_all()) if peer is not None]


async def _vet(egress: "Egress", peer: TlsPeer) -> TlsPeer | None:
    """Returns the peer with a vetted address; None where the gateway may not call it, or its name has no address."""
    from adapters.contract import UpstreamFault
    from adapters.upstream.targets import EgressRefused

    host = f"[{peer.host}]" if ":" in peer.host else peer.host
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await egress.resolve_target(f"https://{host}:{peer.port}")
    except (EgressRefused, UpstreamFault, TimeoutError):
        return None
    return peer._replace(address=found.addresses[0])


def _registered_urls(settings: "Settings") -> list[str]:
    from sqlalchemy import text

    try:
        with home.connect_to_database(settings) as connection:
            return list(connection.execute(text("SELECT url FROM registrations WHERE status = 'active'")).scalars())
    except CommandError:
        return []  # a finding of the database


def _tls_peer(url: str) -> TlsPeer | None:
    try:
        parts = urlsplit(url)
        has_tls = parts.scheme in ("https", "grpcs")
        return TlsPeer(parts.hostname, parts.port or 443, parts.hostname) if has_tls and parts.hostname else None
    except ValueError:
        return None


def _look_at_certificate(peer: TlsPeer) -> list[DoctorFinding]:
    """Connects with TLS. A host that does not answer is no finding here: the gateway's own checks of its entries say so."""
    name = f"{peer.host}:{peer.port}"
    try:
        with (
            socket.create_connection((peer.address, peer.port), ANSWER_SECONDS) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=peer.host) as secured,
        ):
            certificate = secured.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        is_expired = "expired" in error.verify_message
        return [DoctorFinding("certificates.expired" if is_expired else "certificates.untrusted", f"{name}: {error.verify_message}")]
    except OSError:
        return []
    return list(judge_certificate(name, ssl.cert_time_to_seconds(str(certificate.get("notAfter"))), time.time()))


def judge_certificate(name: str, ends: float, now: float) -> Iterator[DoctorFinding]:
    """Yields a certificate that ends within ENDING_DAYS. Times are in seconds since 1970."""
    if ends - now < ENDING_DAYS * DAY:
        yield DoctorFinding("certificates.ending", f"the certificate of {name} ends in {(ends - now) / DAY:.0f} days")


CHECKS: Final = (check_issuers, check_certificates)
