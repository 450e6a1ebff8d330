"""/access/v1: access evaluations of AuthZEN 1.0.

Everyone may evaluate their own access. Callers who may read the audit or change policies may evaluate other people's.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.audit.decisions import READ_AUDIT
from gateway.audit.what_if import WRITE_POLICY
from gateway.ingress.admin.api import request_id_header
from gateway.ingress.admin.authority.evaluations import (
    AccessEvaluation,
    AccessEvaluator,
    BadEvaluation,
    parse_evaluation,
    refused_evaluation,
)
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.asgi import check_json_content_type, read_body
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.http.route_descriptions import describe_object_body
from policies.callers import Caller
from policies.delegation.rulings import Act
from policies.strict_json import LARGE, parse, run_off_loop

Authenticate = Callable[[Request], Awaitable[Caller]]
CouldAllow = Callable[[Caller, Act], bool]
Authorize = Callable[[Caller, Act], Awaitable[object]]
EVALUATIONS_MAX = 100
DEFAULTED_MEMBERS = ("subject", "action", "resource", "context")
STOP_DECISIONS: Mapping[str, bool | None] = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}
_CACHE_HEADERS = {"cache-control": "public, max-age=300", "access-control-allow-origin": "*"}


class EvaluationPermission:
    """Permits hypothetical evaluations. `authorize` records the ruling and raises CallRefused unless it is a Grant."""

    def __init__(self, could_allow: CouldAllow, authorize: Authorize) -> None:
        self._could_allow = could_allow
        self._authorize = authorize

    async def check_may_ask(self, caller: Caller, is_hypothetical: bool) -> None:
        """Raises CallRefused for a hypothetical evaluation without audit:read or policy:write."""
        if is_hypothetical:
            writes = not self._could_allow(caller, READ_AUDIT) and self._could_allow(caller, WRITE_POLICY)
            await require_permission(caller, self._authorize, WRITE_POLICY if writes else READ_AUDIT)


def metadata_routes(public_url: str) -> APIRouter:
    """Returns the route of the metadata (AuthZEN 1.0 s9)."""
    router = APIRouter(tags=["access"])
    places = {
        "policy_decision_point": public_url,
        "access_evaluation_endpoint": f"{public_url}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{public_url}/access/v1/evaluations",
    }

    @router.get("/.well-known/authzen-configuration", name="authzen_configuration")
    async def configuration() -> JSONResponse:
        return JSONResponse(places, headers=_CACHE_HEADERS)

    return router


def routes(evaluator: AccessEvaluator, permission: EvaluationPermission, authenticate: Authenticate, max_body: int) -> APIRouter:
    """Returns the evaluation routes (AuthZEN 1.0 s6 and s7)."""
    router = APIRouter(prefix="/access/v1", tags=["access"])

    async def evaluate_one(caller: Caller, document: Mapping[str, Any]) -> dict[str, Any]:
        try:
            evaluation = parse_evaluation(caller, document)
        except BadEvaluation as error:
            raise InvalidRequest(str(error)) from error
        await permission.check_may_ask(caller, evaluation.is_hypothetical)
        return await evaluator.evaluate(caller, evaluation)

    @router.post(
        "/evaluation", name="access_evaluation", openapi_extra=describe_object_body("An access evaluation request (AuthZEN 1.0 s6).")
    )
    async def evaluation(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        return respond_with_request_id(request, await evaluate_one(caller, await _read_document(request, max_body)))

    @router.post(
        "/evaluations", name="access_evaluations", openapi_extra=describe_object_body("An access evaluations request (AuthZEN 1.0 s7).")
    )
    async def evaluate_several(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        document = await _read_document(request, max_body)
        evaluations = document.get("evaluations", [])
        if not evaluations:
            return respond_with_request_id(request, await evaluate_one(caller, document))
        stop, questions = _stop_decision(document), _parse_evaluations(caller, document, evaluations)
        await permission.check_may_ask(
            caller, any(isinstance(evaluation, AccessEvaluation) and evaluation.is_hypothetical for evaluation in questions)
        )
        answers: list[dict[str, Any]] = []
        for evaluation in questions:
            answers.append(
                await evaluator.evaluate(caller, evaluation)
                if isinstance(evaluation, AccessEvaluation)
                else refused_evaluation(400, evaluation)
            )
            if answers[-1]["decision"] is stop:
                break
        return respond_with_request_id(request, {"evaluations": answers})

    return router


def respond_with_request_id(request: Request, answer: Mapping[str, Any]) -> JSONResponse:
    """Returns the response with the caller's request id (AuthZEN 1.0 s10.1.3). api.py adds it to errors."""
    return JSONResponse(answer, headers=request_id_header(request))


async def _read_document(request: Request, max_body: int) -> Mapping[str, Any]:
    """Reads the body; unknown members are ignored, as AuthZEN demands. Raises BodyTooLarge, BadJson and InvalidRequest."""
    check_json_content_type(request.scope)
    raw = await read_body(request.scope, request.receive, max_body)
    document = parse(raw) if len(raw) <= LARGE else await run_off_loop(parse, raw)
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return document


def _stop_decision(document: Mapping[str, Any]) -> bool | None:
    """Returns the decision that ends the evaluations, or None (AuthZEN 1.0 s7.1.2.1). Raises InvalidRequest."""
    options = document.get("options", {})
    semantic = options.get("evaluations_semantic", "execute_all") if isinstance(options, dict) else None
    if not isinstance(semantic, str) or semantic not in STOP_DECISIONS:
        raise InvalidRequest(f"options.evaluations_semantic must be one of {', '.join(STOP_DECISIONS)}")
    return STOP_DECISIONS[semantic]


def _parse_evaluations(caller: Caller, document: Mapping[str, Any], items: Any) -> list[AccessEvaluation | str]:
    """Returns each evaluation merged with the defaults, or the error message of one that is not valid. Raises InvalidRequest."""
    if not isinstance(items, list) or len(items) > EVALUATIONS_MAX:
        raise InvalidRequest(f"evaluations must be a list of at most {EVALUATIONS_MAX}")
    defaults = {name: document[name] for name in DEFAULTED_MEMBERS if name in document}
    read: list[AccessEvaluation | str] = []
    for each in items:
        if not isinstance(each, dict):
            raise InvalidRequest("an evaluation must be an object")
        try:
            read.append(parse_evaluation(caller, {**defaults, **each}))
        except BadEvaluation as error:
            read.append(str(error))
    return read
