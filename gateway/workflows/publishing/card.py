"""The card of a workflow: what its document says about itself, as an A2A agent with one skill."""

from typing import Any, Final

from gateway.tasks.contracts.skills import SKILL_FORMS_EXTENSION
from gateway.workflows.dsl.constructs import Schema
from gateway.workflows.dsl.document import Document

SKILL: Final = "run"
JSON: Final = "application/json"


def card_of(document: Document, url: str) -> dict[str, Any]:
    """The card in the form of A2A 1.0."""
    about = document.document
    extras = about.metadata.gateway
    title, summary = about.title or about.name, about.summary or f"The workflow {about.namespace}/{about.name}."
    schema = object_schema(document.input.schema_)
    forms = {"skills": {SKILL: {"inputSchema": schema}}}
    return {
        "name": title,
        "description": summary,
        "version": about.version,
        "supportedInterfaces": [{"url": url, "protocolBinding": "workflow", "protocolVersion": "1.0"}],
        "capabilities": {
            "streaming": True,
            **({"extensions": [{"uri": SKILL_FORMS_EXTENSION, "params": forms}]} if schema is not None else {}),
        },
        "defaultInputModes": [JSON],
        "defaultOutputModes": [JSON],
        "skills": [
            {
                "id": SKILL,
                "name": title,
                "description": summary,
                "tags": [*extras.tags, "workflow"],
                **({"examples": list(extras.examples)} if extras.examples else {}),
            }
        ],
    }


def object_schema(schema: Schema | None) -> dict[str, Any] | None:
    """A schema that is an object; `true` and `false` state no contract that a client could read."""
    return schema.document if schema is not None and isinstance(schema.document, dict) else None


def contracts_of(document: Document) -> dict[str, dict[str, Any]]:
    """The contract of the workflow's skill (docs/handoff.md)."""
    sides = {"input": object_schema(document.input.schema_), "output": object_schema(document.output.schema_)}
    said = {side: schema for side, schema in sides.items() if schema is not None}
    return {"": said} if said else {}
