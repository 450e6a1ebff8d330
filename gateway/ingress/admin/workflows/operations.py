"""/api/runs/{id}/…: pauses, resumes, signals, redrives and forks runs. Owners do this in person; operators may pause, resume and signal."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from msgspec import UNSET
from pydantic import Field

from adapters.task import Message, Part, Role
from gateway.calls.agent_calls import AgentCalls
from gateway.calls.agent_requests import AgentRequest
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.workflows.runs import JSON, Authenticate, NotifyLook, RunPermissions, idempotency_key, is_visible
from gateway.ingress.admin.workflows.unknown import WorkflowRoute
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.storage.database import Batch
from gateway.tasks.log import TaskRow, UnknownTask
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.delegation.rulings import Act
from registry.store import Registry

OPERATE_RUNS = Act("writePolicy", "Key", "runs", "policy:write", "runs", "operate")
BODY_MAX = 1 << 20  # bytes


class StartableRun(Protocol):
    """gateway/workflows/operations.py."""

    @property
    def input(self) -> Any: ...

    @property
    def version(self) -> str: ...

    @property
    def write(self) -> Callable[[Batch, TaskRow], None]: ...


class OperatesRuns(Protocol):
    """gateway/workflows/operations.py."""

    async def find(self, tenant: str, owner: str | None, run_id: str) -> tuple[TaskRow, Any]: ...

    async def pause(self, run: Any, by: str, decision_id: str) -> None: ...

    async def resume(self, run: Any, by: str, decision_id: str) -> None: ...

    async def signal(self, run: Any, name: str, value: Any, *, by: str, decision_id: str, key: str) -> None: ...

    async def redrive(self, found: tuple[TaskRow, Any], version: str, by: str, *, repeat_unknown: bool) -> StartableRun: ...

    async def fork(self, row: Any, step: str, given: Any, *, version: str, by: str) -> StartableRun: ...


class SignalBody(ApiBody):
    name: str = Field(min_length=1, max_length=200)
    data: Any = None


class RedriveBody(ApiBody):
    """`latest` runs with the version that new runs begin with; otherwise the run's own version stays.

    `repeat_unknown` repeats steps that may have had their effect.
    """

    latest: bool = False
    repeat_unknown: bool = False


class ForkBody(ApiBody):
    """`step` is the name or the JSON pointer of a task, `input` the task's input instead of the one that it had."""

    step: str = Field(min_length=1, max_length=2000)
    input: Any = None
    latest: bool = False


@dataclass(frozen=True, slots=True)
class RunAccess:
    """Who may do what with a run."""

    load: Callable[[], Awaitable[OperatesRuns]]
    permissions: RunPermissions
    notify_look: NotifyLook

    async def to_operate(self, caller: Caller, run_id: str) -> tuple[OperatesRuns, TaskRow, Any, str]:
        """A run of the caller's own, or of any for an operator, with the id of the decision that allowed that. Raises UnknownTask."""
        await self.permissions.check_in_person(caller, OPERATE_RUNS)
        operations, principal = await self.load(), caller.principal
        try:
            task, row = await operations.find(principal.tenant, principal.owner_key, run_id)
        except UnknownTask:
            if not self.permissions.could_allow(caller, OPERATE_RUNS):
                raise
            task, row = await operations.find(principal.tenant, None, run_id)
            grant = await self.permissions.authorize_on_task(caller, OPERATE_RUNS, task.id)
            return operations, task, row, grant.decision.id
        if not is_visible(caller, task):
            raise UnknownTask
        return operations, task, row, ""

    async def to_start_again(self, caller: Caller, run_id: str) -> tuple[OperatesRuns, TaskRow, Any]:
        """A run of the caller's own: no person starts a run in another's name. Raises UnknownTask."""
        await self.permissions.check_in_person(caller, OPERATE_RUNS)
        operations, principal = await self.load(), caller.principal
        task, row = await operations.find(principal.tenant, principal.owner_key, run_id)
        if not is_visible(caller, task):
            raise UnknownTask
        return operations, task, row


def operation_routes(access: RunAccess, authenticate: Authenticate) -> APIRouter:
    """Returns the routes that change a run that exists."""
    router = APIRouter(prefix="/api/runs", tags=["workflows"], route_class=WorkflowRoute)

    @router.post("/{run_id}/pause", name="pause_run", status_code=204)
    async def pause(caller: Annotated[Caller, Depends(authenticate)], run_id: str) -> Response:
        operations, _, row, decision_id = await access.to_operate(caller, run_id)
        await operations.pause(row.key, caller.principal.owner_key, decision_id)
        return Response(status_code=204)

    @router.post("/{run_id}/resume", name="resume_run", status_code=204)
    async def resume(caller: Annotated[Caller, Depends(authenticate)], run_id: str) -> Response:
        operations, task, row, decision_id = await access.to_operate(caller, run_id)
        if task.owner == caller.principal.owner_key:  # with the roles that the caller has now, a run that waited for them goes on
            await access.notify_look(caller, task)
        await operations.resume(row.key, caller.principal.owner_key, decision_id)
        return Response(status_code=204)

    @router.post("/{run_id}/signal", name="signal_run", status_code=204, openapi_extra=describe_json_body(SignalBody))
    async def signal(caller: Annotated[Caller, Depends(authenticate)], run_id: str, request: Request) -> Response:
        body, key = await read_model(request, SignalBody, BODY_MAX), idempotency_key(request) or ""
        operations, _, row, decision_id = await access.to_operate(caller, run_id)
        by = caller.principal.owner_key
        await operations.signal(row.key, body.name, body.data, by=by, decision_id=decision_id, key=key)
        return Response(status_code=204)

    return router


def successor_routes(access: RunAccess, agents: AgentCalls, registry: Registry, authenticate: Authenticate) -> APIRouter:
    """Returns the routes that start a run with the journal of another one. Asking twice for the same run starts one."""
    router = APIRouter(prefix="/api/runs", tags=["workflows"], route_class=WorkflowRoute)

    def version_for(caller: Caller, workflow: str, latest: bool) -> str:
        return registry.find(caller.principal.tenant, workflow).workflow_version if latest else ""

    async def start(caller: Caller, workflow: str, key: str, following: StartableRun) -> JSONResponse:
        message = Message(key, Role.USER, (Part(data=following.input, media_type=JSON),))
        request = AgentRequest(workflow, message, TraceContext(), idempotency_key=key, opening_write=following.write)
        row = (await agents.start(caller, request)).row
        return JSONResponse({"id": row.id, "workflow": row.agent, "state": row.state.value}, 201, {"location": f"/api/runs/{row.id}"})

    @router.post("/{run_id}/redrive", name="redrive_run", status_code=201, openapi_extra=describe_json_body(RedriveBody))
    async def redrive(caller: Annotated[Caller, Depends(authenticate)], run_id: str, request: Request) -> JSONResponse:
        body = await read_model(request, RedriveBody, BODY_MAX)
        operations, task, row = await access.to_start_again(caller, run_id)
        version = version_for(caller, task.agent, body.latest)
        following = await operations.redrive((task, row), version, caller.principal.owner_key, repeat_unknown=body.repeat_unknown)
        key = idempotency_key(request) or f"redrive:{run_id}:{following.version}"
        return await start(caller, task.agent, key, following)

    @router.post("/{run_id}/fork", name="fork_run", status_code=201, openapi_extra=describe_json_body(ForkBody))
    async def fork(caller: Annotated[Caller, Depends(authenticate)], run_id: str, request: Request) -> JSONResponse:
        body = await read_model(request, ForkBody, BODY_MAX)
        operations, task, row = await access.to_start_again(caller, run_id)
        given = body.input if "input" in body.model_fields_set else UNSET
        version = version_for(caller, task.agent, body.latest)
        following = await operations.fork(row, body.step, given, version=version, by=caller.principal.owner_key)
        key = idempotency_key(request) or f"fork:{_digest([run_id, body.step, body.model_dump(exclude_unset=True), following.version])}"
        return await start(caller, task.agent, key, following)

    return router


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
