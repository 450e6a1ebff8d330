"""/api/memory: puts, finds, corrects and forgets facts, exports and erases those of a person, and shows what was said in a context."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from msgspec.structs import replace
from pydantic import AwareDatetime, BaseModel, Field, field_validator

from gateway.audit.decisions import READ_AUDIT
from gateway.calls.authorizer import RequireInPerson
from gateway.calls.revocation.kill_switch import AmbiguousPerson
from gateway.concurrency.first_item import read_first
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.state.memory.access import MemoryAccess
from gateway.state.memory.contexts import ContextAccess
from gateway.state.memory.documents import fact_document, stored_document
from gateway.state.memory.facts import PERSON, BadFact, Correction, Fact, FactChanged, NewFact
from gateway.state.memory.quarantine import CHANGE_MEMORY, MemoryQuarantines, SourceQuarantine
from gateway.state.memory.reading import FactPage, StoredFact
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant

Authenticate = Callable[[Request], Awaitable[Caller]]
BODY_MAX: Final = 64 << 10  # bytes; JSON escapes make a text up to six times as long
MYSELF: Final = "me"
NAMES_SHOWN: Final = 10  # of people with the same subject
# Everybody erases and exports what is remembered of themselves, without a permission; but no agent does it for them.
ERASE: Final = Act("eraseMemory", "Key", "memory", "memory:write:person", "memory")
EXPORT: Final = replace(READ_AUDIT, verb="export-memory")
ERASE_OTHERS: Final = replace(CHANGE_MEMORY, verb="erase")


class _ExpiringBody(ApiBody):
    expires: AwareDatetime | None = None

    @field_validator("expires", mode="before")
    @classmethod
    def _read_moment(cls, value: Any) -> Any:
        return datetime.fromisoformat(value) if isinstance(value, str) else value

    @property
    def expiry(self) -> int | None:
        """The expiry in microseconds since 1970."""
        return None if self.expires is None else int(self.expires.timestamp() * 1_000_000)


class FactBody(_ExpiringBody):
    text: str = Field(min_length=1)
    scope: str = PERSON
    sensitivity: int = 0


class CorrectionBody(_ExpiringBody):
    text: str | None = None
    sensitivity: int | None = None


class QuarantineBody(ApiBody):
    agent: str = Field(min_length=1, max_length=64)
    reason: str = Field("", max_length=1000)


class FactQuery(BaseModel):
    q: str = Field("", max_length=4096)
    scope: str = Field(PERSON, max_length=100)
    cursor: str = Field("", max_length=200)
    limit: int = Field(50, ge=1, le=200)


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """What the routes use."""

    access: MemoryAccess
    contexts: ContextAccess
    quarantines: MemoryQuarantines
    authorize: Callable[[Caller, Act], Awaitable[Grant]]
    check_in_person: RequireInPerson


def routes(parts: MemoryParts, authenticate: Authenticate) -> APIRouter:
    """Returns the routes. A fact that the caller may not know of is answered like one that does not exist."""
    router = APIRouter(prefix="/api/memory", tags=["memory"])
    _add_person_routes(router, parts, authenticate)
    _add_quarantine_routes(router, parts, authenticate)
    _add_fact_routes(router, parts.access, authenticate)
    return router


def _add_fact_routes(router: APIRouter, access: MemoryAccess, authenticate: Authenticate) -> None:
    @router.post("", name="put_fact", status_code=201, openapi_extra=describe_json_body(FactBody))
    async def put(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, FactBody, BODY_MAX)
        fact, is_new = await access.put(caller, body.scope, NewFact(body.text, body.sensitivity, body.expiry))
        return _fact_answer(caller, fact, 201 if is_new else 200)

    @router.get("", name="find_facts")
    async def find(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[FactQuery, Query()]) -> JSONResponse:
        facts, following = await access.find(caller, query.scope, FactPage(query.q, query.cursor, query.limit))
        return JSONResponse({"items": [_document(caller, fact) for fact in facts], "next": following})

    @router.get("/{fact_id}", name="show_fact")
    async def show(caller: Annotated[Caller, Depends(authenticate)], fact_id: str) -> JSONResponse:
        stored = await access.show(caller, fact_id)
        document = stored_document(stored, to_rfc3339, is_for_agent=bool(caller.delegation.path))
        return JSONResponse(document, headers={"etag": f'"{stored.fact.version}"'})

    @router.patch("/{fact_id}", name="correct_fact", openapi_extra=describe_json_body(CorrectionBody))
    async def correct(caller: Annotated[Caller, Depends(authenticate)], fact_id: str, request: Request) -> JSONResponse:
        body = await read_model(request, CorrectionBody, BODY_MAX)
        version = _version_wanted(list_header(request.scope, b"if-match"))
        change = Correction(body.text, body.sensitivity, body.expiry, version)
        return _fact_answer(caller, await access.correct(caller, fact_id, change), 200)

    @router.delete("/{fact_id}", name="forget_fact", status_code=204)
    async def forget(caller: Annotated[Caller, Depends(authenticate)], fact_id: str) -> Response:
        await access.forget(caller, fact_id)
        return Response(status_code=204)


def _add_person_routes(router: APIRouter, parts: MemoryParts, authenticate: Authenticate) -> None:
    access = parts.access

    @router.delete("", name="erase_memory")
    async def erase(caller: Annotated[Caller, Depends(authenticate)], person: Annotated[str, Query(max_length=2048)] = "") -> JSONResponse:
        await parts.check_in_person(caller, ERASE)
        owner, grant = await _find_owner(parts, caller, person, ERASE_OTHERS)
        return JSONResponse({"person": owner, "erased": await access.erase(caller, owner, grant)})

    @router.get("/export", name="export_memory")
    async def export(
        caller: Annotated[Caller, Depends(authenticate)], person: Annotated[str, Query(min_length=1, max_length=2048)] = MYSELF
    ) -> StreamingResponse:
        await parts.check_in_person(caller, EXPORT)
        owner, _ = await _find_owner(parts, caller, person, EXPORT)
        lines = await read_first(_lines(access.export(caller.principal.tenant, owner)))
        return StreamingResponse(lines, media_type="application/x-ndjson", headers={"cache-control": "no-store"})

    @router.get("/contexts/{context_id}", name="show_context")
    async def show_context(
        caller: Annotated[Caller, Depends(authenticate)],
        context_id: str,
        cursor: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=20)] = 10,
    ) -> JSONResponse:
        items, following = await parts.contexts.read(caller, context_id, cursor, limit)
        return JSONResponse({"items": [{**item, "created": to_rfc3339(item["created"])} for item in items], "next": following})


def _add_quarantine_routes(router: APIRouter, parts: MemoryParts, authenticate: Authenticate) -> None:
    """Adds the routes that hold back what an agent wrote. They need policy:write, as stopping the agent does."""

    @router.get("/quarantines", name="list_memory_quarantines")
    async def list_all(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        await require_permission(caller, parts.authorize, CHANGE_MEMORY)
        found = await parts.quarantines.list_all(caller.principal.tenant)
        return JSONResponse({"items": [_quarantine_document(each) for each in found], "next": None})

    @router.post("/quarantines", name="quarantine_memory", status_code=201, openapi_extra=describe_json_body(QuarantineBody))
    async def hold(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, QuarantineBody, BODY_MAX)
        await require_permission(caller, parts.authorize, CHANGE_MEMORY)
        if "\0" in body.reason:
            raise BadFact("reason", "must not contain NUL")
        facts = await parts.quarantines.hold(caller.principal.tenant, body.agent, caller.principal.owner_key, body.reason)
        return JSONResponse({"agent": body.agent, "quarantined": True, "facts": facts}, 201)

    @router.delete("/quarantines/{agent}", name="release_memory", status_code=204)
    async def release(caller: Annotated[Caller, Depends(authenticate)], agent: str) -> Response:
        await require_permission(caller, parts.authorize, CHANGE_MEMORY)
        await parts.quarantines.release(caller.principal.tenant, agent, caller.principal.owner_key)
        return Response(status_code=204)


def _document(caller: Caller, fact: Fact) -> dict[str, Any]:
    return fact_document(fact, to_rfc3339, is_for_agent=bool(caller.delegation.path))


def _fact_answer(caller: Caller, fact: Fact, status: int) -> JSONResponse:
    headers = {"etag": f'"{fact.version}"', "location": f"/api/memory/{fact.id}"}
    return JSONResponse(_document(caller, fact), status, headers)


def _version_wanted(if_match: str | None) -> int | None:
    """The version that If-Match names; None where it is absent or `*`. Raises FactChanged for one that no fact has."""
    if if_match is None or if_match.strip() == "*":
        return None
    tag = if_match.strip().strip('"')
    if not (tag.isascii() and tag.isdigit() and len(tag) < 19):
        raise FactChanged
    return int(tag)


async def _find_owner(parts: MemoryParts, caller: Caller, person: str, act: Act) -> tuple[str, Grant | None]:
    """The person (tenant|issuer|subject) that a request names, and for another one than the caller the grant of `act`.

    `person` is `me`, such a key, or a subject that one person of the tenant has of whom something is remembered.
    Raises BadFact, CallRefused and AmbiguousPerson.
    """
    mine = caller.principal.owner_key
    if person in (MYSELF, mine):
        return mine, None
    has_key = person.count("|") >= 2
    if not person or "\0" in person or (has_key and not person.startswith(f"{caller.principal.tenant}|")):
        raise BadFact("person", "must be me, a person's name, or tenant|issuer|subject of a person in your tenant")
    grant = await require_permission(caller, parts.authorize, act)
    if has_key:
        return person, grant
    found = await parts.access.find_people(caller.principal.tenant, person)
    if len(found) != 1:
        shown = ", ".join(found[:NAMES_SHOWN]) or "nothing is remembered of anybody with this name"
        raise AmbiguousPerson(f"name one person as tenant|issuer|subject: {shown}")
    return found[0], grant


async def _lines(exported: AsyncIterator[StoredFact]) -> AsyncIterator[bytes]:
    """One fact a line, as JSON."""
    async for stored in exported:
        document = {**stored_document(stored, to_rfc3339, is_for_agent=False), "quarantined": stored.is_quarantined}
        yield msgspec.json.encode(document) + b"\n"


def _quarantine_document(held: SourceQuarantine) -> dict[str, Any]:
    return {"agent": held.agent, "by": held.author, "reason": held.reason, "at": to_rfc3339(held.at), "facts": held.facts}
