"""Checks whether a JSON value has the types that a JSON Schema declares. Ignores patterns, formats and limits."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

Path = tuple[str, ...]
STEPS_MAX: Final = 100_000  # of one check: nested choices can grow exponentially
DEPTH_MAX: Final = 200
_FITS, _UNTYPED, _MISFIT = "fits", "untyped", "misfit"
_COMPOUND: Final = frozenset({"array", "object"})
_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})


class Mismatch(NamedTuple):
    """A value whose type its schema does not allow. `path` leads to it, by names of members."""

    path: Path
    problem: str


class _TooComplicated(Exception):
    """A check would take more than STEPS_MAX steps or DEPTH_MAX levels."""


class DeclaredTypes:
    """The types that one schema declares.

    `plain_by_default`: a value without a declared type must be a string, a number or a boolean, and null must be declared.
    Otherwise a value without a declared type may be anything, and null counts as absent.
    """

    def __init__(self, schema: Any, plain_by_default: bool = False) -> None:
        self._root = schema
        self._plain = plain_by_default
        self._steps = STEPS_MAX
        self._found = Mismatch((), "")

    def mismatch(self, value: Any, path: Path = (), schema: Any = None) -> Mismatch | None:
        """The first value with a wrong type on the way to `path` or below it, or None. `schema`: a part of the whole one.

        A schema that needs too many steps counts as a mismatch.
        """
        self._steps = STEPS_MAX
        try:
            fit = self._fit(self._root if schema is None else schema, value, path, ())
        except (_TooComplicated, RecursionError):
            return Mismatch((), "the schema is too complicated to check the type")
        return self._found if fit == _MISFIT else None

    def members(self, schema: Any) -> Mapping[str, Any]:
        """The members that a schema declares, over all its choices, each with its schema."""
        self._steps = STEPS_MAX
        found: dict[str, list[Any]] = {}
        try:
            for properties in self._properties(schema, 0):
                for name, member in properties.items():
                    found.setdefault(name, []).append(member)
        except (_TooComplicated, RecursionError):
            return {}
        return {name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for name, schemas in found.items()}

    def _properties(self, schema: Any, depth: int) -> Iterator[Mapping[str, Any]]:
        self._step(depth)
        if not isinstance(schema, Mapping):
            return
        if isinstance(properties := schema.get("properties"), Mapping):
            yield properties
        for part in (
            *self._resolve_reference(schema),
            *(part for name in ("allOf", "anyOf", "oneOf") for part in _list_or_empty(schema.get(name))),
        ):
            yield from self._properties(part, depth + 1)

    def _fit(self, schema: Any, value: Any, path: Path, at: Path) -> str:
        """Compares `value` with `schema`. `path` is the remaining path, empty to check all members; `at` is the path so far."""
        self._step(len(at))
        fit = self._fit_schema(schema, value, path, at)
        if fit == _UNTYPED and self._plain and json_type(value) in (*_COMPOUND, "null"):
            return self._misfit(at, f"expected a plain value, got {json_type(value)}")
        return fit

    def _fit_schema(self, schema: Any, value: Any, path: Path, at: Path, depth: int = 0) -> str:
        self._step(depth)
        if value is None and not self._plain:
            return _FITS
        if not isinstance(schema, Mapping):
            return self._misfit(at, "no value is allowed") if schema is False else _UNTYPED
        fits = [self._own_type(schema, value, at)]
        parts = [*self._resolve_reference(schema), *_list_or_empty(schema.get("allOf"))]
        fits += [self._fit_schema(part, value, path, at, depth + 1) for part in parts]
        fits += [self._choice(schema[name], value, path, at, depth) for name in ("anyOf", "oneOf") if isinstance(schema.get(name), list)]
        if _MISFIT not in fits:
            fits += self._inner(schema, value, path, at)
        return _all_of(fits)

    def _own_type(self, schema: Mapping[str, Any], value: Any, at: Path) -> str:
        allowed = _named_types(schema)
        if not allowed:
            return _UNTYPED
        got = json_type(value)
        is_integral = got == "integer" or (isinstance(value, float) and value.is_integer())
        if got in allowed or ("number" in allowed and got == "integer") or ("integer" in allowed and is_integral):
            return _FITS
        return self._misfit(at, f"expected {' or '.join(sorted(allowed))}, got {got}")

    def _choice(self, choices: list[Any], value: Any, path: Path, at: Path, depth: int) -> str:
        fits = [self._fit_schema(choice, value, path, at, depth + 1) for choice in choices]
        if _FITS in fits:
            return _FITS
        if _UNTYPED in fits or not fits:
            return _UNTYPED
        return _MISFIT if len(fits) == 1 else self._misfit(at, f"expected another type, got {json_type(value)}")

    def _inner(self, schema: Mapping[str, Any], value: Any, path: Path, at: Path) -> list[str]:
        """Compares the members of an object or the items of an array. Returns only misfits: untyped members do not affect their object."""
        if isinstance(value, Mapping):
            found = [self._fit(each, value[name], path[1:], (*at, name)) for name, each in self._present_members(schema, value, path)]
        elif isinstance(value, list):
            found = [self._fit(each, item, path, at) for each, item in _items(schema, value)]
        else:
            return []
        return [fit for fit in found if fit == _MISFIT]

    def _present_members(self, schema: Mapping[str, Any], value: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
        """Yields the members that are checked, present and declared, each with its schema."""
        properties = schema.get("properties")
        named = properties if isinstance(properties, Mapping) else {}
        others = schema.get("additionalProperties") if not schema.get("patternProperties") else None
        for name in path[:1] or value:
            if value.get(name) is None:
                continue  # null counts as absent
            if name in named:
                yield name, named[name]
            elif isinstance(others, Mapping):
                yield name, others

    def _resolve_reference(self, schema: Mapping[str, Any]) -> list[Any]:
        """The schema that `$ref` refers to within the document; empty where there is none."""
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            return []
        found: Any = self._root
        for step in reference[2:].split("/") if reference != "#" else ():
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return [] if found is None else [found]

    def _misfit(self, at: Path, problem: str) -> str:
        self._found = Mismatch(at, problem)
        return _MISFIT

    def _step(self, depth: int) -> None:
        self._steps -= 1
        if self._steps < 0 or depth > DEPTH_MAX:
            raise _TooComplicated


def json_type(value: Any) -> str:
    """The JSON type of a parsed value; a number without a fraction that was written with one is a number."""
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "number"
        case None:
            return "null"
        case Mapping():
            return "object"
    return "array"


def _named_types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a schema names directly; empty if it names none."""
    kinds = schema.get("type")
    if kinds is not None:
        return frozenset(kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str)) & _TYPES
    if isinstance(values := schema.get("enum"), list):
        return frozenset(map(json_type, values))
    if "const" in schema:
        return frozenset({json_type(schema["const"])})
    return frozenset({"object"}) if isinstance(schema.get("properties"), Mapping) else frozenset()


def _items(schema: Mapping[str, Any], value: list[Any]) -> Iterable[tuple[Any, Any]]:
    first = _list_or_empty(schema.get("prefixItems"))
    rest = schema.get("items", True)
    return ((first[index] if index < len(first) else rest, item) for index, item in enumerate(value))


def _all_of(fits: Iterable[str]) -> str:
    found = set(fits)
    return next((fit for fit in (_MISFIT, _FITS) if fit in found), _UNTYPED)


def _list_or_empty(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
