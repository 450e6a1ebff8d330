"""What a route of the framework takes, for the description of the interface: routes that read their bodies themselves say so."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

REF: Final = "#/components/schemas/{model}"
TEXT: Final[Mapping[str, str]] = {"type": "string"}


def takes(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads a JSON body itself."""
    schema = model.model_json_schema(ref_template=REF)
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def takes_form(needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The same of a form, from an agent that authenticates as an OAuth client."""
    schema = {"type": "object", "required": list(needed), "properties": dict.fromkeys((*needed, *optional), TEXT)}
    body = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}
    return {"requestBody": body, "security": [{"client": []}]}


def takes_object(what: str) -> dict[str, Any]:
    """The same of a JSON body that another specification describes."""
    schema = {"type": "object", "description": what}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
