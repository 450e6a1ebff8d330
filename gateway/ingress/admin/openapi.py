"""The OpenAPI 3.1 document of the gateway's HTTP interface: bodies, security of each operation, and errors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.models import HTTPBearer
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from gateway.ingress.http.route_descriptions import SCHEMA_REF, STRING_SCHEMA

HTTP_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})
BEARER: Final = HTTPBearer(
    bearerFormat="JWT", description="A token of an identity provider that the gateway trusts, or one that the gateway issued to an agent."
)
SECURITY_SCHEMES: Final[Mapping[str, Mapping[str, Any]]] = {
    "dpop": {
        "type": "http",
        "scheme": "dpop",
        "description": "A token bound to a key, with a proof in the header DPoP (RFC 9449).",
    },
    "ticket": {
        "type": "apiKey",
        "in": "header",
        "name": "Interlock-Ticket",
        "description": "A ticket of an agent, which also authenticates as a client.",
    },
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "client_id and secret of an agent; or private_key_jwt in the form.",
    },
}
BEARER_ALTERNATIVES: Final[tuple[dict[str, list[str]], ...]] = (
    {"dpop": []},
    {"ticket": [], "client": []},
)  # alternatives to a bearer token
PROBLEM_SCHEMA: Final[Mapping[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457. `reason_id` is stable; docs/errors.md lists its values.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "reason_id"],
    "properties": {
        **dict.fromkeys(("type", "title", "detail", "reason_id", "decision_id", "task_id", "trace_id"), STRING_SCHEMA),
        "status": {"type": "integer"},
        "decision": {"type": "object", "description": "Why the request was refused, as GET /api/decisions/{id} returns it."},
        "approval": {"type": "object", "description": "The approval that the request waits for."},
    },
}
_ERROR_RESPONSE: Final = {
    "description": "What went wrong.",
    "content": {"application/problem+json": {"schema": {"$ref": SCHEMA_REF.format(model="Problem")}}},
}


def build_openapi_document(app: FastAPI, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Builds the document. A route that depends on TokenGuard gets the alternatives to a bearer token."""
    document = get_openapi(title=app.title, version=app.version, routes=routes, description=app.description)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = dict(PROBLEM_SCHEMA)
    components.setdefault("securitySchemes", {}).update(SECURITY_SCHEMES)
    for operation in _operations(document):
        _move_schemas_to_components(operation, schemas)
        security = operation.setdefault("security", [])
        if {"bearer": []} in security:
            security.extend(BEARER_ALTERNATIVES)
        operation["responses"].pop("422", None)  # the gateway reports it as a Problem
        operation["responses"]["default"] = _ERROR_RESPONSE
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from (operation for method, operation in item.items() if method in HTTP_METHODS)


def _move_schemas_to_components(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Moves the schema of a body, and the schemas it refers to, to the components."""
    for media in operation.get("requestBody", {}).get("content", {}).values():
        schema = media["schema"]
        schemas.update(schema.pop("$defs", {}))
        if name := schema.get("title"):
            schemas[name] = schema
            media["schema"] = {"$ref": SCHEMA_REF.format(model=name)}
