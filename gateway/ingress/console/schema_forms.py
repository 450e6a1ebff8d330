"""Forms made from JSON Schemas, and the values that people filled in. What a form can't express is written as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.ingress.console.forms import FormRefused

FIELDS_MAX: Final = 40  # fields of a form; one with more is answered as JSON
OPTIONS_MAX: Final = 100
OPTION_LENGTH_MAX: Final = 2000  # characters of one; a definition that many fields refer to is on the page once for each
CHECKED_OPTIONS_MAX: Final = 20  # options of a list that is made of checkboxes
DEPTH_MAX: Final = 4  # of objects in objects, and of references
VISITS_MAX: Final = FIELDS_MAX * (DEPTH_MAX + 1)  # fields and the objects that they are in
ITEMS_MAX: Final = 1000  # lines of a list
LENGTH_MAX: Final = 20_000  # characters of a text
PREFIX: Final = "value."  # of the fields in the posted form
WHOLE: Final = "json"  # the field of a value that is written as JSON
KINDS: Final = {"string": "text", "number": "number", "integer": "integer", "boolean": "check"}
INPUT_TYPES: Final = {"date": "date", "email": "email", "time": "time", "uri": "url"}  # of the element, by `format`
COMBINING: Final = frozenset({"oneOf", "anyOf", "allOf", "not", "if", "patternProperties"})  # no form can show these


@dataclass(frozen=True, slots=True)
class AnswerField:
    """One member of a form. `name` is its path.

    `kind`: text, number, integer, check, choice (one of `options`), choices (several of them), list (one item in each line), group (of
    `members`), or json. `options` are JSON texts. `initial` is what the field shows at first.
    """

    name: str
    kind: str
    label: str
    is_required: bool
    description: str = ""
    options: tuple[str, ...] = ()
    length_max: int = LENGTH_MAX
    members: tuple["AnswerField", ...] = ()
    initial: str = ""
    chosen: tuple[str, ...] = ()  # of the options, at first
    input_type: str = "text"
    item_kind: str = "text"
    key: str = field(default="", repr=False)  # the member's own name in the value


class _TooManyFields(Exception):
    """The schema has more members than a form can have."""


class _Visits:
    """Counts the members of one schema. References let a small schema have millions."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def count(self) -> None:
        """Raises _TooManyFields."""
        self._count += 1
        if self._count > VISITS_MAX:
            raise _TooManyFields


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a form a member is.

    The whole schema, for its references; the path before the member; how many objects it is in; and how many members were seen.
    """

    root: Mapping[str, Any]
    visits: _Visits
    prefix: str = ""
    depth: int = 0

    def within(self, path: str) -> "_Place":
        return _Place(self.root, self.visits, f"{path}.", self.depth + 1)


def fields_of(schema: Any, given: Any = None) -> tuple[AnswerField, ...]:
    """Returns the fields for an object schema; none where only JSON can express the value.

    `given` is a value to begin with, in place of the defaults of the schema.
    """
    if not isinstance(schema, dict):
        return ()
    try:
        found = _members(_Place(schema, _Visits()), schema, given if isinstance(given, dict) else {})
    except _TooManyFields:
        return ()
    return found if found and sum(1 for _ in _leaves(found)) <= FIELDS_MAX else ()


def options_of(schema: Any) -> tuple[str, ...]:
    """Returns the options of a schema with `enum` as JSON texts."""
    options = schema.get("enum") if isinstance(schema, dict) else None
    if not isinstance(options, list) or not 0 < len(options) <= OPTIONS_MAX:
        return ()
    texts = tuple(json.dumps(option, ensure_ascii=False) for option in options)
    return texts if all(len(text) <= OPTION_LENGTH_MAX for text in texts) else ()


def read_value(schema: Any, form: Mapping[str, str]) -> Any:
    """Returns the value of a posted form, which /api checks against the schema. Raises FormRefused."""
    if WHOLE in form:
        return parse_json(form[WHOLE])
    return _read_members(fields_of(schema), form)


def parse_json(text: str, what: str = "a value") -> Any:
    """Returns the value of a JSON text. Raises FormRefused, naming `what`."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise FormRefused(f"{what} can't be read as JSON") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)  # JSON has no NaN


def _members(place: _Place, schema: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[AnswerField, ...]:
    """Returns the fields of an object's members; none where there are too many, or where the schema has more than members."""
    members = schema.get("properties")
    if not isinstance(members, dict) or not members or len(members) > FIELDS_MAX or COMBINING & schema.keys():
        return ()
    required = schema.get("required")
    needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
    return tuple(_field(place, name, member, given.get(name), is_required=name in needed) for name, member in members.items())


def _field(place: _Place, name: str, member: Any, given: Any, *, is_required: bool) -> AnswerField:
    place.visits.count()
    schema, path = _resolve(place.root, member), place.prefix + _escape(name)
    label, description = schema.get("title"), schema.get("description")
    initial = given if given is not None else schema.get("default", schema.get("const"))
    about: dict[str, Any] = {
        "key": name,
        "label": label if isinstance(label, str) and label else name,
        "is_required": is_required,
        "description": description if isinstance(description, str) else "",
    }
    options, kind = options_of(schema), _kind_of(schema)
    if options:
        shown = json.dumps(initial, ensure_ascii=False) if initial is not None else ""
        return AnswerField(path, "choice", options=options, initial=shown if shown in options else "", **about)
    if kind == "object" and place.depth < DEPTH_MAX:
        within = _members(place.within(path), schema, initial if isinstance(initial, dict) else {})
        if within:
            return AnswerField(path, "group", members=within, **about)
    if kind == "array" and (listed := _list_field(_resolve(place.root, schema.get("items")), path, about, initial)) is not None:
        return listed
    if kind in KINDS:
        longest = schema.get("maxLength")
        length = min(longest, LENGTH_MAX) if isinstance(longest, int) and longest > 0 else LENGTH_MAX
        form = schema.get("format")
        shown_as = INPUT_TYPES.get(form, "text") if isinstance(form, str) and kind == "string" else "text"
        return AnswerField(path, KINDS[kind], length_max=length, initial=_plain(initial), input_type=shown_as, **about)
    return AnswerField(path, "json", initial="" if initial is None else json.dumps(initial, ensure_ascii=False, indent=2), **about)


def _list_field(items: Mapping[str, Any], path: str, about: dict[str, Any], initial: Any) -> AnswerField | None:
    """Returns the field of a list of plain values or of options; None where its items need JSON."""
    listed = initial if isinstance(initial, list) else []
    options = options_of(items)
    if options and len(options) <= CHECKED_OPTIONS_MAX:
        chosen = tuple(json.dumps(each, ensure_ascii=False) for each in listed)
        return AnswerField(path, "choices", options=options, chosen=chosen, **about)
    kind = _kind_of(items)
    if kind not in ("string", "number", "integer"):
        return None
    return AnswerField(path, "list", item_kind=KINDS[kind], initial="\n".join(map(_plain, listed)), **about)


def _kind_of(schema: Mapping[str, Any]) -> str:
    """Returns the one type of a schema, also of one that allows null beside it; empty where it has none, or several."""
    if COMBINING & schema.keys():
        return ""
    found = schema.get("type")
    if isinstance(found, list):
        others = [each for each in found if each != "null"]
        found = others[0] if len(others) == 1 else ""
    return found if isinstance(found, str) else ""


def _resolve(root: Mapping[str, Any], schema: Any) -> Mapping[str, Any]:
    """Returns a schema with its references to definitions of the same document resolved; an empty one for what can't be."""
    for _ in range(DEPTH_MAX):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        found: Any = root
        for step in reference.removeprefix("#/").split("/") if reference.startswith("#/") else ["", ""]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        schema = {**found, **{name: value for name, value in schema.items() if name != "$ref"}} if isinstance(found, dict) else None
    return {}


def _leaves(fields: Sequence[AnswerField]) -> Iterator[object]:
    """Yields what each field of the posted form will be made of."""
    for each in fields:
        if each.members:
            yield from _leaves(each.members)
        elif each.kind == "choices":
            yield from each.options
        else:
            yield each


def _read_members(fields: Sequence[AnswerField], form: Mapping[str, str]) -> dict[str, Any]:
    return {each.key: value for each in fields if (value := _value(each, form)) is not None}


def _value(wanted: AnswerField, form: Mapping[str, str]) -> Any:
    """Returns the value of one field; None for one that was left empty, which the value then does not have."""
    if wanted.kind == "group":
        value = _read_members(wanted.members, form)
        return value if value or wanted.is_required else None
    if wanted.kind == "choices":
        chosen = [parse_json(option) for number, option in enumerate(wanted.options) if form.get(f"{PREFIX}{wanted.name}.{number}")]
        return chosen if chosen or wanted.is_required else None
    text = form.get(PREFIX + wanted.name, "")
    if wanted.kind == "check":
        return {"true": True, "false": False}.get(text)
    if wanted.kind == "list":
        return _read_list(wanted, text)
    if not text:
        return None
    if wanted.kind in ("text", "number", "integer"):
        return _read_scalar(wanted.kind, text, wanted.label)
    return parse_json(text, _quoted(wanted.label))


def _read_list(wanted: AnswerField, text: str) -> Any:
    lines = [line for each in text.split("\n") if (line := each.rstrip("\r"))]
    if len(lines) > ITEMS_MAX:
        raise FormRefused(f"{_quoted(wanted.label)} has more than {ITEMS_MAX} lines")
    return [_read_scalar(wanted.item_kind, line, wanted.label) for line in lines] if lines or wanted.is_required else None


def _read_scalar(kind: str, text: str, label: str) -> Any:
    if kind == "text":
        return text
    try:
        return int(text) if kind == "integer" else parse_json(text)
    except (ValueError, FormRefused):
        raise FormRefused(f"{_quoted(label)} is not a number") from None


def _quoted(label: str) -> str:
    return json.dumps(label[:100], ensure_ascii=False)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _escape(name: str) -> str:
    """Returns a name without the dots that separate the steps of a path."""
    return name.replace("%", "%25").replace(".", "%2E")
