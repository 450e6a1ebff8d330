"""The framework's part of the gateway: /api, /oauth and /.well-known as one FastAPI application."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException

from adapters.contract import UpstreamFault
from adapters.version import VERSION
from gateway.ingress.admin.openapi import BEARER, description_of
from gateway.ingress.admin.reference_page import POLICY, page
from gateway.ingress.http.authentication import Admission
from gateway.ingress.http.error_bodies import problem
from gateway.ingress.http.errors import TABLE, Row, Told, http_headers, told
from gateway.telemetry.spans import note_outcome
from policies.callers import Caller

PROBLEM = "application/problem+json"
CALLER = "interlock.caller"  # in a request's scope, once it is admitted
log = structlog.get_logger()


ABOUT = "Administration, tasks and tokens of an Interlock gateway. Agents speak A2A at /agents/{name}, clients of tools MCP at /mcp."


def api(admission: Admission, routers: Iterable[APIRouter], is_operator: Callable[[Caller], bool]) -> FastAPI:
    """Every failure leaves as application/problem+json (RFC 9457). Operators are told which upstream failed, and how."""
    app = FastAPI(title="Interlock", version=VERSION, description=ABOUT, docs_url=None, openapi_url=None, redirect_slashes=False)
    for router in routers:
        app.include_router(router)
    _describe(app)

    async def failed(request: Request, error: Exception) -> JSONResponse:
        caller = request.scope.get(CALLER)
        if isinstance(error, UpstreamFault):
            error.explained = caller is not None and is_operator(caller)
        return echoing(request, answer(admission, told(error), error))

    async def misused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        told_of = answer(admission, Told(Row(error.status_code, -32600, "http", ""), str(error.detail)), error)
        told_of.headers.update(error.headers or {})
        return echoing(request, told_of)

    async def misread(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        return echoing(request, answer(admission, Told(Row(422, -32602, "bad-request", ""), f"{where}: {first['msg']}"), error))

    app.add_exception_handler(HTTPException, misused)
    app.add_exception_handler(RequestValidationError, misread)
    for kind in (*TABLE, Exception):  # each by its name: what only `Exception` catches is raised again, for the server's log
        app.add_exception_handler(kind, failed)
    return app


def echoed(request: Request) -> dict[str, str]:
    """The id that a caller gave the request, where it is fit to be told back."""
    given = request.headers.get("x-request-id", "")
    return {"x-request-id": given} if 0 < len(given) <= 256 and given.isascii() and given.isprintable() else {}


def echoing(request: Request, answered: JSONResponse) -> JSONResponse:
    answered.headers.update(echoed(request))
    return answered


def answer(admission: Admission, said: Told, error: Exception) -> JSONResponse:
    """One failure as a problem document; unexpected ones are logged, and never told."""
    if said.row.status == 500:
        log.error("api_failed", exc_info=error)
    elif isinstance(error, UpstreamFault):
        log.warning("upstream_failed", problem=error.public, where=error.where, detail=error.detail)
    note_outcome(said.row.reason)
    headers = {name.decode(): value.decode() for name, value in http_headers(said, admission, "")}
    return JSONResponse(problem(said), said.row.status, headers, PROBLEM)


def _describe(app: FastAPI) -> None:
    """/openapi.json for programs, /docs for people. They tell what there is for everybody, and nothing of what is kept here."""

    @cache
    def document() -> dict[str, Any]:
        return description_of(app)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(document())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(document()), headers={"content-security-policy": POLICY})


class TokenGuard(SecurityBase):
    """The dependency of every route that is not public: a token made for the gateway as a whole. `asked` may refuse a request too many."""

    def __init__(self, admission: Admission, asked: Callable[[Caller], None]) -> None:
        self.model = BEARER
        self.scheme_name = "bearer"
        self._admission = admission
        self._asked = asked

    async def __call__(self, request: Request) -> Caller:
        """Raises as Admission.admit."""
        caller = request.scope[CALLER] = await self._admission.admit(request.scope, "/api")
        self._asked(caller)
        return caller
