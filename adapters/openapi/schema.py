"""Converts schemas of an OpenAPI document to JSON Schema 2020-12. A keyword decides whether its value is a schema, several, or data."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

import msgspec

DEPTH_MAX: Final = 64
COMPONENTS: Final = "#/components/schemas/"
SCHEMA_KEYWORDS: Final = frozenset(  # keywords whose value is a schema
    {"items", "additionalItems", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"}
    | {"unevaluatedItems", "unevaluatedProperties", "contentSchema"}
)
SCHEMA_LIST_KEYWORDS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})  # a list of schemas
SCHEMA_MAP_KEYWORDS: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)  # schemas by arbitrary names
OPENAPI_ONLY: Final = frozenset({"nullable", "discriminator", "xml", "externalDocs", "example"})
EXCLUSIVE_LIMITS: Final = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
CountSteps = Callable[[int], None]


class UnusableSchema(Exception):
    """A schema can't be shown to clients: a reference leads out of the components, or it is nested too deeply. The text says which."""


class SchemaReader:
    """Rewrites the schemas of one document. `resolve` resolves a reference; `count_steps` raises after too many.

    `siblings`: keywords beside `$ref` are kept, as in OpenAPI 3.1; 3.0 ignores them.
    """

    def __init__(self, resolve: Callable[[str], Any], count_steps: CountSteps, siblings: bool) -> None:
        self._resolve = resolve
        self._count_steps = count_steps
        self._siblings = siblings
        self._components: dict[str, tuple[Any, list[str], int]] = {}  # cached results

    def rewrite(self, schema: Any) -> tuple[Any, list[str], int]:
        """The rewritten schema, the names of the components that it references, and its size in bytes. Raises UnusableSchema."""
        wanted: dict[str, None] = {}
        made = self._rewrite_schema(schema, wanted, 0)
        return made, list(wanted), len(msgspec.json.encode(made))

    def rewrite_component(self, name: str) -> tuple[Any, list[str], int]:
        """Rewrites one schema under `#/components/schemas`, with the results of `rewrite`. Raises UnusableSchema."""
        self._count_steps(1)
        if name not in self._components:
            self._components[name] = self.rewrite(self._resolve(COMPONENTS + name))
        return self._components[name]

    def _rewrite_schema(self, node: Any, component_names: dict[str, None], depth: int) -> Any:
        """Rewrites a schema, and adds the names of referenced components to `component_names`."""
        self._check_depth(depth)
        if isinstance(node, list):  # `items` of older drafts
            return [self._rewrite_schema(each, component_names, depth + 1) for each in node]
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return _to_2020_12(
                {key: self._rewrite_value(key, value, component_names, depth) for key, value in node.items() if _is_kept(key)}, node
            )
        if not reference.startswith(COMPONENTS):
            raise UnusableSchema("a schema has a reference that is not a component of the document")
        self._count_steps(len(reference) // 64)
        name = reference.removeprefix(COMPONENTS)
        component_names[name] = None
        siblings = {key: value for key, value in node.items() if key != "$ref"} if self._siblings else {}
        return {"$ref": f"#/$defs/{pointer_step(name)}", **(self._rewrite_schema(siblings, component_names, depth + 1) if siblings else {})}

    def _rewrite_value(self, key: str, value: Any, component_names: dict[str, None], depth: int) -> Any:
        if key in SCHEMA_KEYWORDS:
            return self._rewrite_schema(value, component_names, depth + 1)
        if key in SCHEMA_LIST_KEYWORDS and isinstance(value, list):
            self._check_depth(depth + 1)
            return [self._rewrite_schema(each, component_names, depth + 2) for each in value]
        if key in SCHEMA_MAP_KEYWORDS and isinstance(value, dict):
            self._check_depth(depth + 1)
            return {name: self._rewrite_schema(each, component_names, depth + 2) for name, each in value.items()}
        self._count_data(value, depth + 1)
        return value

    def _count_data(self, value: Any, depth: int) -> None:
        """Counts the steps of a value that is copied: `default`, `enum`, `const`, `examples` and other data."""
        self._check_depth(depth)
        if isinstance(value, str):
            self._count_steps(len(value) // 64)
        elif isinstance(value, list | dict):
            for each in value if isinstance(value, list) else value.values():
                self._count_data(each, depth + 1)

    def _check_depth(self, depth: int) -> None:
        self._count_steps(1)
        if depth > DEPTH_MAX:
            raise UnusableSchema(f"a schema is nested deeper than {DEPTH_MAX} levels")


def definition_key(name: str) -> str:
    """The name in `$defs` of a component in a reference, whose name is part of a URI fragment."""
    return unquote(name).replace("~1", "/").replace("~0", "~")


def pointer_step(name: str) -> str:
    """The name in `$defs` of a component as a step of a JSON Pointer."""
    return definition_key(name).replace("~", "~0").replace("/", "~1")


def _is_kept(key: str) -> bool:
    """Whether JSON Schema has this keyword."""
    return key not in OPENAPI_ONLY and not str(key).startswith("x-")


def _to_2020_12(found: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Converts keywords of OpenAPI 3.0: `nullable`, and exclusive limits as flags."""
    if node.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    for flag, limit in EXCLUSIVE_LIMITS.items():
        if isinstance(found.get(flag), bool):
            exclusive = found.pop(flag)
            if exclusive and limit in found:
                found[flag] = found.pop(limit)
    return found
