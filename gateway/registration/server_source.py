"""What a server offers that somebody names: an MCP server asked, or an OpenAPI document read, learned without trusting any of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from adapters.oauth.authorized import Approach
from adapters.openapi.document import read_api
from adapters.openapi.tools import KIND as OPENAPI
from gateway.registration.card_source import CardSource
from gateway.registration.requests import BadRequest, Registrant, ServerOffer

LEFT_OUT_SHOWN = 50  # definitions that are named, of those that are left out
Definition = Mapping[str, Any]


class Probed(Protocol):
    """adapters/mcp_client/probe.py."""

    @property
    def facts(self) -> Mapping[str, Any]: ...

    @property
    def tools(self) -> Sequence[Definition]: ...

    @property
    def prompts(self) -> Sequence[Definition]: ...

    @property
    def resources(self) -> Sequence[Definition]: ...

    @property
    def templates(self) -> Sequence[Definition]: ...


class Described(Protocol):
    """adapters/openapi/document.py."""

    @property
    def base(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def tools(self) -> Sequence[Definition]: ...

    @property
    def left_out(self) -> Sequence[tuple[str, str]]: ...

    @property
    def digest(self) -> str: ...


class Servers(Protocol):
    """adapters/tool_servers.py."""

    async def probe(self, name: str, url: str, headers: Mapping[str, str], approach: Approach | None = None) -> Probed: ...

    async def read(self, source: str, headers: Mapping[str, str], known: str = "") -> Described: ...


@dataclass(frozen=True, slots=True)
class Found:
    """`lists`: definitions by kind, as registry/rows.py makes them."""

    kind: str
    url: str
    facts: Mapping[str, Any]
    lists: Mapping[str, Sequence[Definition]]


class ServerSource:
    """`credentials` turns an entry's `upstream` into the headers that the operator lets us send."""

    def __init__(self, cards: CardSource, servers: Servers, credentials: Callable[[Mapping[str, Any]], Mapping[str, str]]) -> None:
        self._cards = cards
        self._servers = servers
        self._credentials = credentials

    async def found(self, by: Registrant, offer: ServerOffer, command: bool = False) -> Found:
        """Raises BadRequest, UrlRefused, UpstreamFault, and ConsentNeeded of whoever registers."""
        if offer.openapi is not None:
            return await self._described(offer, offer.openapi)
        if not command:
            await self._cards.vet_callee("url", offer.url)
        approach = Approach(by.tenant, offer.name, offer.url, offer.terms.upstream, by.grant)
        probed = await self._servers.probe(offer.name, offer.url, self._credentials(offer.terms.upstream), approach)
        lists = {"tools": probed.tools, "prompts": probed.prompts, "resources": probed.resources, "templates": probed.templates}
        return Found("mcp", offer.url, probed.facts, lists)

    async def _described(self, offer: ServerOffer, openapi: str | Mapping[str, Any]) -> Found:
        """The API is called where its document says, or at `url`, where that is given."""
        source = openapi if isinstance(openapi, str) else ""
        if isinstance(openapi, str):
            await self._cards.vet_callee("openapi", source)
            api = await self._servers.read(source, self._credentials(offer.terms.upstream), offer.known)
        else:
            api = await asyncio.to_thread(read_api, openapi)
        url = offer.url or api.base
        if not url:
            raise BadRequest("url", "is needed: the document does not say where the API is")
        await self._cards.vet_callee("url", url)
        if not offer.url and source and offer.terms.upstream.get("headers") and urlsplit(source).hostname != urlsplit(url).hostname:
            raise BadRequest("upstream.headers", "are for the host that was named, but the API is elsewhere: give its address as url")
        facts: dict[str, Any] = {"era": OPENAPI, "protocol_version": api.version, "source": source}
        if api.digest:
            facts["document"] = api.digest
        return Found(OPENAPI, url, facts | _left_out(api.left_out), {"tools": api.tools})


def _left_out(found: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What an operator is shown of definitions that no client gets to see, as JSON gives it back. Nothing where there are none."""
    if not found:
        return {}
    first = [{"name": name, "why": why} for name, why in found[:LEFT_OUT_SHOWN]]
    return {"left_out": {"count": len(found), "first": first}}
