"""Converts the JSON Schema of a tool's arguments to a Cedar type, and names the parts that have no Cedar type."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEPTH_MAX = 8
ATTRIBUTES_MAX = 1000  # of one tool
RESERVED = frozenset({"__entity", "__extn", "__expr"})  # Cedar's JSON reads an object with such a member as an entity or a function call
ANY_MEMBER = "*"  # the last step of a path: any other member
TOO_DEEP = "it is nested too deeply"
SEVERAL_TYPES = "it can be of several types"
CedarType = dict[str, Any]
Path = tuple[str, ...]
SingleTypeSchema = tuple[Mapping[str, Any], bool]  # a schema of one type, and whether null is allowed too
_LEAVES: Mapping[str, CedarType] = {
    "string": {"type": "String"},
    "integer": {"type": "Long"},
    "number": {"type": "Extension", "name": "decimal"},
    "boolean": {"type": "Bool"},
}


@dataclass(frozen=True, slots=True)
class KnownTool:
    """A registered tool; `schema` is its inputSchema."""

    tenant: str
    server: str
    name: str
    schema: Mapping[str, Any]

    @property
    def action(self) -> str:
        """The Cedar action of this tool; its resource has the same name."""
        return f"{self.server}.{self.name}"


@dataclass(frozen=True, slots=True)
class ArgumentTypes:
    """The Cedar type of a tool's arguments. `record` is a Cedar record; `unclear` maps each path without a Cedar type to the reason."""

    record: CedarType
    unclear: Mapping[Path, str]

    def why_unclear(self, path: Path) -> str:
        """Why the type at this path is unknown; empty where it is known whether the path exists."""
        for length in range(len(path) + 1):
            if path[:length] in self.unclear:
                return self.unclear[path[:length]]
        known: CedarType = self.record
        for step, name in enumerate(path):
            members = known.get("attributes", {})
            if name not in members:
                return self.unclear.get((*path[:step], ANY_MEMBER), "")
            known = members[name]
        return ""

    def has_path(self, path: Path) -> bool:
        known: CedarType | None = self.record
        for name in path:
            known = (known or {}).get("attributes", {}).get(name)
        return known is not None

    def kind_at(self, path: Path) -> str:
        """A text that is equal for tools whose arguments Cedar's validator can't tell apart at this path."""
        known: CedarType = self.record
        steps: list[bool | None] = []
        for name in path:
            member = known.get("attributes", {}).get(name)
            if member is None:
                return json.dumps([*steps, "none", {} if known["type"] == "Record" else known], sort_keys=True)
            steps.append(member.get("required"))
            known = member
        return json.dumps([*steps, known], sort_keys=True)

    def path_names(self) -> Iterator[str]:
        """Yields the dotted name of every path."""
        yield from _dotted_names(self.record, "")


def argument_types_of(schema: Mapping[str, Any]) -> ArgumentTypes:
    """Converts an inputSchema. Never raises: a part that can't be read is unclear."""
    reader = _ArgumentsReader(schema)
    read = reader.read(schema, (), 0)
    record = read if read is not None and read["type"] == "Record" else {"type": "Record", "attributes": {}}
    if record is not read:
        reader.unclear.setdefault((), "the tool takes something else than an object")
    return ArgumentTypes(record, reader.unclear)


def merge_types(types: "list[ArgumentTypes]") -> ArgumentTypes:
    """The type that all tools of one name in several tenants share; unclear where they differ."""
    first = types[0]
    if all(other == first for other in types):
        return first
    return ArgumentTypes({"type": "Record", "attributes": {}}, {(): "tools of this name differ between tenants"})


class _ArgumentsReader:
    """Reads one schema and collects the unclear paths."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._attributes_left = ATTRIBUTES_MAX
        self.unclear: dict[Path, str] = {}

    def read(self, schema: Any, path: Path, depth: int) -> CedarType | None:
        """The Cedar type of a schema at `path`; None where it has none, with the reason in `unclear`."""
        outcome = self._single_type_schema(schema) if depth <= DEPTH_MAX else TOO_DEEP
        if isinstance(outcome, str):
            return self._mark_unclear(path, outcome)
        single, _ = outcome
        kind = single.get("type", "object" if "properties" in single else None)
        if kind == "object":
            return self._record(single, path, depth)
        if kind == "array":
            element = self.read(single.get("items", {}), (*path, "[]"), depth + 1)
            return {"type": "Set", "element": element} if element else self._mark_unclear(path, "it is a list of what has no single type")
        if isinstance(kind, str) and kind in _LEAVES:
            return dict(_LEAVES[kind])
        return self._mark_unclear(path, "it has no single type")

    def _record(self, object_schema: Mapping[str, Any], path: Path, depth: int) -> CedarType | None:
        properties = object_schema.get("properties")
        if not isinstance(properties, Mapping):
            return self._mark_unclear(path, "it may have any members")
        if object_schema.get("additionalProperties") not in (None, False) or object_schema.get("patternProperties"):
            self.unclear[(*path, ANY_MEMBER)] = "it may have other members"
        required = object_schema.get("required")
        needed = set(required) if isinstance(required, list) and all(isinstance(one, str) for one in required) else set()
        members = {}
        for name, schema in properties.items():
            self._attributes_left -= 1
            place = (*path, name)
            if self._attributes_left < 0 or name in RESERVED or name == ANY_MEMBER:
                self._mark_unclear(place, "there are too many" if self._attributes_left < 0 else "its name is reserved")
                continue
            read = self.read(schema, place, depth + 1)
            if read is not None:
                members[name] = read | {"required": name in needed and not self._is_nullable(schema)}
        return {"type": "Record", "attributes": members}

    def _mark_unclear(self, path: Path, why: str) -> CedarType | None:
        self.unclear[path] = why
        return None

    def _is_nullable(self, schema: Any) -> bool:
        outcome = self._single_type_schema(schema)
        return not isinstance(outcome, str) and outcome[1]

    def _single_type_schema(self, schema: Any) -> SingleTypeSchema | str:
        """Resolves references, null and choices with one member. Returns the schema and whether it is nullable, or the reason why not."""
        nullable = False
        for _ in range(DEPTH_MAX):
            resolved = self._follow_references(schema)
            if resolved is None:
                return "its schema refers to what is not there"
            if any(name in resolved for name in ("allOf", "not", "if", "$dynamicRef")):
                return "its schema is a combination of several"
            choices = resolved.get("anyOf", resolved.get("oneOf"))
            if choices is None:
                return _single_type(resolved, nullable)
            real = [one for one in choices if not _is_null(one)] if isinstance(choices, list) else []
            if len(real) != 1:
                return SEVERAL_TYPES
            nullable, schema = nullable or len(choices) > 1, real[0]
        return TOO_DEEP

    def _follow_references(self, schema: Any) -> Mapping[str, Any] | None:
        """Follows up to DEPTH_MAX references within the document. None where one leads nowhere."""
        for _ in range(DEPTH_MAX):
            if not isinstance(schema, Mapping):
                return {} if schema is True else None
            reference = schema.get("$ref")
            if reference is None:
                return schema
            schema = self._resolve_pointer(reference)
        return None

    def _resolve_pointer(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        found: Any = self._root
        for step in reference[2:].split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return found


def _single_type(schema: Mapping[str, Any], nullable: bool) -> SingleTypeSchema | str:
    """The schema if it names one type, not counting null; otherwise the reason."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        non_null_kinds = [one for one in kinds if one != "null"]
        return ({**schema, "type": non_null_kinds[0]}, nullable or len(kinds) > 1) if len(non_null_kinds) == 1 else SEVERAL_TYPES
    if kinds is None and ("enum" in schema or "const" in schema):
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        texts = isinstance(values, list) and all(isinstance(one, str) for one in values if one is not None)
        return ({"type": "string"}, nullable or None in values) if texts else SEVERAL_TYPES
    return schema, nullable


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _dotted_names(record: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, member in record.get("attributes", {}).items():
        yield prefix + name
        yield from _dotted_names(member, f"{prefix}{name}.")
