"""/api/deadletters: notifications and events that were not delivered, and what triggers could not start, for operators."""

from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from msgspec.structs import replace

from gateway.audit.decisions import READ_AUDIT
from gateway.events.queue import RETRY_DEAD_LETTERS, DeadLetters, UnknownLetter
from gateway.ingress.admin.demand import require_permission
from gateway.tasks.log import to_rfc3339
from gateway.tasks.webhooks.outbox import UnknownDelivery
from policies.callers import Caller
from policies.delegation.rulings import Act

DROP_DEAD_LETTERS = replace(RETRY_DEAD_LETTERS, verb="drop")
Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]


def routes(stores: Sequence[DeadLetters], authenticate: Authenticate, authorize: Authorize) -> APIRouter:
    """Returns the routes. Listing needs audit:read, retrying and dropping registry:write.

    `authorize` records the ruling and raises CallRefused unless it is a Grant.
    """
    router = APIRouter(prefix="/api/deadletters", tags=["deadletters"])

    @router.get("", name="list_deadletters")
    async def list_deadletters(
        caller: Annotated[Caller, Depends(authenticate)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        await require_permission(caller, authorize, READ_AUDIT)
        pages = [await store.list_dead_letters(caller.principal.tenant, cursor, limit) for store in stores]
        letters = sorted((letter for page, _ in pages for letter in page), key=itemgetter("id"), reverse=True)  # ids sort by time
        is_more = len(letters) > limit or any(following for _, following in pages)
        shown = letters[:limit]
        items = [_dead_letter_document(letter) for letter in shown]
        return JSONResponse({"items": items, "next": shown[-1]["id"] if is_more and shown else None})

    @router.post("/{letter_id}/retry", name="retry_deadletter", status_code=204)
    async def retry(caller: Annotated[Caller, Depends(authenticate)], letter_id: str) -> Response:
        await require_permission(caller, authorize, RETRY_DEAD_LETTERS)
        for store in stores:
            try:
                await store.retry(caller.principal.tenant, letter_id)
            except (UnknownDelivery, UnknownLetter):
                continue
            return Response(status_code=204)
        raise UnknownLetter

    @router.delete("/{letter_id}", name="drop_deadletter", status_code=204)
    async def drop(caller: Annotated[Caller, Depends(authenticate)], letter_id: str) -> Response:
        """Deletes it. It is neither sent nor started any more."""
        await require_permission(caller, authorize, DROP_DEAD_LETTERS)
        for store in stores:
            try:
                await store.drop_letter(caller.principal.tenant, letter_id)
            except (UnknownDelivery, UnknownLetter):
                continue
            return Response(status_code=204)
        raise UnknownLetter

    return router


def _dead_letter_document(letter: dict[str, Any]) -> dict[str, Any]:
    return {**letter, "created": to_rfc3339(letter["created"]), "updated": to_rfc3339(letter["updated"])}
