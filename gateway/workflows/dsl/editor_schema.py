"""The JSON Schema of documents for editors, made of the models that read them: what the DSL and `metadata.gateway` may say here."""

from functools import cache
from typing import Any, Final

from gateway.workflows.dsl.document import Document

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
TITLE: Final = "A workflow of Interlock: Open Workflow Specification DSL 1.0.3, with metadata.gateway"


@cache
def editor_schema() -> dict[str, Any]:
    """The schema of a whole document. It knows the shape of documents; the upload also checks how their parts fit each other."""
    made = Document.model_json_schema(by_alias=True)
    return {"$schema": DIALECT, **_closed(made), "title": TITLE}


def _closed(schema: Any) -> Any:
    """The schema in which objects whose keys have a pattern have no other keys."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(member) for name, member in schema.items()}
    return closed | {"additionalProperties": False} if isinstance(closed.get("patternProperties"), dict) else closed
