"""Builds the FastAPI application that serves /api, /oauth and /.well-known."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.contract import UpstreamFault
from adapters.redaction.validation_texts import describe_problem
from adapters.version import VERSION
from gateway.ingress.admin.openapi import BEARER, build_openapi_document
from gateway.ingress.admin.reference_page import CONTENT_SECURITY_POLICY, render_page
from gateway.ingress.admin.workflows.direct_routes import DirectRoute, DirectRoutes, index_routes
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.authentication import SESSION_CALLER_KEY, RequestAuthentication
from gateway.ingress.http.error_bodies import problem
from gateway.ingress.http.errors import (
    ERROR_MAPPINGS,
    ErrorMapping,
    ErrorReport,
    HttpMethodNotAllowed,
    UnknownPath,
    describe,
    error_headers,
)
from gateway.telemetry.spans import note_outcome
from policies.callers import Caller

FRAMEWORK_ERRORS: dict[int, Exception] = {404: UnknownPath()}  # by the HTTP status that the framework answers with
PROBLEM_MEDIA_TYPE = "application/problem+json"
CALLER_KEY = "interlock.caller"  # in a request's scope, once it is authenticated
ApiRouter = APIRouter  # its name for those who may not import the framework
Routers = list[ApiRouter]
RouteAreas = Mapping[str, Callable[[], Iterable[ApiRouter]]]  # by path
log = structlog.get_logger()


API_DESCRIPTION = (
    "Administration, tasks and tokens of an Interlock gateway. Agents speak A2A at /agents/{name}, clients of tools MCP at /mcp."
)


class RouteArea(BaseRoute):
    """The routes below one path. The first request for that path builds them, since the framework takes a millisecond or two for each."""

    def __init__(self, path: str, build_routers: Callable[[], Iterable[APIRouter]]) -> None:
        self.path = path
        self._build_routers = build_routers

    @cached_property
    def routes(self) -> list[BaseRoute]:
        return [route for router in self._build_routers() for route in router.routes]

    def covers(self, path: str) -> bool:
        """Returns whether a path is this area's or below it."""
        return path == self.path or path.startswith(f"{self.path}/")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Returns the best match among the routes, the first one of several; its scope names the route."""
        best: tuple[Match, Scope] = (Match.NONE, {})
        if not self.covers(scope["path"]):
            return best
        for route in self.routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                return match, {**found, "route": route}
            if match is Match.PARTIAL and best[0] is Match.NONE:
                best = match, {**found, "route": route}
        return best

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["route"].handle(scope, receive, send)


def build_api(
    authentication: RequestAuthentication,
    areas: RouteAreas,
    is_operator: Callable[[Caller], bool],
    direct_routes: tuple[DirectRoute, ...] = (),
) -> DirectRoutes:
    """Returns the application. Every error is application/problem+json (RFC 9457); operators also see which upstream failed, and how.

    `areas` has for each path the function that builds its routers. Areas are tried in order.
    """
    app = FastAPI(title="Interlock", version=VERSION, description=API_DESCRIPTION, docs_url=None, openapi_url=None, redirect_slashes=False)
    app.router.routes.extend(RouteArea(path, build_routers) for path, build_routers in areas.items())
    _add_description_routes(app)

    async def handle_error(request: Request, error: Exception) -> JSONResponse:
        caller = request.scope.get(CALLER_KEY)
        if isinstance(error, UpstreamFault):
            error.shows_cause = caller is not None and is_operator(caller)
        return with_request_id(request, problem_response(authentication, describe(error), error))

    async def handle_http_exception(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers, known = dict(error.headers or {}), FRAMEWORK_ERRORS.get(error.status_code)
        if error.status_code == 405:
            known = HttpMethodNotAllowed(allowed := list_methods(app, request.scope))
            headers["allow"] = ", ".join(allowed)
        report = describe(known) if known else ErrorReport(ErrorMapping(error.status_code, -32600, "invalid-request"), str(error.detail))
        told_of = problem_response(authentication, report, error)
        told_of.headers.update(headers)
        return with_request_id(request, told_of)

    async def handle_validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        return with_request_id(
            request,
            problem_response(
                authentication, ErrorReport(ErrorMapping(422, -32602, "bad-request", ""), f"{where} {describe_problem(first)}"), error
            ),
        )

    app.add_exception_handler(HTTPException, handle_http_exception)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
    for kind in (*ERROR_MAPPINGS, Exception):  # each class, since Starlette re-raises what only the handler of Exception handles
        app.add_exception_handler(kind, handle_error)
    return DirectRoutes(app, index_routes(direct_routes), handle_error, tuple(ERROR_MAPPINGS))


def build_page_router(paths: Iterable[str], page: ASGIApp) -> APIRouter:
    """Returns the routes of pages for people: an application that serves these paths, and answers its errors itself."""
    router = APIRouter()
    for path in paths:
        router.add_route(path, page, include_in_schema=False)  # type: ignore[arg-type]  # Starlette takes applications too
    return router


def list_routes(app: FastAPI) -> Iterator[Route]:
    """Yields every route of the application, hidden ones too. Builds those that no request has needed."""
    for route in app.routes:
        found = route.routes if isinstance(route, RouteArea) else [route]
        yield from (each for each in found if isinstance(each, Route))


def list_methods(app: FastAPI, scope: Scope) -> tuple[str, ...]:
    """Returns the HTTP methods of a path, sorted. HEAD is served wherever GET is (gateway/server/router.py)."""
    areas = (route for route in app.routes if not isinstance(route, RouteArea) or route.covers(scope["path"]))
    routes = (each for area in areas for each in (area.routes if isinstance(area, RouteArea) else [area]))
    found = {
        method
        for route in routes
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return tuple(sorted(found | {"HEAD"} if "GET" in found else found))


def request_id_header(request: Request) -> dict[str, str]:
    """Returns the caller's X-Request-Id header where it is safe to send back, else nothing."""
    request_id = request.headers.get("x-request-id", "")
    return {"x-request-id": request_id} if 0 < len(request_id) <= 256 and request_id.isascii() and request_id.isprintable() else {}


def with_request_id(request: Request, response: JSONResponse) -> JSONResponse:
    response.headers.update(request_id_header(request))
    return response


def problem_response(authentication: RequestAuthentication, report: ErrorReport, error: Exception) -> JSONResponse:
    """Returns the problem document of an error. An unexpected error is logged, and its text is not sent."""
    if report.mapping.status == 500:
        log.error("api_failed", exc_info=error)
    elif isinstance(error, UpstreamFault):
        log.warning("upstream_failed", problem=error.public, where=error.address, detail=error.detail)
    note_outcome(report.mapping.reason_id)
    headers = {name.decode(): value.decode() for name, value in error_headers(report, authentication, "")}
    return JSONResponse(problem(report), report.mapping.status, headers, PROBLEM_MEDIA_TYPE)


def _add_description_routes(app: FastAPI) -> None:
    """Adds the public /openapi.json and /docs. They describe the interface and no stored data."""

    @cache
    def document() -> dict[str, Any]:
        return build_openapi_document(app, list(list_routes(app)))

    @app.get("/", include_in_schema=False)
    async def root(request: Request) -> RedirectResponse:
        """Leads browsers to the console. Raises UnknownPath for programs."""
        if "text/html" not in (list_header(request.scope, b"accept") or ""):
            raise UnknownPath
        return RedirectResponse("/console", 302, {"cache-control": "no-store", "vary": "Accept"})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(document())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(render_page(document()), headers={"content-security-policy": CONTENT_SECURITY_POLICY})


class TokenGuard(SecurityBase):
    """Dependency of every route that is not public: a token for the gateway as a whole.

    `count_request` raises LimitReached for a caller over the rate.
    """

    def __init__(self, authentication: RequestAuthentication, count_request: Callable[[Caller], None]) -> None:
        self.model = BEARER
        self.scheme_name = "bearer"
        self._authentication = authentication
        self._count_request = count_request

    async def __call__(self, request: Request) -> Caller:
        """Returns the caller. Raises the errors of RequestAuthentication.authenticate.

        A request of the console comes from within the process, with the caller of the browser's session, which the console has counted.
        """
        session_caller: Caller | None = request.scope.get(SESSION_CALLER_KEY)
        if session_caller is not None:
            request.scope[CALLER_KEY] = session_caller
            return session_caller
        caller = request.scope[CALLER_KEY] = await self._authentication.authenticate(request.scope, "/api")
        self._count_request(caller)
        return caller
