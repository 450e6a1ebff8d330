"""Reads what a server offers, from an MCP server or an OpenAPI document, without trusting the content."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from adapters.oauth.authorized import CredentialRequest
from adapters.openapi.document import read_api
from adapters.openapi.tools import OPENAPI_KIND as OPENAPI
from adapters.tool_servers import ToolServerClient
from gateway.registration.card_source import CardSource
from gateway.registration.requests import BadRequest, Registrant, ServerRegistrationRequest

LEFT_OUT_SHOWN_MAX = 50  # omitted definitions that are listed by name
Definition = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServerFindings:
    """What a server offers. `definitions` has the lists by kind, as registry/rows.py stores them."""

    kind: str
    url: str
    facts: Mapping[str, Any]
    definitions: Mapping[str, Sequence[Definition]]


class ServerSource:
    """Reads servers. `credentials` returns the headers that the operator configured in `upstream`."""

    def __init__(self, cards: CardSource, servers: ToolServerClient, credentials: Callable[[Mapping[str, Any]], Mapping[str, str]]) -> None:
        self._cards = cards
        self._servers = servers
        self._credentials = credentials

    async def inspect(self, registrant: Registrant, request: ServerRegistrationRequest, command: bool = False) -> ServerFindings:
        """Returns what the server offers.

        Raises BadRequest, UrlRefused, UpstreamFault, and ConsentNeeded if the registrant must connect an account first.
        """
        if request.openapi is not None:
            return await self._read_api(request, request.openapi)
        if not command:
            await self._cards.vet_callee("url", request.url)
        approach = CredentialRequest(registrant.tenant, request.name, request.url, request.terms.upstream, registrant.grant)
        probed = await self._servers.probe(request.name, request.url, self._credentials(request.terms.upstream), approach)
        lists = {"tools": probed.tools, "prompts": probed.prompts, "resources": probed.resources, "templates": probed.templates}
        return ServerFindings("mcp", request.url, probed.facts, lists)

    async def _read_api(self, request: ServerRegistrationRequest, openapi: str | Mapping[str, Any]) -> ServerFindings:
        """Reads an OpenAPI document. The API is called at `url` if given, else where the document says."""
        source = openapi if isinstance(openapi, str) else ""
        if isinstance(openapi, str):
            await self._cards.vet_callee("openapi", source)
            api = await self._servers.read(source, self._credentials(request.terms.upstream), request.known_digest)
        else:
            api = await asyncio.to_thread(read_api, openapi)
        url = request.url or api.base
        if not url:
            raise BadRequest("url", "is needed, because the document names no server")
        await self._cards.vet_callee("url", url)
        if not request.url and source and request.terms.upstream.get("headers") and urlsplit(source).hostname != urlsplit(url).hostname:
            raise BadRequest("upstream.headers", "are for the host of the document, but the API is on another host: set url")
        facts: dict[str, Any] = {"era": OPENAPI, "protocol_version": api.version, "source": source}
        if api.digest:
            facts["document"] = api.digest
        return ServerFindings(OPENAPI, url, facts | _left_out_fact(api.left_out), {"tools": api.tools})


def _left_out_fact(left_out: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns the fact that lists omitted definitions for operators, or nothing if none was omitted."""
    if not left_out:
        return {}
    first = [{"name": name, "why": why} for name, why in left_out[:LEFT_OUT_SHOWN_MAX]]
    return {"left_out": {"count": len(left_out), "first": first}}
