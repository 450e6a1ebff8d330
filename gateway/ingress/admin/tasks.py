"""/api/tasks: a person's tasks, their events as they happen, and the trace of what each caused."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from adapters.task import encode
from gateway.audit.traces import read_trace
from gateway.calls.limits.open_streams import Places
from gateway.ingress.admin.authority.oversight import Oversight
from gateway.ingress.http.asgi import header, list_header
from gateway.storage.database import Database
from gateway.tasks.log import WITHHELD, TaskEvent, TaskLog, TaskRecord, TaskRow, UnknownTask, one_by_one, rfc3339
from gateway.tasks.pages import Page, read_page, sees
from policies.callers import Caller

QUIET_SECONDS = 15.0  # after which a comment shows that the stream lives
Admitted = Callable[[Request], Awaitable[Caller]]


def routes(database: Database, log: TaskLog, admitted: Admitted, places: Places, *, oversight: Oversight) -> APIRouter:
    """Every answer about a task that the caller may not see is the one about a task that does not exist."""

    async def seen(caller: Caller, task_id: str) -> TaskRow:
        try:
            return await _seen(log, caller, task_id)
        except UnknownTask:
            return await oversight.task(caller, task_id)

    router = APIRouter(prefix="/api/tasks", tags=["tasks"])

    @router.get("", name="list_tasks")
    async def list_tasks(caller: Annotated[Caller, Depends(admitted)], page: Annotated[Page, Depends(_page)]) -> JSONResponse:
        if page.everybody:
            await oversight.check_list(caller)
        rows, more = await database.read(lambda connection: read_page(connection, caller, page))
        return JSONResponse({"items": [_head(row) for row in rows], "next": more})

    @router.get("/{task_id}", name="show_task")
    async def show_task(caller: Annotated[Caller, Depends(admitted)], task_id: str) -> JSONResponse:
        row = await seen(caller, task_id)
        return JSONResponse(_whole(await log.record(row.tenant, row.owner, row.id)))

    @router.get("/{task_id}/events", name="task_events")
    async def events(caller: Annotated[Caller, Depends(admitted)], task_id: str, request: Request) -> Response:
        row = await seen(caller, task_id)
        after = _number(header(request.scope, b"last-event-id") or "")
        if (list_header(request.scope, b"accept") or "").startswith("application/json"):
            items = [event_json(event) for event in await log.events(row, after) if _told(caller, event)]
            return JSONResponse({"items": items, "next": None})
        place = places.take(caller.principal.owner)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stream = _stream(event async for event in one_by_one(log.follow(row, after)) if _told(caller, event))
        return StreamingResponse(place.during(stream), media_type="text/event-stream", headers=headers)

    @router.get("/{task_id}/trace", name="task_trace")
    async def trace(caller: Annotated[Caller, Depends(admitted)], task_id: str) -> JSONResponse:
        row = await seen(caller, task_id)
        found = await database.read(lambda connection: read_trace(connection, row))
        return JSONResponse(found.to_json())

    return router


def _told(caller: Caller, event: TaskEvent) -> bool:
    """What broke a contract is for the person to look at, and for no agent on their errands."""
    return event.kind != WITHHELD or not caller.delegation.actor


def _page(
    agent: str = "",
    state: str = "",
    context_id: str = "",
    cursor: str = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    *,
    everybody: bool = False,
) -> Page:
    return Page(agent, state, context_id, cursor, limit, everybody=everybody)


async def _seen(log: TaskLog, caller: Caller, task_id: str) -> TaskRow:
    """Raises UnknownTask, for what the caller may not see too."""
    row = await log.find(caller.principal.tenant, caller.principal.owner, task_id)
    if not sees(caller, row):
        raise UnknownTask
    return row


def _head(row: TaskRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "context_id": row.context_id,
        "agent": row.agent,
        "state": row.state.value,
        "owner": row.owner,
        "parent_id": row.parent_id,
        "decision_id": row.decision_id,
        "grant_id": row.grant_id,
        "created": rfc3339(row.created),
        "updated": rfc3339(row.updated),
    }


def _whole(record: TaskRecord) -> dict[str, Any]:
    """Artifacts, history and status in the shapes of A2A 1.0."""
    task = json.loads(encode(record.task()))
    status = {"status": task["status"]}
    return {**_head(record.row), **status, "artifacts": task.get("artifacts", []), "history": task.get("history", [])}


def event_json(event: TaskEvent) -> dict[str, Any]:
    """Returns {"seq", "at", "kind"} and, under the name of its kind, what happened.

    An artifact has `append` and `last_chunk` beside it; the status of an agent that answered with a Message alone has `replied`.
    """
    body = json.loads(event.body)
    marks = {"append": body.pop("append", False), "last_chunk": body.pop("lastChunk", True)} if event.kind == "artifact" else {}
    if event.is_reply:
        marks["replied"] = body.pop("replied")
    return {"seq": event.seq, "at": rfc3339(event.at), "kind": event.kind, event.kind: body, **marks}


async def _stream(events: AsyncIterator[TaskEvent]) -> AsyncIterator[str]:
    """Server-sent events whose id is the sequence number; a comment now and then while nothing happens."""
    upcoming: asyncio.Future[TaskEvent] = asyncio.ensure_future(_next(events))
    try:
        while True:
            done, _ = await asyncio.wait((upcoming,), timeout=QUIET_SECONDS)
            if not done:
                yield ": still here\n\n"
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = asyncio.ensure_future(_next(events))
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(event_json(event), separators=(',', ':'))}\n\n"
    finally:
        upcoming.cancel()


async def _next(events: AsyncIterator[TaskEvent]) -> TaskEvent:
    return await anext(events)


def _number(text: str) -> int:
    """Last-Event-ID as the number it is; anything else begins at the beginning."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
