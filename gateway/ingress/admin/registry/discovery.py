"""Discovery: the public AI catalog at its well-known path, and the registry's search (ARD), which needs a token."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from msgspec import Raw
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
from registry.cards.card import Family, Registration, RegistrationStatus
from registry.cards.catalog_document import (
    BadFilter,
    Facet,
    catalog_document,
    catalog_entry_of,
    check_filter_paths,
    display_name_of,
    matches_filters,
    parse_filter,
)
from registry.search.agents import Scored, SearchQuery
from registry.search.gradual_sort import GradualSort
from registry.store import Registry

PUBLIC_TENANT = "default"
CATALOG_MAX = 1000  # entries of the public document; the search finds the rest
_CACHE_HEADERS = {"cache-control": "public, max-age=60", "access-control-allow-origin": "*"}
Authenticate = Callable[[Request], Awaitable[Caller]]


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
            generation = registry.generation
            agents = (one for one in registry.list(PUBLIC_TENANT, Family.AGENT) if one.status is RegistrationStatus.ACTIVE)
            entries = Slices(Raw(encode(catalog_entry_of(one, public_url))) for one in islice(agents, CATALOG_MAX))
            shown = catalog_document([one async for one in entries], front_door.registration(PUBLIC_TENANT), public_url)
            made.clear()
            body = made[generation] = encode(shown)
        return Response(body, headers=_CACHE_HEADERS, media_type="application/json")

    return router


def routes(registry_access: RegistryAccess, authenticate: Authenticate, public_url: str) -> APIRouter:
    """Returns the search routes. A caller finds the active agents that they may see."""
    router = APIRouter(tags=["discovery"], prefix="/ard")
    source = f"{public_url}/ard"

    async def find_agents(caller: Caller, query: QueryBody) -> AsyncIterator[Scored | None]:
        filters = query.filters
        check_filter_paths(filters)

        def matches(entry: Registration) -> bool:
            is_active = entry.status is RegistrationStatus.ACTIVE
            return is_active and (not filters or matches_filters(catalog_entry_of(entry, public_url), filters))

        return await registry_access.search_visible(caller, SearchQuery(query.text), matches)

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
            found = [one async for one in await find_agents(caller, QueryBody.model_validate({"filter": filters})) if one is not None]
            page, following = await _page_after(await _order_agents(found, order) if order else Slices(found), size, token)
        except BadFilter as error:
            return _invalid_argument_response(error)
        items = [catalog_entry_of(agent, public_url) for _, agent in page]
        return JSONResponse({"items": items, "total": len(found), **following})

    @router.post("/search", name="ard_search", openapi_extra=describe_json_body(SearchBody))
    async def search(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        try:
            body = await read_model(request, SearchBody, 64 << 10)
            if not body.query.text.strip():
                raise BadRequest("query.text", "is needed")
            page, following = await _page_after(await find_agents(caller, body.query), body.page_size, body.page_token)
        except (BadFilter, BadRequest) as error:
            return _invalid_argument_response(error)
        results = [{**catalog_entry_of(agent, public_url), "score": score, "source": source} for score, agent in page]
        referrals: dict[str, Any] = {"referrals": []} if body.federation == "referrals" else {}
        return JSONResponse({"results": results, **referrals, **following})

    @router.post("/explore", name="ard_explore", openapi_extra=describe_json_body(ExploreBody))
    async def explore(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        try:
            body = await read_model(request, ExploreBody, 64 << 10)
            facets = {one.field: Facet(one.field, one.limit, one.min_count) for one in body.result_type.facets}
            shown = await _count_facets(await find_agents(caller, body.query), facets, public_url)
        except (BadFilter, BadRequest) as error:
            return _invalid_argument_response(error)
        return JSONResponse({"resultType": "facets", "facets": shown})

    return router


async def _count_facets(found: AsyncIterator[Scored | None], facets: Mapping[str, Facet], public_url: str) -> dict[str, Any]:
    """Counts the values of agents by facet. Returns the facets as ARD shows them."""
    async for scored in found:
        if scored is not None:
            entry = catalog_entry_of(scored[1], public_url)
            for facet in facets.values():
                facet.count(entry)
    return {path: shown async for path, shown in Slices((path, facet.document()) for path, facet in facets.items())}


async def _order_agents(found: Sequence[Scored], order: str) -> AsyncIterator[Scored | None]:
    """Returns the agents in the order of their display names."""
    ordered = GradualSort[Scored](lambda scored: display_name_of(scored[1]), reverse=order.endswith("DESC"))
    async for scored in Slices(found):
        ordered.add(scored)
    return Slices(ordered)


async def _page_after(found: AsyncIterator[Scored | None], size: int, token: str) -> tuple[list[Scored], dict[str, str]]:
    """Returns the agents after the one that the token names, and the token of the next page. Raises BadFilter."""
    page, has_begun = list[Scored](), not token
    async for scored in found:
        if scored is None:
            continue
        if len(page) == size:
            return page, {"pageToken": page[-1][1].name}
        if has_begun:
            page.append(scored)
        has_begun = has_begun or scored[1].name == token
    if not has_begun:
        raise BadFilter("pageToken is not valid any more; start again without one")
    return page, {}


def _invalid_argument_response(error: Exception) -> JSONResponse:
    """Returns an error in ARD's format."""
    response = JSONResponse({"errorCode": "INVALID_ARGUMENT", "message": str(error)}, 400)
    response.raw_headers.extend(trace_headers())
    return response
