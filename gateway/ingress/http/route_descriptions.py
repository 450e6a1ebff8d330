"""OpenAPI descriptions of the bodies of routes that read their bodies themselves."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel

SCHEMA_REF: Final = "#/components/schemas/{model}"
STRING_SCHEMA: Final[Mapping[str, str]] = {"type": "string"}


def describe_json_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Returns `openapi_extra` for a route that reads a JSON body."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": _schema_of(model)}}}}


@cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template=SCHEMA_REF)


def describe_form(required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns `openapi_extra` for a route that reads a form of an agent, which authenticates as an OAuth client."""
    schema = {"type": "object", "required": list(required), "properties": dict.fromkeys((*required, *optional), STRING_SCHEMA)}
    body = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}
    return {"requestBody": body, "security": [{"client": []}]}


def describe_object_body(description: str) -> dict[str, Any]:
    """Returns `openapi_extra` for a route whose JSON body another specification describes."""
    schema = {"type": "object", "description": description}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
