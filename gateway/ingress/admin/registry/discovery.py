"""Discovery: the public AI catalog at its well-known path, and the registry's search (ARD), which needs a token."""

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from msgspec.json import encode
from pydantic import Field

from gateway.calls.limits.slices import Slices
from gateway.calls.targets.front_door import FrontDoor
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.registry.access import RegistryAccess
from gateway.ingress.http.error_bodies import trace_headers
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import BadRequest
from policies.callers import Caller
from registry.cards.card import Family, RegistrationStatus
from registry.cards.catalog_document import (
    BadFilter,
    catalog_document,
    catalog_entry_of,
    check_filter_paths,
    count_facet,
    matches_filters,
    parse_filter,
)
from registry.search import SearchQuery
from registry.store import Registry

PUBLIC_TENANT = "default"
CATALOG_MAX = 1000  # entries of the public document; the search finds the rest
_CACHE_HEADERS = {"cache-control": "public, max-age=60", "access-control-allow-origin": "*"}
Authenticate = Callable[[Request], Awaitable[Caller]]
ScoredEntry = tuple[int, str, dict[str, Any]]  # relevance, name, entry


class QueryBody(ApiBody):
    text: str = Field("", max_length=4000)
    filter: dict[str, str | list[str]] = Field({}, max_length=20)

    @property
    def filters(self) -> dict[str, list[str]]:
        return {path: [values] if isinstance(values, str) else values for path, values in self.filter.items()}


class SearchBody(ApiBody):
    query: QueryBody
    federation: Literal["auto", "referrals", "none"] = "auto"
    page_size: int = Field(10, ge=1, le=100, alias="pageSize")
    page_token: str = Field("", alias="pageToken")


class FacetBody(ApiBody):
    field: str
    limit: int = Field(20, ge=1, le=100)
    min_count: int = Field(1, ge=1, alias="minCount")


class ResultType(ApiBody):
    facets: list[FacetBody] = Field(max_length=20)


class ExploreBody(ApiBody):
    query: QueryBody = QueryBody()
    result_type: ResultType = Field(alias="resultType")


def catalog_routes(registry: Registry, front_door: FrontDoor, public_url: str) -> APIRouter:
    """Returns the route of the public catalog: active agents of the default tenant, and the address of the search."""
    router = APIRouter(tags=["discovery"])
    made: dict[int, bytes] = {}  # the document, by the version of the registry that it was made of

    @router.get("/.well-known/ai-catalog.json", name="ai_catalog")
    async def catalog() -> Response:
        if (body := made.get(registry.generation)) is None:
            agents = (one for one in registry.list(PUBLIC_TENANT, Family.AGENT) if one.status is RegistrationStatus.ACTIVE)
            shown = catalog_document([*islice(agents, CATALOG_MAX)], front_door.registration(PUBLIC_TENANT), public_url)
            made.clear()
            body = made[registry.generation] = encode(shown)
        return Response(body, headers=_CACHE_HEADERS, media_type="application/json")

    return router


def routes(registry_access: RegistryAccess, authenticate: Authenticate, public_url: str) -> APIRouter:
    """Returns the search routes. A caller finds the active agents that they may see."""
    router = APIRouter(tags=["discovery"], prefix="/ard")
    source = f"{public_url}/ard"

    async def find_entries(caller: Caller, query: QueryBody) -> list[ScoredEntry]:
        check_filter_paths(query.filters)
        scored = await registry_access.search_visible(caller, SearchQuery(query.text))
        active = [(score, entry) for score, entry in scored if entry.status is RegistrationStatus.ACTIVE]
        entries = Slices((score, entry.name, catalog_entry_of(entry, public_url)) for score, entry in active)
        return [one async for one in entries if matches_filters(one[2], query.filters)]

    @router.get("/agents", name="ard_agents")
    async def agents(
        caller: Annotated[Caller, Depends(authenticate)],
        expression: Annotated[str, Query(alias="filter", max_length=2000)] = "",
        order: Annotated[Literal["", "displayName", "displayName DESC"], Query(alias="orderBy")] = "",
        size: Annotated[int, Query(alias="pageSize", ge=1, le=100)] = 20,
        token: Annotated[str, Query(alias="pageToken", max_length=100)] = "",
    ) -> JSONResponse:
        try:
            filters = parse_filter(expression)
            entries = await find_entries(caller, QueryBody.model_validate({"filter": filters}))
            if order:
                entries.sort(key=lambda one: one[2]["displayName"], reverse=order.endswith("DESC"))
            page, following = _page_after(entries, size, token)
        except BadFilter as error:
            return _invalid_argument_response(error)
        return JSONResponse({"items": [one[2] for one in page], "total": len(entries), **following})

    @router.post("/search", name="ard_search", openapi_extra=describe_json_body(SearchBody))
    async def search(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        try:
            body = await read_model(request, SearchBody, 64 << 10)
            if not body.query.text.strip():
                raise BadRequest("query.text", "is needed")
            page, following = _page_after(await find_entries(caller, body.query), body.page_size, body.page_token)
        except (BadFilter, BadRequest) as error:
            return _invalid_argument_response(error)
        results = [{**entry, "score": score, "source": source} for score, _, entry in page]
        referrals: dict[str, Any] = {"referrals": []} if body.federation == "referrals" else {}
        return JSONResponse({"results": results, **referrals, **following})

    @router.post("/explore", name="ard_explore", openapi_extra=describe_json_body(ExploreBody))
    async def explore(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        try:
            body = await read_model(request, ExploreBody, 64 << 10)
            entries = [entry for _, _, entry in await find_entries(caller, body.query)]
            facets = {one.field: count_facet(entries, one.field, one.limit, one.min_count) for one in body.result_type.facets}
        except (BadFilter, BadRequest) as error:
            return _invalid_argument_response(error)
        return JSONResponse({"resultType": "facets", "facets": facets})

    return router


def _page_after(entries: list[ScoredEntry], size: int, token: str) -> tuple[list[ScoredEntry], dict[str, str]]:
    """Returns the entries after the one that the token names. Raises BadFilter."""
    places = {one[1]: number for number, one in enumerate(entries)}
    if token and token not in places:
        raise BadFilter("pageToken is not valid any more; start again without one")
    start = places[token] + 1 if token else 0
    page = entries[start : start + size]
    return page, {"pageToken": page[-1][1]} if len(entries) > start + size else {}


def _invalid_argument_response(error: Exception) -> JSONResponse:
    """Returns an error in ARD's format."""
    response = JSONResponse({"errorCode": "INVALID_ARGUMENT", "message": str(error)}, 400)
    response.raw_headers.extend(trace_headers())
    return response
