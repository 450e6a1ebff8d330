"""Cards of agents, as they come from strangers: fetched, bounded, vetted URL by URL, and asked who signed them."""

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
from adapters.upstream.request_signing import NoSigner, Signer
from adapters.upstream.targets import grpc_url
from gateway.registration.requests import BadRequest, UrlRefused
from policies.keys.jwks import BadKeySet
from policies.strict_json import BadJson, in_reader, off_loop, parse
from registry.cards.card import AgentCard, BadCard
from registry.cards.reader import CARD_MAX, read_card, urls_of
from registry.cards.signatures import Signed, Verifier, examine
from registry.health.checks import Health
from registry.rows import digest

WELL_KNOWN = ("/.well-known/agent-card.json", "/.well-known/agent.json")
CARD_SECONDS = 10.0
HOSTS_MAX = 16  # that one card may name
VALIDATOR_MAX = 256  # characters of an ETag or a date
LOOPBACK = "loopback"  # stands for every address of this machine's own
Place = tuple[str, int]  # host and port


class Unverified(Exception):
    """A card that parses, and still can't be taken: nobody trusted signed it, or it leads where nobody goes. Safe to show."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(why)
        self.text = text


@dataclass(frozen=True, slots=True)
class Read:
    """A card as it came; `health` has what the next request is made conditional with."""

    card: AgentCard
    text: str = field(repr=False)
    health: Health = field(default_factory=Health)


def own_places(urls: Iterable[str], host: str, ports: Collection[int]) -> frozenset[Place]:
    """Where the gateway itself is reached: at `urls`, and at the `ports` of the address `host` that it listens on."""
    public = [URL(grpc_url(url)) for url in urls if url]
    named = {(str(url.host).lower(), url.port or 0) for url in public}
    return frozenset(named | {(each, port) for each in (LOOPBACK, host) for port in ports if port})


class CardSource:
    """`credentials` turns an entry's `upstream` into the headers that the operator lets us send; `ours`: where we are reached.

    `signer` signs requests for the cards of agents behind AWS.
    """

    def __init__(
        self,
        egress: Egress,
        verifier: Verifier,
        credentials: Callable[[Mapping[str, Any]], Mapping[str, str]],
        ours: frozenset[Place] = frozenset(),
        *,
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer or NoSigner()
        self._egress = egress
        self._verifier = verifier
        self._credentials = credentials
        self._ours = ours

    async def given(self, document: Mapping[str, Any]) -> Read:
        """A card that came in a request. Raises BadCard."""
        return await in_reader(_read_given, document)

    async def fetched(self, url: str, upstream: Mapping[str, Any], known: Health | None = None) -> Read | None:
        """The card at a well-known path below the URL, or at the URL itself. Redirects are not followed.

        None: it is still what `known` was told. Raises BadRequest, UrlRefused, BadCard and UpstreamFault.
        """
        self.check_url("url", url)
        headers = {"Accept": "application/json", **self._credentials(upstream)}
        places = _places(url)
        if known is not None and known.place in places:
            places = [known.place, *(place for place in places if place != known.place)]
        seen: list[str] = []
        for place in places:
            asking = headers | (_conditions(known) if known is not None and known.place == place else {})
            answer = await self._get(place, asking, upstream)
            path = urlsplit(place).path or "/"
            if answer.status == 304 and asking != headers:
                return None
            if answer.status != 200:
                seen.append(f"{path} answers {answer.status}")
                continue
            try:
                document = await off_loop(parse, answer.body)
            except BadJson as error:
                seen.append(f"{path}: {error}")
                continue
            text = answer.body.decode()
            return Read(read_card(document), text, replace(_validators(place, answer.headers), hash=digest(text)))
        raise BadRequest("url", f"leads to no agent card ({'; '.join(seen)})")

    async def alive(self, url: str, upstream: Mapping[str, Any]) -> None:
        """Whether anybody answers there, whatever it is; of a gRPC target, whether its name is known. Raises UrlRefused, UpstreamFault."""
        if grpc_url(url) != url:
            await self.vet_target("url", url)
            return
        answer = await self._get(url, self._credentials(upstream), upstream)
        if answer.status >= 500:
            raise UpstreamFault(f"the agent answers {answer.status}")

    async def signed(self, card: AgentCard, pinned: Sequence[Mapping[str, Any]]) -> Signed:
        """Raises BadCard, and UpstreamFault when the keys of a trusted origin can't be had."""
        try:
            return await examine(card.document, pinned, self._verifier)
        except BadKeySet as error:
            raise BadCard("signatures", f"can't be verified: {error}") from error
        except EgressRefused as refused:
            raise UrlRefused("signatures", f"lead to keys that are refused: {refused.public}") from refused

    async def vet(self, card: AgentCard) -> None:
        """Every URL of a card, since somebody may follow it: a name that has no address now is vetted again when it is called."""
        hosts: dict[tuple[str | None, int | None], tuple[str, str]] = {}
        for place, url in urls_of(card):
            target = self.check_url(place, url)
            hosts.setdefault((target.raw_host, target.port), (place, url))
        if len(hosts) > HOSTS_MAX:
            raise BadCard("card", f"names more than {HOSTS_MAX} hosts")
        outcomes = await asyncio.gather(*(self.vet_url(*one) for one in hosts.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, UpstreamFault):
                raise outcome

    def check_url(self, place: str, url: str) -> URL:
        """Raises UrlRefused."""
        try:
            return self._egress.check(url)
        except EgressRefused as refused:
            raise UrlRefused(place, f"is refused: {refused.public}") from refused

    async def vet_url(self, place: str, url: str) -> None:
        """Raises UrlRefused, and UpstreamFault for a name without an address."""
        try:
            await self._egress.vet(url)
        except EgressRefused as refused:
            raise UrlRefused(place, f"is refused: {refused.public}") from refused

    async def vet_target(self, place: str, url: str) -> None:
        """Where an agent is called: a URL, or a gRPC target without a scheme. Nothing else may lack one. Raises as `vet_callee`."""
        await self.vet_callee(place, grpc_url(url))

    async def vet_callee(self, place: str, url: str) -> None:
        """As `vet_url`; and it must not be the gateway itself, whose calls would run in circles."""
        target = self.check_url(place, url)
        self._check_not_ours(place, target.port, [str(target.host).lower().rstrip(".")])
        try:
            pinned = await self._egress.pinned(url)
        except EgressRefused as refused:
            raise UrlRefused(place, f"is refused: {refused.public}") from refused
        self._check_not_ours(place, target.port, [LOOPBACK if ip_address(each).is_loopback else each for each in pinned.addresses])

    def _check_not_ours(self, place: str, port: int | None, hosts: Iterable[str]) -> None:
        if any((host, port) in self._ours for host in hosts):
            raise UrlRefused(place, "is refused: it is an address of this gateway, whose calls would run in circles")

    async def _get(self, place: str, given: Mapping[str, str], upstream: Mapping[str, Any]) -> Any:
        headers = await self._signer.headers(upstream, ("GET", place, b""), given)
        try:
            return await self._egress.request("GET", place, headers=headers, body=None, timeout=CARD_SECONDS, limit=CARD_MAX)
        except EgressRefused as refused:
            raise UrlRefused("url", f"is refused: {refused.public}") from refused


def _read_given(document: Mapping[str, Any]) -> Read:
    text = json.dumps(document, ensure_ascii=False)
    if len(text.encode()) > CARD_MAX:
        raise BadCard("card", f"is larger than {CARD_MAX} bytes")
    return Read(read_card(document), text)


def _places(url: str) -> list[str]:
    parts = urlsplit(url)
    if parts.path.endswith(".json"):
        return [url]
    below = [urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, "", "")) for path in WELL_KNOWN]
    return [*below, url]


def _conditions(known: Health) -> dict[str, str]:
    """RFC 9110 s13.1."""
    given = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in given.items() if value}


def _validators(place: str, headers: Mapping[str, str]) -> Health:
    etag, modified = (headers.get(name, "") for name in ("etag", "last-modified"))
    return Health(place=place, etag=_plain(etag), last_modified=_plain(modified))


def _plain(text: str) -> str:
    return text if len(text) <= VALIDATOR_MAX and text.isascii() and text.isprintable() else ""
