"""/api/runs/{id}/events: what happens in a run, as server-sent events or as a list."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gateway.calls.limits.open_streams import OpenStreams
from gateway.ingress.admin.workflows.runs import Authenticate, RunSight
from gateway.ingress.admin.workflows.unknown import WorkflowRoute
from gateway.ingress.http.asgi import header, list_header
from gateway.tasks.log import TaskRow
from policies.callers import Caller

STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
QUIET_ROUNDS = 30  # of half a second, after which a comment is sent


class Feed(Protocol):
    """gateway/workflows/administration.py."""

    async def read_events(self, row: TaskRow, after: tuple[int, int]) -> list[dict[str, Any]]: ...

    def follow_events(self, row: TaskRow, after: tuple[int, int]) -> AsyncIterator[list[dict[str, Any]]]: ...


def routes(sight: RunSight, load: Callable[[], Awaitable[Feed]], open_streams: OpenStreams, authenticate: Authenticate) -> APIRouter:
    """Returns the route. A stream that breaks goes on after the event that Last-Event-ID names."""
    router = APIRouter(prefix="/api/runs", tags=["workflows"], route_class=WorkflowRoute)

    @router.get("/{run_id}/events", name="run_events")
    async def events(caller: Annotated[Caller, Depends(authenticate)], run_id: str, request: Request) -> Response:
        row, _ = await sight.find(caller, run_id)
        feed, after = await load(), parse_place(header(request.scope, b"last-event-id") or "")
        if (list_header(request.scope, b"accept") or "").startswith("application/json"):
            return JSONResponse({"items": await feed.read_events(row, after), "next": None})
        place = open_streams.acquire(caller.principal.owner_key)
        stream = place.hold_during(sse_lines(feed.follow_events(row, after)))
        return StreamingResponse(stream, media_type="text/event-stream", headers=STREAM_HEADERS)

    return router


def parse_place(text: str) -> tuple[int, int]:
    """The two numbers of Last-Event-ID; zeros, which is the beginning, for any other text."""
    task, _, step = text.partition(".")
    numbers = [int(each) if each.isascii() and each.isdigit() and len(each) < 19 else -1 for each in (task, step)]
    return (numbers[0], numbers[1]) if min(numbers) >= 0 else (0, 0)


async def sse_lines(batches: AsyncIterator[list[dict[str, Any]]]) -> AsyncGenerator[str]:
    """Server-sent events with the `id` and the `kind` of each, and a comment now and then where nothing happens."""
    quiet = 0
    async for batch in batches:
        quiet = 0 if batch else quiet + 1
        for event in batch:
            yield f"id: {event['id']}\nevent: {event['kind']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n"
        if quiet == QUIET_ROUNDS:
            quiet = 0
            yield ": still here\n\n"
