"""/api/checkpoints: the questions of runs to people, and the feed of what becomes of them."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gateway.calls.consent.approval_votes import OwnApproval
from gateway.calls.limits.open_streams import OpenStreams
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.admin.workflows.runs import Authenticate, RunPermissions
from gateway.ingress.http.asgi import header, list_header
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.tasks.log import to_rfc3339
from gateway.tasks.notices.feed import CHECKPOINT_KINDS, Notice, NoticeFeed
from gateway.workflows.problems import UnknownCheckpoint
from policies.callers import Caller
from policies.delegation.approval import DECIDE_APPROVALS

EVENT_STREAM = "text/event-stream"
STREAM_SECONDS = 900.0  # a stream lasts that long, or as long as the token of its reader
KEEPALIVE_SECONDS = 15.0  # a comment is sent on a stream that was quiet for that long
EventPage = Callable[[int], Awaitable[tuple[list[dict[str, Any]], int]]]


class ShownCheckpoint(Protocol):
    """gateway/workflows/runs/people/checkpoints.py."""

    @property
    def kind(self) -> str: ...

    @property
    def owner(self) -> str: ...

    @property
    def workflow(self) -> str: ...

    def is_requested_by(self, person: str) -> bool: ...

    def is_open_to(self, roles: Collection[str], has_permission: Callable[[str], bool]) -> bool: ...


class CheckpointAdministration(Protocol):
    """gateway/workflows/administration.py."""

    async def find_checkpoint(self, tenant: str, checkpoint_id: str) -> Any: ...

    async def pending_checkpoints(
        self, tenant: str, is_shown: Callable[[Any], bool], only_of: str, page: tuple[str, int]
    ) -> tuple[list[Any], str | None]: ...

    async def show_checkpoints(self, person: str, found: Sequence[Any]) -> list[dict[str, Any]]: ...

    async def answer(self, checkpoint: Any, value: Any, by: str, decision_id: str) -> dict[str, Any]: ...


class AnswerBody(ApiBody):
    """The answer to a checkpoint: `{"approved": true}`, one of the options, or the filled-in form."""

    value: Any


@dataclass(frozen=True, slots=True)
class CheckpointAccess:
    """Who sees a checkpoint, and so may answer it. The run's owner answers all but `approve`, people who decide approvals answer any."""

    permissions: RunPermissions

    def may_see(self, caller: Caller, checkpoint: ShownCheckpoint) -> bool:
        """Whether a caller may see a checkpoint."""
        is_owner = checkpoint.owner == caller.principal.owner_key and _covers(caller, checkpoint)
        return is_owner or self.is_escalated_to(caller, checkpoint) or self.permissions.could_allow(caller, DECIDE_APPROVALS)

    def may_answer(self, caller: Caller, checkpoint: ShownCheckpoint) -> bool:
        """Whether a caller may answer a checkpoint. A policy may still refuse the answer."""
        is_own_approval = checkpoint.kind == "approve" and checkpoint.is_requested_by(caller.principal.owner_key)
        return checkpoint.kind != "signal" and not is_own_approval and self.may_see(caller, checkpoint)

    def is_escalated_to(self, caller: Caller, checkpoint: ShownCheckpoint) -> bool:
        """Whether the checkpoint has been escalated to this person."""
        has = partial(self.permissions.has_permission, caller)
        return _covers(caller, checkpoint) and checkpoint.is_open_to(caller.principal.roles, has)

    async def decision_on_answer(self, caller: Caller, checkpoint: ShownCheckpoint) -> str:
        """The id of the decision that lets a person answer who is neither the owner nor one that the checkpoint was escalated to.

        Raises UnknownCheckpoint, OwnApproval and a refusal.
        """
        if not self.may_see(caller, checkpoint) or checkpoint.kind == "signal":  # signals have a route and rights of their own
            raise UnknownCheckpoint
        is_owner = checkpoint.owner == caller.principal.owner_key
        if checkpoint.kind == "approve" and checkpoint.is_requested_by(caller.principal.owner_key):
            raise OwnApproval
        if is_owner or self.is_escalated_to(caller, checkpoint):
            return ""
        return (await require_permission(caller, self.permissions.authorize, DECIDE_APPROVALS)).decision.id


def _covers(caller: Caller, checkpoint: ShownCheckpoint) -> bool:
    """Whether a person asks, with a token that has not been narrowed to other agents."""
    return not caller.delegation.path and caller.delegation.effective_permissions().covers(f"agent:{checkpoint.workflow}")


def checkpoint_routes(
    load: Callable[[], Awaitable[CheckpointAdministration]],
    permissions: RunPermissions,
    authenticate: Authenticate,
    *,
    feed: NoticeFeed,
    open_streams: OpenStreams,
    now: Callable[[], float] = time.time,
) -> APIRouter:
    """Returns the routes of checkpoints."""
    router, access = APIRouter(prefix="/api/checkpoints", tags=["workflows"]), CheckpointAccess(permissions)

    @router.get("", name="list_checkpoints")
    async def list_pending(
        caller: Annotated[Caller, Depends(authenticate)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        runs, person = await load(), caller.principal.owner_key
        only_of = "" if permissions.could_allow(caller, DECIDE_APPROVALS) else person
        is_shown = partial(access.may_see, caller)
        found, more = await runs.pending_checkpoints(caller.principal.tenant, is_shown, only_of, (cursor, limit))
        shown = zip(await runs.show_checkpoints(person, found), found, strict=True)
        items = [document | {"may_answer": access.may_answer(caller, checkpoint)} for document, checkpoint in shown]
        return JSONResponse({"items": items, "next": more})

    @router.get("/events", name="checkpoint_events")
    async def events(
        caller: Annotated[Caller, Depends(authenticate)], request: Request, since: Annotated[int, Query(ge=0, lt=1 << 63)] = 0
    ) -> Response:
        runs, last_id = await load(), header(request.scope, b"last-event-id") or ""
        after = int(last_id) if last_id.isascii() and last_id.isdigit() and len(last_id) < 19 else since
        page = partial(_visible_events, runs, feed, caller, partial(access.may_see, caller))
        if EVENT_STREAM not in (list_header(request.scope, b"accept") or ""):  # no client waits for an end that never comes unasked
            items, following = await page(after)
            return JSONResponse({"items": items, "next": str(following)})
        place = open_streams.acquire_endless(caller.principal.owner_key)
        seconds = min(STREAM_SECONDS, caller.expires - now())
        stream = place.hold_during(_event_lines(page, feed, after, seconds))
        return StreamingResponse(stream, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    @router.post("/{checkpoint_id}/answer", name="answer_checkpoint", openapi_extra=describe_json_body(AnswerBody))
    async def answer(caller: Annotated[Caller, Depends(authenticate)], checkpoint_id: str, request: Request) -> JSONResponse:
        body = await read_model(request, AnswerBody, 1 << 20)
        await permissions.check_in_person(caller, DECIDE_APPROVALS)
        runs = await load()
        checkpoint = await runs.find_checkpoint(caller.principal.tenant, checkpoint_id)
        decision_id = await access.decision_on_answer(caller, checkpoint)
        return JSONResponse(await runs.answer(checkpoint, body.value, caller.principal.owner_key, decision_id))

    return router


async def _visible_events(
    runs: CheckpointAdministration, feed: NoticeFeed, caller: Caller, may_see: Callable[[Any], bool], after: int
) -> tuple[list[dict[str, Any]], int]:
    """The events of checkpoints after a number that the caller may see, each with its checkpoint, and the number to go on after."""
    tenant, visible = caller.principal.tenant, list[tuple[Notice, Any]]()
    for notice in (notices := await feed.after(after, tenant, kinds=CHECKPOINT_KINDS)):
        try:
            checkpoint = await runs.find_checkpoint(tenant, notice.subject)
        except UnknownCheckpoint:
            continue
        if may_see(checkpoint):
            visible.append((notice, checkpoint))
    documents = await runs.show_checkpoints(caller.principal.owner_key, [checkpoint for _, checkpoint in visible])
    found = [
        {"seq": notice.seq, "at": to_rfc3339(notice.at), "kind": notice.kind, "checkpoint": document}
        for (notice, _), document in zip(visible, documents, strict=True)
    ]
    return found, notices[-1].seq if notices else after


async def _event_lines(page: EventPage, feed: NoticeFeed, after: int, seconds: float) -> AsyncGenerator[str]:
    """Server-sent events, whose id is the number to resume after; a comment where nothing happens.

    The stream ends at the first pause after `seconds`, so that a client shows its token again.
    """
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        change = feed.next_change
        items, following = await page(after)
        for item in items:
            yield f"id: {item['seq']}\nevent: {item['kind']}\ndata: {json.dumps(item, separators=(',', ':'))}\n\n"
        if following == after:
            try:
                async with asyncio.timeout(KEEPALIVE_SECONDS):
                    await change.wait()
            except TimeoutError:
                yield ": still here\n\n"
        after = following
