"""/api/declarations: what operators have set of each entry of the registry, as `interlock apply` declares it. It has no secrets."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from adapters.openapi.tools import OPENAPI_KIND
from adapters.tool_servers import STDIO_PREFIX
from gateway.ingress.admin.registry.access import RegistryAccess, act_of_registry_change
from gateway.registration.stored_secrets import mask_secrets
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from registry.cards.card import WORKFLOW_KIND, Family, Registration
from registry.cards.effects import effect_documents
from registry.cards.prices import format_price, price_texts
from registry.seeds import DEFAULT_TENANT
from registry.store import Registry

Authenticate = Callable[[Request], Awaitable[Caller]]
ReadWorkflow = Callable[[Registration], Awaitable[Mapping[str, Any]]]
KINDS: Final = {Family.AGENT: "Agent", Family.SERVER: "Server", Family.VIRTUAL: "VirtualServer"}
WORKFLOW: Final = "Workflow"
OWN_AUTH: Final[Mapping[str, Any]] = {"auth": {}}  # what the gateway sets by itself for a server that asks for OAuth
NAMES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class DeclarationParts:
    """What the route reads. `is_configured`: whether interlock.yaml or the folder of workflows has a name, for the default tenant.

    `read_workflow` returns a document and its pause.
    """

    registry: Registry
    is_configured: Callable[[str], bool]
    read_workflow: ReadWorkflow

    async def declare(self, entry: Registration) -> dict[str, Any]:
        """Returns an entry as a declaration, with its version, its label, and what an operator has to know of it."""
        return {
            "kind": WORKFLOW if entry.kind == WORKFLOW_KIND else KINDS[entry.family],
            "name": entry.name,
            "version": to_rfc3339(entry.updated),
            "label": entry.label,
            "status": entry.status.value,
            "configured": entry.tenant == DEFAULT_TENANT and self.is_configured(entry.name),
            "spec": await self._spec_of(entry),
        }

    async def _spec_of(self, entry: Registration) -> dict[str, Any]:
        if entry.kind == WORKFLOW_KIND:
            return dict(await self.read_workflow(entry))
        if entry.selection is not None:
            return {"overrides": {}, **entry.selection.to_document()}
        if entry.family is Family.AGENT:
            return agent_spec(entry, self.registry.jwks_of_client(entry.client_id))
        return server_spec(entry)


def agent_spec(entry: Registration, jwks: str) -> dict[str, Any]:
    """Returns the members of an agent as POST /api/agents takes them; `card` where it was registered by its card alone."""
    source = str(entry.facts.get("source", ""))
    by_card = not source and entry.card is not None
    return {
        "kind": entry.kind,
        "url": "" if by_card else source or entry.url,
        "card": entry.card.document if by_card and entry.card is not None else None,
        "delegation": entry.delegation,
        "trusted_keys": [dict(key) for key in entry.trusted_keys],
        "rank": entry.rank,
        "jwks": json.loads(jwks) if jwks else None,
        "contracts": dict(entry.contracts),
        "context": entry.context,
        "endpoints": [{"url": each.url, "weight": each.weight} for each in entry.endpoints],
        "price": "" if (price := entry.price_of("")) is None else format_price(price),
        "memory": entry.memory,
        **_common_spec(entry),
    }


def server_spec(entry: Registration) -> dict[str, Any]:
    """Returns the members of a server as POST /api/servers takes them; `openapi` is null where the document itself was sent."""
    source = str(entry.facts.get("source", ""))
    return {
        "url": entry.url,
        **({"openapi": source or None} if entry.kind == OPENAPI_KIND else {"openapi": ""}),
        "command": entry.url == STDIO_PREFIX,
        "sensitivity": entry.sensitivity,
        "sensitivities": dict(entry.sensitivities),
        "model_free": list(entry.model_free),
        "prices": price_texts(entry.prices),
        **_common_spec(entry),
    }


def _common_spec(entry: Registration) -> dict[str, Any]:
    upstream = {} if entry.upstream == OWN_AUTH else mask_secrets(entry.upstream)
    terms = {"clearance": entry.clearance, "effects": effect_documents(entry.effects)}
    return {"ceiling": list(entry.ceiling), "upstream": upstream, **terms}


def routes(access: RegistryAccess, parts: DeclarationParts, authenticate: Authenticate) -> APIRouter:
    """Returns the route, which needs registry:write."""
    router = APIRouter(prefix="/api/declarations", tags=["configuration"])

    @router.get("", name="list_declarations")
    async def list_declarations(
        caller: Annotated[Caller, Depends(authenticate)],
        cursor: Annotated[str, Query(max_length=100)] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        *,
        name: Annotated[list[str] | None, Query(max_length=NAMES_MAX)] = None,
        label: str | None = None,
    ) -> JSONResponse:
        """Agents, servers, virtual servers and workflows as declarations, in the order of their names.

        `name`: these only. `label`: only those that an apply with this label has created.
        """
        await access.require_grant(caller, act_of_registry_change("export", Family.AGENT, ""))
        named = None if name is None else frozenset(name)
        found = [
            entry
            for entry in parts.registry.list(caller.principal.tenant)
            if entry.client_id and entry.name > cursor and (named is None or entry.name in named) and label in (None, entry.label)
        ]
        items = [await parts.declare(entry) for entry in found[:limit]]
        return JSONResponse({"items": items, "next": items[-1]["name"] if len(found) > limit else None})

    return router
