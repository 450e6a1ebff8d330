"""Fetches agent cards from untrusted hosts, bounds their size, vets each URL in them and checks their signatures."""

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from yarl import URL

from adapters.contract import UpstreamFault
from adapters.upstream.egress import Egress, EgressRefused
from adapters.upstream.request_signing import RequestSigner, Signer
from adapters.upstream.targets import grpc_url
from gateway.registration.requests import BadRequest, UrlRefused
from policies.keys.jwks import BadKeySet
from policies.strict_json import BadJson, parse, run_in_reader, run_off_loop
from registry.cards.card import AgentCard, BadCard
from registry.cards.reader import CARD_MAX, fetchable_urls, read_card
from registry.cards.signatures import CardSignatureVerifier, SignatureResult, check_signatures
from registry.health.checks import ProbeState
from registry.rows import sha256_hex

WELL_KNOWN = ("/.well-known/agent-card.json", "/.well-known/agent.json")
CARD_SECONDS = 10.0
HOSTS_MAX = 16  # hosts that one card may name
VALIDATOR_MAX = 256  # characters of an ETag or a date
LOOPBACK = "loopback"  # stands for each loopback address
HostPort = tuple[str, int]


class CardRejected(Exception):
    """A card that parses but is not accepted: no trusted key signed it, or it has a refused URL. The text is public."""

    def __init__(self, card_text: str, problem: str) -> None:
        super().__init__(problem)
        self.card_text = card_text


@dataclass(frozen=True, slots=True)
class ParsedCard:
    """A card as it was received. `probe_state` has the validators that make the next request conditional."""

    card: AgentCard
    text: str = field(repr=False)
    probe_state: ProbeState = field(default_factory=ProbeState)


def own_addresses(urls: Iterable[str], host: str, ports: Collection[int]) -> frozenset[HostPort]:
    """Returns the host and port pairs of this gateway: those of `urls`, and each of `ports` at `host` and at loopback addresses."""
    public = [URL(grpc_url(url)) for url in urls if url]
    named = {(str(url.host).lower(), url.port or 0) for url in public}
    return frozenset(named | {(each, port) for each in (LOOPBACK, host) for port in ports if port})


class CardSource:
    """Reads cards. `credentials` returns the headers that the operator configured in `upstream`; `own_addresses` are the gateway's own.

    `signer` signs requests for the cards of agents on AWS.
    """

    def __init__(
        self,
        egress: Egress,
        verifier: CardSignatureVerifier,
        credentials: Callable[[Mapping[str, Any]], Mapping[str, str]],
        own_addresses: frozenset[HostPort] = frozenset(),
        *,
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer or RequestSigner(str)
        self._egress = egress
        self._verifier = verifier
        self._credentials = credentials
        self._own_addresses = own_addresses

    async def read_given(self, document: Mapping[str, Any]) -> ParsedCard:
        """Parses a card that came in a request. Raises BadCard."""
        return await run_in_reader(_read_given, document)

    async def fetch(self, url: str, upstream: Mapping[str, Any], known_state: ProbeState | None = None) -> ParsedCard | None:
        """Fetches the card from a well-known path below the URL, or from the URL itself. Follows no redirects.

        Returns None if the card has not changed since `known_state`. Raises BadRequest, UrlRefused, BadCard and UpstreamFault.
        """
        self.check_url("url", url)
        headers = {"Accept": "application/json", **self._credentials(upstream)}
        places = _card_urls(url)
        if known_state is not None and known_state.place in places:
            places = [known_state.place, *(place for place in places if place != known_state.place)]
        seen: list[str] = []
        for place in places:
            request_headers = headers | (
                _conditional_headers(known_state) if known_state is not None and known_state.place == place else {}
            )
            answer = await self._get(place, request_headers, upstream)
            path = urlsplit(place).path or "/"
            if answer.status == 304 and request_headers != headers:
                return None
            if answer.status != 200:
                seen.append(f"{path} answers {answer.status}")
                continue
            try:
                document = await run_off_loop(parse, answer.body)
            except BadJson as error:
                seen.append(f"{path}: {error}")
                continue
            text = answer.body.decode()
            return ParsedCard(read_card(document), text, replace(_validators(place, answer.headers), hash=sha256_hex(text)))
        raise BadRequest("url", f"leads to no agent card ({'; '.join(seen)})")

    async def check_answers(self, url: str, upstream: Mapping[str, Any]) -> None:
        """Checks that a server answers at the URL, or that the name of a gRPC target resolves. Raises UrlRefused and UpstreamFault."""
        if grpc_url(url) != url:
            await self.vet_target("url", url)
            return
        answer = await self._get(url, self._credentials(upstream), upstream)
        if answer.status >= 500:
            raise UpstreamFault(f"the agent answers {answer.status}")

    async def check_signatures(self, card: AgentCard, pinned_keys: Sequence[Mapping[str, Any]]) -> SignatureResult:
        """Checks the card's signatures. Raises BadCard, UrlRefused, and UpstreamFault if the keys of a trusted origin cannot be fetched."""
        try:
            return await check_signatures(card.document, pinned_keys, self._verifier)
        except BadKeySet as error:
            raise BadCard("signatures", f"can't be verified: {error}") from error
        except EgressRefused as refused:
            raise UrlRefused("signatures", f"lead to keys that are refused: {refused.public}") from refused

    async def vet_urls(self, card: AgentCard) -> None:
        """Vets every URL of a card, because a client may follow it. Raises BadCard and UrlRefused.

        A name without an address is accepted, since it is vetted again when it is called.
        """
        hosts: dict[tuple[str | None, int | None], tuple[str, str]] = {}
        for place, url in fetchable_urls(card):
            target = self.check_url(place, url)
            hosts.setdefault((target.raw_host, target.port), (place, url))
        if len(hosts) > HOSTS_MAX:
            raise BadCard("card", f"names more than {HOSTS_MAX} hosts")
        outcomes = await asyncio.gather(*(self.vet_url(*one) for one in hosts.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, UpstreamFault):
                raise outcome

    def check_url(self, field: str, url: str) -> URL:
        """Returns the parsed URL. Raises UrlRefused."""
        try:
            return self._egress.check(url)
        except EgressRefused as refused:
            raise UrlRefused(field, f"is refused: {refused.public}") from refused

    async def vet_url(self, field: str, url: str) -> None:
        """Vets the addresses of a URL. Raises UrlRefused, and UpstreamFault for a name without an address."""
        try:
            await self._egress.vet(url)
        except EgressRefused as refused:
            raise UrlRefused(field, f"is refused: {refused.public}") from refused

    async def vet_target(self, field: str, url: str) -> None:
        """Vets the address of an agent: a URL, or a gRPC target without a scheme. Raises UrlRefused and UpstreamFault."""
        await self.vet_callee(field, grpc_url(url))

    async def vet_callee(self, field: str, url: str) -> None:
        """Vets the address of a callee. It must not be the gateway itself, which would call itself in a loop.

        Raises UrlRefused, and UpstreamFault for a name without an address.
        """
        target = self.check_url(field, url)
        self._check_not_own_address(field, target.port, [str(target.host).lower().rstrip(".")])
        try:
            pinned = await self._egress.resolve_target(url)
        except EgressRefused as refused:
            raise UrlRefused(field, f"is refused: {refused.public}") from refused
        self._check_not_own_address(field, target.port, [LOOPBACK if ip_address(each).is_loopback else each for each in pinned.addresses])

    def _check_not_own_address(self, field: str, port: int | None, hosts: Iterable[str]) -> None:
        if any((host, port) in self._own_addresses for host in hosts):
            raise UrlRefused(field, "is refused: it is an address of this gateway, which would call itself")

    async def _get(self, url: str, extra_headers: Mapping[str, str], upstream: Mapping[str, Any]) -> Any:
        headers = await self._signer.signed_headers(upstream, "GET", url, b"", extra_headers)
        try:
            return await self._egress.request("GET", url, headers=headers, body=None, timeout=CARD_SECONDS, limit=CARD_MAX)
        except EgressRefused as refused:
            raise UrlRefused("url", f"is refused: {refused.public}") from refused


def _read_given(document: Mapping[str, Any]) -> ParsedCard:
    text = json.dumps(document, ensure_ascii=False)
    if len(text.encode()) > CARD_MAX:
        raise BadCard("card", f"is larger than {CARD_MAX} bytes")
    return ParsedCard(read_card(document), text)


def _card_urls(url: str) -> list[str]:
    parts = urlsplit(url)
    if parts.path.endswith(".json"):
        return [url]
    below = [urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, "", "")) for path in WELL_KNOWN]
    return [*below, url]


def _conditional_headers(known_state: ProbeState) -> dict[str, str]:
    """Returns the headers of a conditional request (RFC 9110 s13.1)."""
    validators = {"If-None-Match": known_state.etag, "If-Modified-Since": known_state.last_modified}
    return {name: value for name, value in validators.items() if value}


def _validators(url: str, headers: Mapping[str, str]) -> ProbeState:
    etag, modified = (headers.get(name, "") for name in ("etag", "last-modified"))
    return ProbeState(place=url, etag=_bounded_ascii(etag), last_modified=_bounded_ascii(modified))


def _bounded_ascii(text: str) -> str:
    return text if len(text) <= VALIDATOR_MAX and text.isascii() and text.isprintable() else ""
