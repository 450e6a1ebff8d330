"""/api/tasks: a person's tasks, their events as they happen, the trace and the cost of all that each caused, and its cancellation."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import Connection

from adapters.task import encode
from gateway.audit.traces import read_trace
from gateway.calls.costs.task_costs import read_task_costs
from gateway.calls.limits.open_streams import OpenStreams
from gateway.calls.turns.cancellation import CanceledTask, caused_tasks_metadata
from gateway.ingress.admin.authority.oversight import Oversight
from gateway.ingress.http.asgi import header, list_header
from gateway.storage.database import Database
from gateway.tasks.log import WITHHELD, TaskEvent, TaskLeft, TaskLog, TaskRecord, TaskRow, UnknownTask, events_one_by_one, to_rfc3339
from gateway.tasks.pages import TaskFilter, can_see, read_page
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.strict_json import LARGE, run_in_reader

LOOKED_AT_MAX = 50_000  # tasks that one page of a filtered list looks through
KEEPALIVE_SECONDS = 15.0  # a comment is sent on a stream that was quiet for that long
Authenticate = Callable[[Request], Awaitable[Caller]]
CancelTask = Callable[[Caller, TaskRow, TraceContext], Awaitable[CanceledTask]]


def routes(
    database: Database, task_log: TaskLog, authenticate: Authenticate, open_streams: OpenStreams, *, oversight: Oversight, currency: str
) -> APIRouter:
    """Returns the routes that read. A task that the caller may not see is answered like one that does not exist. `currency`: of costs."""

    def read_cost(connection: Connection, row: TaskRow) -> dict[str, Any] | None:
        found = read_task_costs(connection, row.tenant, (row.txn,)).of(row.id)
        return None if found is None else found.to_document(currency)

    async def find_visible(caller: Caller, task_id: str) -> TaskRow:
        try:
            return await _find_own(task_log, caller, task_id)
        except UnknownTask:
            return await oversight.find_any_task(caller, task_id)

    router = APIRouter(prefix="/api/tasks", tags=["tasks"])

    @router.get("", name="list_tasks")
    async def list_tasks(
        caller: Annotated[Caller, Depends(authenticate)], page: Annotated[TaskFilter, Depends(_page_filter)]
    ) -> JSONResponse:
        if page.includes_whole_tenant:
            await oversight.check_may_list(caller)
        rows, more = await database.read(lambda connection: read_page(connection, caller, page))
        return JSONResponse({"items": [_summary_document(row) for row in rows], "next": more})

    @router.get("/{task_id}", name="show_task")
    async def show_task(caller: Annotated[Caller, Depends(authenticate)], task_id: str) -> JSONResponse:
        row = await find_visible(caller, task_id)
        cost = await database.read(lambda connection: read_cost(connection, row))
        record = await task_log.read_record(row.tenant, row.owner, row.id)
        is_small = sum(len(event.body) for event in record.events) <= LARGE
        return _full_answer(record, cost) if is_small else await run_in_reader(_full_answer, record, cost)

    @router.get("/{task_id}/events", name="task_events")
    async def events(caller: Annotated[Caller, Depends(authenticate)], task_id: str, request: Request) -> Response:
        row = await find_visible(caller, task_id)
        after = _parse_event_id(header(request.scope, b"last-event-id") or "")
        if (list_header(request.scope, b"accept") or "").startswith("application/json"):
            items = [event_json(event) for event in await task_log.read_events(row, after) if _is_shown_to(caller, event)]
            return JSONResponse({"items": items, "next": None})
        place = open_streams.acquire(caller.principal.owner_key)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stream = _sse_lines(
            event async for event in events_one_by_one(task_log.follow(row, after, until_drain=True)) if _is_shown_to(caller, event)
        )
        return StreamingResponse(place.hold_during(stream), media_type="text/event-stream", headers=headers)

    @router.get("/{task_id}/trace", name="task_trace")
    async def trace(caller: Annotated[Caller, Depends(authenticate)], task_id: str) -> JSONResponse:
        row = await find_visible(caller, task_id)
        found, cost = await database.read(lambda connection: (read_trace(connection, row), read_cost(connection, row)))
        return JSONResponse(found.to_json() | {"cost": cost})

    return router


def cancel_routes(task_log: TaskLog, authenticate: Authenticate, oversight: Oversight, cancel_task: CancelTask) -> APIRouter:
    """Returns the route that stops a task. `cancel_task` is Cancellation.cancel: agents are asked in the name of the caller."""
    router = APIRouter(prefix="/api/tasks", tags=["tasks"])

    @router.post("/{task_id}/cancel", name="cancel_task")
    async def cancel(caller: Annotated[Caller, Depends(authenticate)], task_id: str) -> JSONResponse:
        """Stops a task and all that it caused: the caller's own, or for operators (`policy:write`) that of any person."""
        try:
            row = await _find_own(task_log, caller, task_id)
        except UnknownTask:
            row = await oversight.authorize_cancel(caller, task_id)
        stopped = await cancel_task(caller, row, TraceContext())
        return JSONResponse(_summary_document(stopped.row) | {"caused_tasks": caused_tasks_metadata(stopped, name_tasks=True)})

    return router


def _is_shown_to(caller: Caller, event: TaskEvent) -> bool:
    """Returns whether the caller may see the event.

    Content that broke a contract is for the person only, not for agents that act for them.
    """
    return event.kind != WITHHELD or not caller.delegation.actor


def _page_filter(
    agent: str = "",
    state: str = "",
    context_id: str = "",
    cursor: str = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    *,
    everybody: bool = False,
) -> TaskFilter:
    return TaskFilter(agent, state, context_id, cursor, limit, includes_whole_tenant=everybody, looked_at_max=LOOKED_AT_MAX)


async def _find_own(task_log: TaskLog, caller: Caller, task_id: str) -> TaskRow:
    """Returns the caller's own task. Raises UnknownTask, also when the caller may not see the task."""
    row = await task_log.find(caller.principal.tenant, caller.principal.owner_key, task_id)
    if not can_see(caller, row):
        raise UnknownTask
    await task_log.notify_look(caller, row)
    return row


def _summary_document(row: TaskRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "context_id": row.context_id,
        "agent": row.agent,
        "state": row.state.value,
        "owner": row.owner,
        "parent_id": row.parent_id,
        "decision_id": row.decision_id,
        "grant_id": row.grant_id,
        "created": to_rfc3339(row.created),
        "updated": to_rfc3339(row.updated),
    }


def _full_answer(record: TaskRecord, cost: Mapping[str, Any] | None) -> JSONResponse:
    return JSONResponse(_full_document(record) | {"cost": cost})


def _full_document(record: TaskRecord) -> dict[str, Any]:
    """Returns the task with artifacts, history and status in the format of A2A 1.0."""
    task = json.loads(encode(record.to_task()))
    status = {"status": task["status"]}
    return {**_summary_document(record.row), **status, "artifacts": task.get("artifacts", []), "history": task.get("history", [])}


def event_json(event: TaskEvent) -> dict[str, Any]:
    """Returns {"seq", "at", "kind"} and the event under the name of its kind.

    An artifact also has `append` and `last_chunk`. The status of an agent that answered with a Message alone has `replied`.
    """
    body = json.loads(event.body)
    if event.metadata:
        body = {"updateMetadata" if event.kind == "artifact" else "metadata": event.metadata, **body}
    marks = {"append": event.is_append, "last_chunk": event.is_last_chunk} if event.kind == "artifact" else {}
    if event.is_reply:
        marks["replied"] = True
    return {"seq": event.seq, "at": to_rfc3339(event.at), "kind": event.kind, event.kind: body, **marks}


async def _sse_lines(events: AsyncIterator[TaskEvent]) -> AsyncIterator[str]:
    """Yields server-sent events whose id is the sequence number, and a comment every KEEPALIVE_SECONDS while there is no event."""
    upcoming: asyncio.Future[TaskEvent] = asyncio.ensure_future(_next_event(events))
    try:
        while True:
            done, _ = await asyncio.wait((upcoming,), timeout=KEEPALIVE_SECONDS)
            if not done:
                yield ": still here\n\n"
                continue
            try:
                event = upcoming.result()
            except (StopAsyncIteration, TaskLeft):
                return
            upcoming = asyncio.ensure_future(_next_event(events))
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(event_json(event), separators=(',', ':'))}\n\n"
    finally:
        upcoming.cancel()


async def _next_event(events: AsyncIterator[TaskEvent]) -> TaskEvent:
    return await anext(events)


def _parse_event_id(text: str) -> int:
    """Returns Last-Event-ID as a number, or 0 for any other text, which starts at the first event."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
