"""/api/runs: a person's runs of workflows."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Protocol
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from msgspec.structs import replace
from pydantic import Field

from adapters.task import Message, Part, Role, TaskState
from gateway.audit.decisions import READ_AUDIT
from gateway.calls.agent_calls import AgentCalls
from gateway.calls.agent_requests import AgentRequest
from gateway.calls.authorizer import RequireInPerson
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.admin.workflows.unknown import WorkflowRoute
from gateway.ingress.http.asgi import BadHeader, header
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.tasks.log import TaskRow, UnknownTask
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from registry.cards.card import WORKFLOW_KIND, Family
from registry.store import Registry, UnknownName

Authenticate = Callable[[Request], Awaitable[Caller]]
ListedState = TaskState | Literal["paused", "waiting"] | None  # None lists runs in all states
JSON = "application/json"
PICTURE_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'", "x-content-type-options": "nosniff"}
START_MAX = 8 << 20  # bytes of a request that starts a run
KEY_MAX = 256  # characters of an idempotency key, as over A2A


class Runs(Protocol):
    """gateway/workflows/administration.py."""

    async def list_runs(self, tenant: str, owner: str | None, page: Any) -> tuple[list[dict[str, Any]], str | None]: ...

    async def show_run(
        self, tenant: str, owner: str | None, run_id: str, may_answer: Callable[[Any], bool]
    ) -> tuple[TaskRow, dict[str, Any]] | None: ...

    async def read_value(self, tenant: str, run_id: str, digest: str) -> str | None: ...

    async def picture(self, tenant: str, name: str, version: str, run: Mapping[str, Any] | None) -> str: ...


class StartBody(ApiBody):
    workflow: str = Field(min_length=1, max_length=64)
    input: Any = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which page of a list of runs: of those in a state, or of all people of the tenant."""

    state: ListedState
    cursor: str
    limit: int
    everybody: bool


def _run_query(
    state: ListedState = None, cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50, *, everybody: bool = False
) -> RunQuery:
    return RunQuery(state, cursor, limit, everybody)


class InputBody(ApiBody):
    input: Any = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunPermissions:
    """The rulings that routes of runs need."""

    could_allow: Callable[[Caller, Act], bool]
    authorize: Callable[[Caller, Act], Awaitable[Grant]]
    check_in_person: RequireInPerson
    authorize_on_task: Callable[[Caller, Act, str], Awaitable[Grant]]
    has_permission: Callable[[Caller, str], bool]  # by the person's roles and the token's scope, whatever policies say


SEE_RUN, LIST_RUNS = replace(READ_AUDIT, verb="see-run"), replace(READ_AUDIT, verb="list-runs")


NotifyLook = Callable[[Caller, TaskRow], Awaitable[None]]  # tells of a look of a task's owner, whose roles of now count from then on


@dataclass(frozen=True, slots=True)
class RunSight:
    """Who sees a run: its owner, an agent whose task caused it, and callers with audit:read, each of whose looks is recorded."""

    load: Callable[[], Awaitable[Runs]]
    permissions: RunPermissions
    notify_look: NotifyLook
    may_answer: Callable[[Caller, Any], bool]  # whether a caller may answer a checkpoint

    async def find(self, caller: Caller, run_id: str) -> tuple[TaskRow, dict[str, Any]]:
        """Raises UnknownTask."""
        runs, principal, may_answer = await self.load(), caller.principal, partial(self.may_answer, caller)
        found = await runs.show_run(principal.tenant, principal.owner_key, run_id, may_answer)
        if found is not None and is_visible(caller, found[0]):
            await self.notify_look(caller, found[0])
            return found
        if not self.permissions.could_allow(caller, SEE_RUN):
            raise UnknownTask
        found = await runs.show_run(principal.tenant, None, run_id, may_answer)
        if found is None:
            raise UnknownTask
        await self.permissions.authorize_on_task(caller, SEE_RUN, run_id)
        return found

    async def list(self, caller: Caller, query: RunQuery, workflow: str) -> JSONResponse:
        """A page of the caller's own runs, or of those of all people, for callers with audit:read. An agent sees none.

        Raises CallRefused and BadCursor.
        """
        everybody = query.everybody
        if everybody:
            await require_permission(caller, self.permissions.authorize, LIST_RUNS)
        owner = None if everybody else caller.principal.owner_key
        page = (workflow, query.state, query.cursor, query.limit)
        items, more = await (await self.load()).list_runs(caller.principal.tenant, owner, page)
        covers = caller.delegation.effective_permissions().covers
        shown = [each for each in items if everybody or covers(f"agent:{each['workflow']}")]
        return JSONResponse({"items": [] if caller.delegation.path else shown, "next": more})


@dataclass(frozen=True, slots=True)
class RunStarter:
    """Starts runs as any client does: by a message to the workflow's agent."""

    agents: AgentCalls
    registry: Registry

    async def start(self, caller: Caller, workflow: str, given: Any, request: Request) -> JSONResponse:
        """Raises UnknownName, BadHeader and what AgentCalls.start raises."""
        entry = self.registry.find(caller.principal.tenant, workflow)
        if entry.family is not Family.AGENT or entry.kind != WORKFLOW_KIND:
            raise UnknownName(workflow)
        key = idempotency_key(request)
        message = Message(key or f"m-{uuid4()}", Role.USER, (Part(data=given, media_type=JSON),))
        row = (await self.agents.start(caller, AgentRequest(entry.name, message, TraceContext(), idempotency_key=key))).row
        return JSONResponse({"id": row.id, "workflow": row.agent, "state": row.state.value}, 201, {"location": f"/api/runs/{row.id}"})


def runs_of_workflow_routes(starter: RunStarter, sight: RunSight, authenticate: Authenticate) -> APIRouter:
    """Returns the routes that start and list the runs of one workflow."""
    router = APIRouter(prefix="/api/workflows", tags=["workflows"], route_class=WorkflowRoute)

    @router.post("/{name}/runs", name="start_run_of_workflow", status_code=201, openapi_extra=describe_json_body(InputBody))
    async def start(caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request) -> JSONResponse:
        body = await read_model(request, InputBody, START_MAX)
        return await starter.start(caller, name, body.input, request)

    @router.get("/{name}/runs", name="list_runs_of_workflow")
    async def list_all(
        caller: Annotated[Caller, Depends(authenticate)], name: str, page: Annotated[RunQuery, Depends(_run_query)]
    ) -> JSONResponse:
        return await sight.list(caller, page, name)

    return router


def run_routes(starter: RunStarter, sight: RunSight, authenticate: Authenticate) -> APIRouter:
    """Returns the routes of runs. A run is a task: whose it is and what the caller's token covers decides who sees it."""
    router = APIRouter(prefix="/api/runs", tags=["workflows"], route_class=WorkflowRoute)
    load, find = sight.load, sight.find

    @router.post("", name="start_run", status_code=201, openapi_extra=describe_json_body(StartBody))
    async def start(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, StartBody, START_MAX)
        return await starter.start(caller, body.workflow, body.input, request)

    @router.get("", name="list_runs")
    async def list_all(
        caller: Annotated[Caller, Depends(authenticate)], page: Annotated[RunQuery, Depends(_run_query)], workflow: str = ""
    ) -> JSONResponse:
        return await sight.list(caller, page, workflow)

    @router.get("/{run_id}", name="show_run")
    async def show(caller: Annotated[Caller, Depends(authenticate)], run_id: str) -> JSONResponse:
        return JSONResponse((await find(caller, run_id))[1])

    @router.get("/{run_id}/picture", name="draw_run")
    async def picture(caller: Annotated[Caller, Depends(authenticate)], run_id: str) -> Response:
        row, shown = await find(caller, run_id)
        drawn = await (await load()).picture(row.tenant, shown["workflow"], shown["version"], shown)
        return Response(drawn, media_type="image/svg+xml", headers=PICTURE_HEADERS)

    @router.get("/{run_id}/values/{digest}", name="run_value")
    async def value(caller: Annotated[Caller, Depends(authenticate)], run_id: str, digest: str) -> Response:
        row, _ = await find(caller, run_id)
        text = await (await load()).read_value(row.tenant, row.id, digest)
        if text is None:
            raise UnknownTask
        return Response(text, media_type=JSON)

    @router.post("/{run_id}/cancel", name="cancel_run", status_code=204)
    async def cancel(caller: Annotated[Caller, Depends(authenticate)], run_id: str) -> Response:
        row, _ = await find(caller, run_id)
        await starter.agents.cancel(caller, row.agent, row.id, TraceContext())
        return Response(status_code=204)

    return router


def idempotency_key(request: Request) -> str | None:
    """The header Idempotency-Key, or None. Raises BadHeader."""
    key = header(request.scope, b"idempotency-key") or None
    if key is not None and (len(key) > KEY_MAX or not key.isprintable()):
        raise BadHeader(f"idempotency-key is longer than {KEY_MAX} characters, or has unprintable ones")
    return key


def is_visible(caller: Caller, row: TaskRow) -> bool:
    """Whether the caller may see a run of their own through this token; an agent sees the runs that its own task caused."""
    caused = not caller.delegation.path or row.parent_id == caller.delegation.task_id
    return caused and caller.delegation.effective_permissions().covers(f"agent:{row.agent}")
