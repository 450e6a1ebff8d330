"""/access/v1: AuthZEN 1.0, what would be ruled. People ask for themselves; those who read the audit or change policies for others too."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.admin.api import echoed
from gateway.ingress.admin.authority.evaluations import BadEvaluation, Evaluation, Evaluations, asked_of, refused
from gateway.ingress.admin.authority.policies import WRITE_POLICY
from gateway.ingress.admin.demand import demand
from gateway.ingress.http.asgi import check_json, read_body
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.http.route_descriptions import takes_object
from policies.callers import Caller
from policies.delegation.rulings import Act
from policies.strict_json import LARGE, off_loop, parse

Admitted = Callable[[Request], Awaitable[Caller]]
May = Callable[[Caller, Act], bool]
Allowed = Callable[[Caller, Act], Awaitable[object]]
AT_ONCE = 100
DEFAULTS = ("subject", "action", "resource", "context")
STOPS: Mapping[str, bool | None] = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}
_CACHED = {"cache-control": "public, max-age=300", "access-control-allow-origin": "*"}


class Askers:
    """Lets questions about others through for those who may ask them: `allowed` keeps that they did, and raises Refused."""

    def __init__(self, may: May, allowed: Allowed) -> None:
        self._may = may
        self._allowed = allowed

    async def admit(self, caller: Caller, supposed: bool) -> None:
        """Raises Refused."""
        if supposed:
            writes = not self._may(caller, READ_AUDIT) and self._may(caller, WRITE_POLICY)
            await demand(caller, self._allowed, WRITE_POLICY if writes else READ_AUDIT)


def metadata_routes(public_url: str) -> APIRouter:
    """AuthZEN 1.0 s9."""
    router = APIRouter(tags=["access"])
    places = {
        "policy_decision_point": public_url,
        "access_evaluation_endpoint": f"{public_url}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{public_url}/access/v1/evaluations",
    }

    @router.get("/.well-known/authzen-configuration", name="authzen_configuration")
    async def configuration() -> JSONResponse:
        return JSONResponse(places, headers=_CACHED)

    return router


def routes(evaluations: Evaluations, askers: Askers, admitted: Admitted, max_body: int) -> APIRouter:
    """AuthZEN 1.0 s6 and s7."""
    router = APIRouter(prefix="/access/v1", tags=["access"])

    async def one(caller: Caller, document: Mapping[str, Any]) -> dict[str, Any]:
        try:
            asked = asked_of(caller, document)
        except BadEvaluation as error:
            raise InvalidRequest(str(error)) from error
        await askers.admit(caller, asked.supposed)
        return await evaluations.evaluate(caller, asked)

    @router.post("/evaluation", name="access_evaluation", openapi_extra=takes_object("An access evaluation request (AuthZEN 1.0 s6)."))
    async def evaluation(caller: Annotated[Caller, Depends(admitted)], request: Request) -> JSONResponse:
        return told(request, await one(caller, await _document(request, max_body)))

    @router.post("/evaluations", name="access_evaluations", openapi_extra=takes_object("An access evaluations request (AuthZEN 1.0 s7)."))
    async def several(caller: Annotated[Caller, Depends(admitted)], request: Request) -> JSONResponse:
        document = await _document(request, max_body)
        given = document.get("evaluations", [])
        if not given:
            return told(request, await one(caller, document))
        stop, questions = _stop(document), _questions(caller, document, given)
        await askers.admit(caller, any(isinstance(asked, Evaluation) and asked.supposed for asked in questions))
        answers: list[dict[str, Any]] = []
        for asked in questions:
            answers.append(await evaluations.evaluate(caller, asked) if isinstance(asked, Evaluation) else refused(400, asked))
            if answers[-1]["decision"] is stop:
                break
        return told(request, {"evaluations": answers})

    return router


def told(request: Request, answer: Mapping[str, Any]) -> JSONResponse:
    """With the caller's own id of the request (AuthZEN 1.0 s10.1.3); so have errors (api.py)."""
    return JSONResponse(answer, headers=echoed(request))


async def _document(request: Request, max_body: int) -> Mapping[str, Any]:
    """Members that nobody knows are overlooked, as the specification wants. Raises BodyTooLarge, BadJson and InvalidRequest."""
    check_json(request.scope)
    raw = await read_body(request.scope, request.receive, max_body)
    document = parse(raw) if len(raw) <= LARGE else await off_loop(parse, raw)
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return document


def _stop(document: Mapping[str, Any]) -> bool | None:
    """The decision that ends the round (AuthZEN 1.0 s7.1.2.1)."""
    options = document.get("options", {})
    semantic = options.get("evaluations_semantic", "execute_all") if isinstance(options, dict) else None
    if not isinstance(semantic, str) or semantic not in STOPS:
        raise InvalidRequest(f"options.evaluations_semantic is one of {', '.join(STOPS)}")
    return STOPS[semantic]


def _questions(caller: Caller, document: Mapping[str, Any], given: Any) -> list[Evaluation | str]:
    """Each with the defaults of the whole; of one that can't be put, why."""
    if not isinstance(given, list) or len(given) > AT_ONCE:
        raise InvalidRequest(f"evaluations is a list of at most {AT_ONCE}")
    defaults = {name: document[name] for name in DEFAULTS if name in document}
    read: list[Evaluation | str] = []
    for each in given:
        if not isinstance(each, dict):
            raise InvalidRequest("an evaluation is an object")
        try:
            read.append(asked_of(caller, {**defaults, **each}))
        except BadEvaluation as error:
            read.append(str(error))
    return read
