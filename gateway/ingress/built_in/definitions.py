"""The form of a tool of a built-in server in tools/list."""

from typing import Any, Final

READS: Final = {"readOnlyHint": True, "openWorldHint": False}


def build_tool(name: str, description: str, properties: dict[str, Any], required: list[str], annotations: dict[str, Any]) -> dict[str, Any]:
    """Builds an entry of tools/list, whose arguments are exactly `properties`."""
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": name, "description": description, "inputSchema": schema, "annotations": annotations}
