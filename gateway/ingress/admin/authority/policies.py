"""/api/policies/what-if: rules on past decisions again, with the current policies or with policies of the request."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from msgspec.structs import replace
from pydantic import Field

from gateway.audit.decisions import READ_AUDIT
from gateway.audit.what_if import REPLAYED_MAX, WRITE_POLICY, DecisionFilter, read_past_decisions, replay_decisions
from gateway.ingress.admin.authority.evaluations import AccessEvaluator, BadEvaluation, as_hypothetical, parse_evaluation
from gateway.ingress.admin.bodies import ApiBody, read_model, read_optional_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import BadRequest
from gateway.storage.database import Database
from policies.callers import Caller
from policies.cedar.engine import BUILT_IN, BadPolicy, PolicyEngine, RuleSet, SchemaOf, compile_rules, load_rules
from policies.cedar.files.folder import LINKS, read_operator_files
from policies.delegation.rulings import Act
from policies.what_if.replay import Replay

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]
READ_POLICIES = replace(READ_AUDIT, verb="read-policies")
EVALUATED = ("subject", "action", "resource", "context")


class WhatIfBody(ApiBody):
    """`policies` maps file names (*.cedar and links.yaml) to their texts; without it the policy folder is used as it is now."""

    policies: dict[str, str] | None = Field(None, max_length=1000)
    beside_current: bool = False  # the folder's files count too, except those that `policies` has under the same name
    decisions: list[str] = Field([], max_length=REPLAYED_MAX)
    only: Literal["denied", "allowed", "all"] = "denied"
    limit: int = Field(100, ge=1, le=REPLAYED_MAX)
    cursor: str = Field("", max_length=200)
    arguments: dict[str, dict[str, Any]] = Field({}, max_length=REPLAYED_MAX)


class DraftEvaluationBody(ApiBody):
    """An access evaluation (AuthZEN 1.0 s6), and the draft by which it is ruled on beside the policies in force."""

    subject: dict[str, Any]
    action: dict[str, Any]
    resource: dict[str, Any]
    context: dict[str, Any] = Field({})
    policies: dict[str, str] = Field(max_length=1000)
    beside_current: bool = False


class WhatIfPolicies:
    """Builds policy engines from the roles of the settings and the policy folder."""

    def __init__(self, roles: Mapping[str, Sequence[str]], folder: str, schema_of: SchemaOf) -> None:
        self._roles = roles
        self._folder = Path(folder) if folder else None
        self._schema_of = schema_of

    def build_engine(self, sent_texts: Mapping[str, str] | None, *, beside_current: bool = False) -> PolicyEngine:
        """Returns an engine with the given policies, or with those of the folder. Raises BadRequest.

        `beside_current`: the files of the folder count too, except those of the same name.
        """
        try:
            if sent_texts is not None and beside_current and self._folder is not None:
                sent_texts = {**dict(read_operator_files(self._folder)), **sent_texts}
            return PolicyEngine(self._roles, rules=self._load_rules(sent_texts), schema_of=self._schema_of)
        except BadPolicy as error:
            raise BadRequest("policies", f"can't be used: {error}") from error

    def _load_rules(self, sent_texts: Mapping[str, str] | None) -> RuleSet:
        if sent_texts is None:
            return load_rules(self._roles, self._folder)
        for name in sent_texts:
            if not (name.endswith(".cedar") or name == LINKS):
                raise BadRequest("policies", f"are files *.cedar and {LINKS}")
        return compile_rules(self._roles, sorted(sent_texts.items()), (), None)


@dataclass(frozen=True, slots=True)
class PolicyParts:
    """What the routes need. `engine` returns the policies in force."""

    database: Database
    policies: WhatIfPolicies
    evaluator: AccessEvaluator
    could_allow: Callable[[Caller, Act], bool]
    engine: Callable[[], PolicyEngine]


def routes(parts: PolicyParts, authenticate: Authenticate, authorize: Authorize, max_body: int) -> APIRouter:
    """Returns the routes. What rules by other policies needs policy:write, is recorded in the audit and changes nothing."""
    database, policies, evaluator, could_allow, engine_now = (
        parts.database,
        parts.policies,
        parts.evaluator,
        parts.could_allow,
        parts.engine,
    )
    router = APIRouter(prefix="/api/policies", tags=["policies"])

    @router.post("/what-if", name="policy_what_if", openapi_extra=describe_json_body(WhatIfBody, required=False))
    async def what_if(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_optional_model(request, WhatIfBody, max_body) or WhatIfBody()
        await require_permission(caller, authorize, WRITE_POLICY)
        which = DecisionFilter(body.decisions, body.only, body.limit, body.cursor, body.arguments)
        engine = await asyncio.to_thread(policies.build_engine, body.policies, beside_current=body.beside_current)
        records, following = await database.read(lambda connection: read_past_decisions(connection, caller.principal.tenant, which))
        items = await asyncio.to_thread(replay_decisions, Replay(engine), records, which)
        changed, unknown = (sum(one["changed"] is outcome for one in items) for outcome in (True, None))
        summary = {"replayed": len(items), "changed": changed, "unknown": unknown}
        return JSONResponse({"policy_version": engine.version, "summary": summary, "items": items, "next": following})

    @router.post("/evaluate", name="evaluate_draft", openapi_extra=describe_json_body(DraftEvaluationBody))
    async def evaluate(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        await require_permission(caller, authorize, WRITE_POLICY)
        body = await read_model(request, DraftEvaluationBody, max_body)
        try:
            evaluation = as_hypothetical(caller, parse_evaluation(caller, body.model_dump(include=set(EVALUATED))))
        except BadEvaluation as error:
            raise BadRequest("body", str(error)) from error
        draft = await asyncio.to_thread(policies.build_engine, body.policies, beside_current=body.beside_current)
        now, then = await evaluator.evaluate(caller, evaluation), await evaluator.evaluate(caller, evaluation, draft)
        changed = now["decision"] != then["decision"] or now["context"].get("reason_id") != then["context"].get("reason_id")
        return JSONResponse({"policy_version": draft.version, "now": now, "draft": then, "changed": changed})

    @router.get("", name="list_policies")
    async def list_policies(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        """The policies in force: their @ids, and for those of the folder the file and the line."""
        await require_permission(caller, authorize, READ_POLICIES if could_allow(caller, READ_POLICIES) else WRITE_POLICY)
        return JSONResponse({"policy_version": engine_now().version, "items": _policy_documents(engine_now().rules), "next": None})

    return router


def _policy_documents(rules: RuleSet) -> list[dict[str, Any]]:
    places = {f"operator/{key}": place for key, place in rules.operator_places.items()}
    found = ((name, *places.get(key, (None, None)), key) for key, name in sorted(rules.id_by_key.items()))
    return [{"id": name, "file": file, "line": line, "is_built_in": key.startswith(BUILT_IN)} for name, file, line, key in found]
