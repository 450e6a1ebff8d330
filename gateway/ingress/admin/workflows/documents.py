"""/api/workflows: documents that the gateway runs as agents. Uploading one needs registry:write."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.registry.access import RegistryAccess, act_of_registry_change
from gateway.ingress.admin.registry.preconditions import check_if_match
from gateway.ingress.admin.workflows.unknown import WorkflowRoute
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.error_bodies import PROBLEM_MEDIA_TYPE, problem
from gateway.ingress.http.errors import describe
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import PreconditionFailed, check_label
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.publishing.files import RefusedDocument
from policies.callers import Caller
from policies.delegation.rulings import Act
from registry.cards.card import WORKFLOW_KIND, Family, Registration
from registry.changes import RegistryChange
from registry.store import UnknownName

Authenticate = Callable[[Request], Awaitable[Caller]]
RefusedDocuments = Callable[[str], Sequence[RefusedDocument]]  # of a tenant
DOCUMENT_MAX = 1 << 20  # characters
REFUSED = "refused"  # the status of a workflow whose document can't be published
PICTURE_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'", "x-content-type-options": "nosniff"}


class Documents(Protocol):
    """gateway/workflows/administration.py."""

    async def add(self, tenant: str, owner: str, text: str, change: RegistryChange, *, label: str | None) -> dict[str, Any]: ...

    async def rights_for(self, text: str) -> list[Act]: ...

    async def check(self, tenant: str, text: str) -> str: ...

    def schema(self) -> dict[str, Any]: ...

    async def picture(self, tenant: str, name: str, version: str) -> str: ...

    async def show(self, entry: Registration) -> dict[str, Any]: ...

    async def estimate(self, entry: Registration) -> dict[str, Any]: ...

    async def check_without_runs(self, tenant: str, name: str) -> None: ...

    async def end_runs(self, tenant: str, name: str) -> None: ...

    async def summary(self, entry: Registration) -> dict[str, Any]: ...


class DocumentBody(ApiBody):
    """The text of a document, YAML or JSON. With `check`, it is only checked. `label` is that of the declarations it is from."""

    document: str = Field(min_length=1, max_length=DOCUMENT_MAX)
    check: bool = False
    label: str | None = None


def routes(
    access: RegistryAccess,
    load: Callable[[], Awaitable[Documents]],
    authenticate: Authenticate,
    max_body: int,
    *,
    refused_documents: RefusedDocuments,
) -> APIRouter:
    """Returns the routes. Callers see the workflows that they may start, and operators the documents of the folder that are refused."""
    router = APIRouter(prefix="/api/workflows", tags=["workflows"], route_class=WorkflowRoute)

    def find(caller: Caller, name: str) -> Registration:
        entry = access.find(caller, Family.AGENT, name)
        if entry.kind != WORKFLOW_KIND:
            raise UnknownName(name)
        return entry

    def find_refused(caller: Caller) -> Sequence[RefusedDocument]:
        return refused_documents(caller.principal.tenant) if access.is_operator(caller) else ()

    @router.post("", name="add_workflow", status_code=201, openapi_extra=describe_json_body(DocumentBody))
    async def add(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, DocumentBody, max_body)
        change = await access.authorize_change(caller, act_of_registry_change("register", Family.AGENT, ""))
        check_label(body.label)
        documents, tenant = await load(), caller.principal.tenant
        try:
            for act in await documents.rights_for(body.document):
                await access.require_grant(caller, act)
            if body.check:
                return JSONResponse({"name": await documents.check(tenant, body.document)}, 200)
            await _check_version(
                partial(find, caller), documents, caller.principal.tenant, body.document, list_header(request.scope, b"if-match")
            )
            added = await documents.add(tenant, caller.principal.owner_key, body.document, change, label=body.label)
        except DocumentRefused as refused:
            return refused_response(refused)
        return JSONResponse(added, 201, {"location": f"/api/workflows/{added['name']}"})

    @router.get("", name="list_workflows")
    async def list_all(
        caller: Annotated[Caller, Depends(authenticate)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        documents = await load()
        found, following = await access.list_page(caller, Family.AGENT, cursor, limit, lambda entry: entry.kind == WORKFLOW_KIND)
        refused = [] if cursor else [each.to_document() for each in find_refused(caller)]
        return JSONResponse({"items": [await documents.summary(entry) for entry in found], "next": following, "refused": refused})

    _add_views(router, find, load, authenticate, find_refused)

    @router.get("/{name}/estimate", name="estimate_workflow")
    async def estimate(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        entry = find(caller, name)
        return JSONResponse(await (await load()).estimate(entry))

    _add_removal(router, access, load, authenticate)
    return router


async def _check_version(find: Callable[[str], Registration], documents: Documents, tenant: str, text: str, if_match: str | None) -> None:
    """Raises PreconditionFailed where If-Match is sent, and the workflow of a document is not there or not as If-Match says."""
    if if_match is not None:
        try:
            entry = find(await documents.check(tenant, text))
        except UnknownName as missing:
            raise PreconditionFailed from missing
        check_if_match(entry, if_match)


def _add_removal(router: APIRouter, access: RegistryAccess, load: Callable[[], Awaitable[Documents]], authenticate: Authenticate) -> None:
    """Adds the route that removes a workflow, with `force` although it has open runs."""

    @router.delete("/{name}", name="remove_workflow", status_code=204)
    async def remove(caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request, *, force: bool = False) -> Response:
        documents, tenant = await load(), caller.principal.tenant

        async def check() -> None:
            if not force:
                await documents.check_without_runs(tenant, name)

        await access.remove(caller, Family.AGENT, name, check, list_header(request.scope, b"if-match"))
        await documents.end_runs(tenant, name)
        return Response(status_code=204)


def _add_views(
    router: APIRouter,
    find: Callable[[Caller, str], Registration],
    load: Callable[[], Awaitable[Documents]],
    authenticate: Authenticate,
    find_refused: Callable[[Caller], Sequence[RefusedDocument]],
) -> None:
    """Adds the routes that show the schema of documents, a workflow and its picture."""

    @router.get("/schema", name="show_workflow_schema")
    async def schema(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        return JSONResponse((await load()).schema(), media_type="application/schema+json")

    @router.get("/{name}/picture", name="draw_workflow")
    async def picture(caller: Annotated[Caller, Depends(authenticate)], name: str) -> Response:
        entry = find(caller, name)
        drawn = await (await load()).picture(entry.tenant, entry.name, entry.workflow_version)
        return Response(drawn, media_type="image/svg+xml", headers=PICTURE_HEADERS)

    @router.get("/{name}", name="show_workflow")
    async def show(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        refused = next((each.to_document() for each in find_refused(caller) if each.is_called(name)), None)
        try:
            entry = find(caller, name)
        except UnknownName:
            if refused is None:
                raise
            return JSONResponse(refused | {"status": REFUSED, "fits": False})
        return JSONResponse(await (await load()).show(entry) | {"refused": refused})


def refused_response(refused: DocumentRefused) -> JSONResponse:
    """Problem details (RFC 9457) with every problem of the document."""
    found = [{"line": each.line, "path": each.path, "reason": each.reason} for each in refused.problems]
    return JSONResponse(problem(describe(refused)) | {"problems": found}, 422, media_type=PROBLEM_MEDIA_TYPE.decode())
