"""/api/policies/what-if: rules on past decisions again, with the current policies or with policies of the request."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from gateway.audit.what_if import REPLAYED_MAX, DecisionFilter, read_past_decisions, replay_decisions
from gateway.ingress.admin.bodies import ApiBody, read_optional_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import BadRequest
from gateway.storage.database import Database
from policies.callers import Caller
from policies.cedar.engine import BadPolicy, PolicyEngine, RuleSet, SchemaOf, compile_rules, load_rules
from policies.cedar.files.folder import LINKS
from policies.delegation.rulings import Act
from policies.what_if.replay import Replay

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]
WRITE_POLICY = Act("writePolicy", "Key", "policies", "policy:write", "policies")


class WhatIfBody(ApiBody):
    """`policies` maps file names (*.cedar and links.yaml) to their texts; without it the policy folder is used as it is now."""

    policies: dict[str, str] | None = Field(None, max_length=1000)
    decisions: list[str] = Field([], max_length=REPLAYED_MAX)
    only: Literal["denied", "allowed", "all"] = "denied"
    limit: int = Field(100, ge=1, le=REPLAYED_MAX)
    arguments: dict[str, dict[str, Any]] = Field({}, max_length=REPLAYED_MAX)


class WhatIfPolicies:
    """Builds policy engines from the roles of the settings and the policy folder."""

    def __init__(self, roles: Mapping[str, Sequence[str]], folder: str, schema_of: SchemaOf) -> None:
        self._roles = roles
        self._folder = Path(folder) if folder else None
        self._schema_of = schema_of

    def build_engine(self, sent_texts: Mapping[str, str] | None) -> PolicyEngine:
        """Returns an engine with the given policies, or with those of the folder. Raises BadRequest."""
        try:
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


def routes(database: Database, policies: WhatIfPolicies, authenticate: Authenticate, authorize: Authorize, max_body: int) -> APIRouter:
    """Returns the route, which needs policy:write. The request is recorded in the audit and changes nothing."""
    router = APIRouter(prefix="/api/policies", tags=["policies"])

    @router.post("/what-if", name="policy_what_if", openapi_extra=describe_json_body(WhatIfBody, required=False))
    async def what_if(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_optional_model(request, WhatIfBody, max_body) or WhatIfBody()
        await require_permission(caller, authorize, WRITE_POLICY)
        which = DecisionFilter(body.decisions, body.only, body.limit, body.arguments)
        engine = await asyncio.to_thread(policies.build_engine, body.policies)
        records = await database.read(lambda connection: read_past_decisions(connection, caller.principal.tenant, which))
        items = await asyncio.to_thread(replay_decisions, Replay(engine), records, which)
        changed, unknown = (sum(one["changed"] is outcome for one in items) for outcome in (True, None))
        summary = {"replayed": len(items), "changed": changed, "unknown": unknown}
        return JSONResponse({"policy_version": engine.version, "summary": summary, "items": items})

    return router
