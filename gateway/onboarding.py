"""Onboarding: looks at an agent or a server that somebody names, vets what it says of itself, and registers it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from yarl import URL

from adapters.contract import UpstreamFault
from adapters.egress import Egress, EgressRefused
from adapters.mcp_tools import STDIO
from gateway.offers import AgentOffer, BadRequest, Registrant, ServerOffer, Terms, UrlRefused
from policies.strict_json import BadJson, parse
from registry.card import AgentCard, BadCard, Family, Registration, Status, Tool
from registry.card_reader import CARD_MAX, callable_interface, read_card, urls_of
from registry.names import BadName, check_name, derived_name
from registry.seeds import OPERATOR, TENANT, AgentSeed, NotReached, Seed
from registry.store import Candidate, Registry

WELL_KNOWN = ("/.well-known/agent-card.json", "/.well-known/agent.json")
CARD_SECONDS = 10.0
LOOK_SECONDS = 30.0  # for all that one registration asks of others
HOSTS_MAX = 16  # that one card may name


class Probed(Protocol):
    """adapters/mcp_probe.py."""

    @property
    def era(self) -> str: ...

    @property
    def protocol_version(self) -> str: ...

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]: ...


class McpProbe(Protocol):
    """adapters/mcp_tools.py."""

    async def probe(self, name: str, url: str, headers: Mapping[str, str]) -> Probed: ...


class Onboarding:
    """`credentials` turns an entry's `upstream` into the headers that the operator lets us send. `kinds`: whom adapters speak to."""

    def __init__(
        self,
        registry: Registry,
        egress: Egress,
        mcp: McpProbe,
        credentials: Callable[[Mapping[str, Any]], Mapping[str, str]],
        kinds: Sequence[str] = ("a2a",),
    ) -> None:
        self._registry = registry
        self._egress = egress
        self._mcp = mcp
        self._credentials = credentials
        self._kinds = kinds

    async def agent(self, by: Registrant, offer: AgentOffer) -> tuple[Registration, str]:
        """The new entry and its client secret. Raises BadRequest, BadCard, BadName, NameTaken, UpstreamFault."""
        return await self._registry.add(await self._agent(by, offer))

    async def server(self, by: Registrant, offer: ServerOffer) -> tuple[Registration, str]:
        """Raises BadRequest, BadName, NameTaken, UpstreamFault."""
        return await self._registry.add(await self._server(by, offer))

    async def survey(self, seed: Seed) -> Candidate:
        """What to register for a seed of the configuration file. Raises NotReached, and BadName."""
        check_name(seed.name)
        by = Registrant(TENANT, OPERATOR, operator=True)
        delegation = seed.delegation if isinstance(seed, AgentSeed) else ""
        terms = Terms(seed.ceiling, delegation, seed.upstream)
        try:
            if isinstance(seed, AgentSeed):
                return await self._agent(by, AgentOffer(seed.url, seed.card, seed.name, seed.kind, terms))
            return await self._server(by, ServerOffer(seed.name, STDIO if seed.command else seed.url, terms), command=bool(seed.command))
        except (BadRequest, BadCard) as error:
            raise NotReached(str(error)) from error
        except (UpstreamFault, EgressRefused) as fault:
            raise NotReached(fault.public) from fault

    async def _agent(self, by: Registrant, offer: AgentOffer) -> Candidate:
        offer.terms.check(by)
        if bool(offer.url) == (offer.card is not None):
            raise BadRequest("url", "or card is needed, and not both")
        if offer.kind not in self._kinds:
            raise BadRequest("kind", f"must be one of: {', '.join(self._kinds)}")
        if offer.name:
            check_name(offer.name)
        async with _in_time():
            card, text = await self._card(offer)
            interface = callable_interface(card)
            await self._vet(card)
            await self._vet_url("url", interface.url)
        return Candidate(
            tenant=by.tenant,
            name=offer.name or _name_of(card),
            family=Family.AGENT,
            kind=offer.kind,
            url=interface.url,
            owner=by.owner,
            status=Status.ACTIVE if by.operator else Status.PENDING,
            ceiling=("*",) if offer.terms.ceiling is None else offer.terms.ceiling,
            delegation=offer.terms.delegation or ("header" if offer.terms.upstream.get("headers") else "bearer"),
            upstream=offer.terms.upstream,
            facts={
                "interface": interface.url,
                "binding": interface.binding,
                "version": interface.version,
                "tenant": interface.tenant,
                "streaming": card.streaming,
                "source": offer.url,
            },
            card=card,
            card_text=text,
        )

    async def _server(self, by: Registrant, offer: ServerOffer, command: bool = False) -> Candidate:
        offer.terms.check(by)
        check_name(offer.name)
        async with _in_time():
            if not command:
                await self._vet_url("url", offer.url)
            probed = await self._mcp.probe(offer.name, offer.url, self._credentials(offer.terms.upstream))
        tools = {str(tool["name"]): Tool(str(tool["name"]), tool) for tool in probed.tools}
        return Candidate(
            tenant=by.tenant,
            name=offer.name,
            family=Family.SERVER,
            kind="mcp",
            url=offer.url,
            owner=by.owner,
            status=Status.ACTIVE if by.operator else Status.PENDING,
            ceiling=("*",) if offer.terms.ceiling is None else offer.terms.ceiling,
            delegation="none",
            upstream=offer.terms.upstream,
            facts={"era": probed.era, "protocol_version": probed.protocol_version},
            tools=tuple(tools.values()),
        )

    async def _card(self, offer: AgentOffer) -> tuple[AgentCard, str]:
        if offer.card is None:
            return await self._fetched(offer)
        text = json.dumps(offer.card, ensure_ascii=False)
        if len(text.encode()) > CARD_MAX:
            raise BadCard("card", f"is larger than {CARD_MAX} bytes")
        return read_card(offer.card), text

    async def _fetched(self, offer: AgentOffer) -> tuple[AgentCard, str]:
        """The card at a well-known path below the URL, or at the URL itself. Redirects are not followed."""
        self._check_url("url", offer.url)
        headers = {"Accept": "application/json", **self._credentials(offer.terms.upstream)}
        seen: list[str] = []
        for place in _places(offer.url):
            try:
                answer = await self._egress.request("GET", place, headers=headers, body=None, timeout=CARD_SECONDS, limit=CARD_MAX)
            except EgressRefused as refused:
                raise UrlRefused("url", f"is refused: {refused.public}") from refused
            path = urlsplit(place).path or "/"
            if answer.status != 200:
                seen.append(f"{path} answers {answer.status}")
                continue
            try:
                document = parse(answer.body)
            except BadJson as error:
                seen.append(f"{path}: {error}")
                continue
            return read_card(document), answer.body.decode()
        raise BadRequest("url", f"leads to no agent card ({'; '.join(seen)})")

    async def _vet(self, card: AgentCard) -> None:
        """Every URL of a card, since somebody may follow it: a name that has no address now is vetted again when it is called."""
        hosts: dict[tuple[str | None, int | None], tuple[str, str]] = {}
        for place, url in urls_of(card):
            target = self._check_url(place, url)
            hosts.setdefault((target.raw_host, target.port), (place, url))
        if len(hosts) > HOSTS_MAX:
            raise BadCard("card", f"names more than {HOSTS_MAX} hosts")
        outcomes = await asyncio.gather(*(self._vet_url(*one) for one in hosts.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, UpstreamFault):
                raise outcome

    def _check_url(self, place: str, url: str) -> URL:
        try:
            return self._egress.check(url)
        except EgressRefused as refused:
            raise UrlRefused(place, f"is refused: {refused.public}") from refused

    async def _vet_url(self, place: str, url: str) -> None:
        try:
            await self._egress.vet(url)
        except EgressRefused as refused:
            raise UrlRefused(place, f"is refused: {refused.public}") from refused


def _places(url: str) -> list[str]:
    parts = urlsplit(url)
    if parts.path.endswith(".json"):
        return [url]
    below = [urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, "", "")) for path in WELL_KNOWN]
    return [*below, url]


def _name_of(card: AgentCard) -> str:
    try:
        return derived_name(card.name)
    except BadName as error:
        raise BadRequest("name", f"is needed: {error}") from error


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """One deadline over everything that is asked of others."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            yield
    except TimeoutError as error:
        raise UpstreamFault("the upstream did not answer in time") from error
