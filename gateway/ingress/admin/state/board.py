"""/api/state: values by key, with ETags as versions, their history, lists by prefix, and the feed of changes as server-sent events."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from gateway.calls.limits.open_streams import OpenStreams
from gateway.ingress.admin.state.preconditions import etag_of, is_unchanged, read_precondition
from gateway.ingress.admin.workflows.events import STREAM_HEADERS, sse_lines
from gateway.ingress.http.asgi import check_json_content_type, header, list_header, read_body
from gateway.registration.requests import BadRequest
from gateway.state.board.documents import change_document, held_document, value_document
from gateway.state.board.held_values.rows import HeldValue
from gateway.state.board.keys import KEY_FORM
from gateway.state.board.merge_patch import Edit
from gateway.state.board.operations import Board, WriteOptions
from gateway.state.board.problems import BadKey
from gateway.state.board.rules import TTL_MAX
from gateway.state.board.values import StoredValue
from gateway.storage.paging import BadCursor
from policies.callers import Caller
from policies.strict_json import LARGE, parse, run_off_loop

Authenticate = Callable[[Request], Awaitable[Caller]]
LoadBoard = Callable[[], Awaitable[Board]]
ESCAPE: Final = b"%"
VALUE_BODY: Final = {"application/json": {"schema": {"description": "Any JSON value."}}}
PATCH_BODY: Final = {"application/merge-patch+json": {"schema": {"description": "A JSON Merge Patch (RFC 7396)."}}}


async def _key_of(request: Request, key: str) -> str:
    """The key in the path, in the only spelling that it has: what is escaped could be read in two ways. Raises BadKey."""
    if ESCAPE in request.scope.get("raw_path", b""):
        raise BadKey("The key has a character that keys have not, or is percent-encoded. " + KEY_FORM)
    return key


async def _read_options(
    request: Request,
    ttl: Annotated[int | None, Query(ge=1, le=TTL_MAX)] = None,
    sensitivity: Annotated[int, Query(ge=0, le=3)] = 0,
) -> WriteOptions:
    """What the headers and the query of a write ask for. Raises BadHeader."""
    return WriteOptions(read_precondition(request.scope), ttl, sensitivity)


class StateListQuery(BaseModel):
    """Which keys a list or a stream shows."""

    prefix: str = Field("", max_length=600)
    cursor: str = Field("", max_length=600)  # the last key of the page before
    limit: int = Field(50, ge=1, le=200)
    values: bool = False


class StateQuery(BaseModel):
    """What is shown of a key: its value, or with `history`, whatever it says, its changes."""

    history: str | None = None
    cursor: str = Field("", max_length=20)
    limit: int = Field(50, ge=1, le=200)


Key = Annotated[str, Depends(_key_of)]
Options = Annotated[WriteOptions, Depends(_read_options)]


def read_routes(load: LoadBoard, authenticate: Authenticate, open_streams: OpenStreams) -> APIRouter:
    """Returns the routes that read. The board is loaded by the first request."""
    router = APIRouter(prefix="/api/state", tags=["state"])

    @router.get("", name="list_state")
    async def list_all(
        caller: Annotated[Caller, Depends(authenticate)], request: Request, query: Annotated[StateListQuery, Query()]
    ) -> Response:
        board = await load()
        if "text/event-stream" in (list_header(request.scope, b"accept") or ""):
            after = _parse_number(header(request.scope, b"last-event-id") or "")
            prefix = await board.begin_following(caller, query.prefix)
            place = open_streams.acquire_endless(caller.principal.owner_key)
            stream = place.hold_during(sse_lines(_changes(board, caller, prefix, after)))
            return StreamingResponse(stream, media_type="text/event-stream", headers=STREAM_HEADERS)
        page = await board.list_values(caller, query.prefix, query.cursor, query.limit, with_values=query.values)
        return JSONResponse({"items": [value_document(value, query.values) for value in page.values], "next": page.next or None})

    @router.get("/{key:path}", name="get_state")
    async def get(
        caller: Annotated[Caller, Depends(authenticate)], key: Key, request: Request, query: Annotated[StateQuery, Query()]
    ) -> Response:
        board = await load()
        if query.history is not None:
            changes = await board.history(caller, key, _parse_number(query.cursor), query.limit)
            following = str(changes[-1].version) if len(changes) == query.limit else None
            return JSONResponse({"items": [change_document(change) for change in changes], "next": following})
        value = await board.get(caller, key)
        if not isinstance(value, StoredValue):
            return JSONResponse(value_document(value))
        headers = {"ETag": etag_of(value.version)}
        if is_unchanged(request.scope, value.version):
            return Response(None, 304, headers)
        return JSONResponse(value_document(value), 200, headers)

    return router


def write_routes(load: LoadBoard, authenticate: Authenticate, max_body: int) -> APIRouter:
    """Returns the routes that write."""
    router = APIRouter(prefix="/api/state", tags=["state"])

    @router.put("/{key:path}", name="set_state", openapi_extra={"requestBody": {"required": True, "content": VALUE_BODY}})
    async def put(caller: Annotated[Caller, Depends(authenticate)], key: Key, request: Request, options: Options) -> JSONResponse:
        edit = Edit(await _read_json(request, max_body))
        return _write_response(await (await load()).write(caller, key, edit, options), with_value=True)

    @router.patch("/{key:path}", name="patch_state", openapi_extra={"requestBody": {"required": True, "content": PATCH_BODY}})
    async def patch(caller: Annotated[Caller, Depends(authenticate)], key: Key, request: Request, options: Options) -> JSONResponse:
        edit = Edit(await _read_json(request, max_body), is_patch=True)
        board = await load()
        result = await board.write(caller, key, edit, options)
        return _write_response(result, with_value=await board.shows_patched(caller, key))

    @router.delete("/{key:path}", name="delete_state")
    async def delete(caller: Annotated[Caller, Depends(authenticate)], key: Key, request: Request) -> JSONResponse:
        version = await (await load()).delete(caller, key, read_precondition(request.scope))
        return JSONResponse({"key": key, "version": version, "kind": "deleted"})

    return router


def _write_response(result: Any, *, with_value: bool) -> JSONResponse:
    """200 or 201 with the value's ETag; 202 for a value that is held back."""
    if isinstance(result, HeldValue):
        return JSONResponse({"held": held_document(result, with_value)}, 202)
    if not isinstance(result, StoredValue):
        return JSONResponse(value_document(result))
    return JSONResponse(
        value_document(result, with_value), 201 if result.created == result.updated else 200, {"ETag": etag_of(result.version)}
    )


async def _changes(board: Board, caller: Caller, prefix: str, after: int | None) -> AsyncIterator[list[dict[str, Any]]]:
    """Batches of events for `sse_lines`.

    `begin` is the first event of a reader without a place, and names one. `gap` says that changes after the reader's place were deleted
    for their age.
    """
    is_first = after is None
    async for followed in board.follow(caller, prefix, after):
        gap = [] if followed.is_complete else [{"id": str(after or 0), "kind": "gap"}]
        begin = [{"id": str(followed.seq), "kind": "begin"}] if is_first else []
        is_first = False
        yield begin + gap + [change_document(change) for change in followed.changes]


async def _read_json(request: Request, max_body: int) -> Any:
    check_json_content_type(request.scope)
    raw = await read_body(request.scope, request.receive, max_body)
    if not raw:
        raise BadRequest("body", "must be a JSON value")
    return await run_off_loop(parse, raw) if len(raw) > LARGE else parse(raw)


def _parse_number(text: str) -> int | None:
    """The number of a change or a version, or None for an empty text. Raises BadCursor."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadCursor
    return int(text)
