"""Effects that operators declare: whom a tool or an agent's skill acts on, and how, such as outbound mail to a customer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

ANY_CALL: Final = "*"  # the effect of every tool or skill that has none of its own
EFFECTS_MAX: Final = 2000  # of one entry
PRIORITY_MAX: Final = 1000
PRIORITY: Final = 100
COOL_DOWN_MAX: Final = 366 * 86_400  # seconds
PURPOSE_MAX: Final = 200
TEMPLATE_MAX: Final = 200
PLACEHOLDERS_MAX: Final = 4
PATH_STEPS_MAX: Final = 8
VALUE_MAX: Final = 200  # characters of an argument
SHOWN_CHARS: Final = 60
EFFECT_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
SUBJECT_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}:[A-Za-z0-9_][A-Za-z0-9._@-]{0,199}")
_TEMPLATE_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,31}:")
_PATH: Final = re.compile(r"arguments((?:\.[A-Za-z_][A-Za-z0-9_-]{0,63}){1,8})")
Part = str | tuple[str, ...]  # a literal, or the path of an argument


class BadEffect(ValueError):
    """A declaration is invalid. `field` is the member, which the message does not repeat."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class SubjectMissing(ValueError):
    """The arguments of a call do not say whom it acts on. `field` is the argument."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class EffectDeclaration:
    """Whom a call acts on, and how. `subject` is a template of literals and arguments: customer:{arguments.customer_id}."""

    subject: str
    effect: str
    purpose: str = ""
    claim: bool = False  # the call claims the subject and effect while it lasts
    priority: int = PRIORITY  # of the call among claims, 0..1000
    cool_down: int = 0  # seconds for which others wait after a claim of the call
    once: bool = False  # no second call while one is under way

    def subject_of(self, arguments: Mapping[str, Any]) -> str:
        """The subject of a call with these arguments. Raises SubjectMissing for an absent argument, and for one that can't be in a name."""
        texts = [part if isinstance(part, str) else _argument_text(arguments, part) for part in parse_template(self.subject)]
        name = "".join(texts)
        if not SUBJECT_NAME.fullmatch(name):
            raise SubjectMissing("arguments", f"make the subject {name[:SHOWN_CHARS]!a}; ids have letters, digits and . _ @ - only")
        return name

    def to_document(self) -> dict[str, Any]:
        """The members that differ from the defaults, and those that have none."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        defaults = {each.name: each.default for each in fields(self)}
        return {name: value for name, value in found.items() if value != defaults[name]}


def effect_documents(effects: Mapping[str, EffectDeclaration]) -> dict[str, dict[str, Any]]:
    """Declarations by tool or skill, as JSON."""
    return {name: effect.to_document() for name, effect in effects.items()}


def parse_effects(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, EffectDeclaration]:
    """Declarations by tool or skill, `*` for all others. Raises BadEffect."""
    if len(documents) > EFFECTS_MAX:
        raise BadEffect("effects", f"has more than {EFFECTS_MAX} entries")
    return {name: _parse_effect(name, document) for name, document in documents.items()}


def _parse_effect(name: str, document: Any) -> EffectDeclaration:
    path = f"effects.{name[:SHOWN_CHARS]}"
    if not name or not name.isprintable() or not isinstance(document, Mapping):
        raise BadEffect("effects", "must map names of tools or skills to objects")
    if unknown := sorted(str(member) for member in document.keys() - {each.name for each in fields(EffectDeclaration)}):
        raise BadEffect(f"{path}.{unknown[0][:SHOWN_CHARS]}", "is not a member of an effect")
    _check_texts(path, document)
    for member, most in (("priority", PRIORITY_MAX), ("cool_down", COOL_DOWN_MAX)):
        if type(document.get(member, 0)) is not int or not 0 <= document.get(member, 0) <= most:
            raise BadEffect(f"{path}.{member}", f"must be a whole number from 0 to {most}")
    for member in ("claim", "once"):
        if type(document.get(member, False)) is not bool:
            raise BadEffect(f"{path}.{member}", "must be true or false")
    found = EffectDeclaration(**document)
    if found.cool_down and not found.claim:
        raise BadEffect(f"{path}.cool_down", "needs claim: true beside it")
    try:
        parse_template(found.subject)
    except ValueError as error:
        raise BadEffect(f"{path}.subject", str(error)) from error
    return found


def _check_texts(path: str, document: Mapping[str, Any]) -> None:
    effect, purpose = document.get("effect"), document.get("purpose", "")
    if not isinstance(document.get("subject"), str):
        raise BadEffect(f"{path}.subject", "must be a text such as customer:{arguments.customer_id}")
    if not isinstance(effect, str) or not EFFECT_NAME.fullmatch(effect):
        raise BadEffect(f"{path}.effect", "must be a name such as outbound-email: lower-case letters, digits and -")
    if not isinstance(purpose, str) or len(purpose) > PURPOSE_MAX or not purpose.isprintable():
        raise BadEffect(f"{path}.purpose", f"must be one line of text, of at most {PURPOSE_MAX} characters")


@lru_cache(maxsize=4096)
def parse_template(text: str) -> tuple[Part, ...]:
    """The literals and the paths of arguments of a subject's template. Raises ValueError, which says what is wrong."""
    if len(text) > TEMPLATE_MAX:
        raise ValueError(f"has more than {TEMPLATE_MAX} characters")
    if not _TEMPLATE_KIND.match(text):
        raise ValueError("must begin with a kind and a colon, such as customer:")
    parts: list[Part] = []
    pieces = text.split("{")
    parts.append(pieces[0])
    for piece in pieces[1:]:
        inner, closing, literal = piece.partition("}")
        found = _PATH.fullmatch(inner)
        if not closing or found is None:
            raise ValueError("must be of literals and {arguments.PATH}, such as customer:{arguments.customer_id}")
        parts += [tuple(found[1][1:].split(".")), literal]
    placeholders = [part for part in parts if not isinstance(part, str)]
    if not 0 < len(placeholders) <= PLACEHOLDERS_MAX:
        raise ValueError(f"must name one to {PLACEHOLDERS_MAX} arguments, such as customer:{{arguments.customer_id}}")
    literals = "".join(part for part in parts if isinstance(part, str))
    if not re.fullmatch(r"[A-Za-z0-9._@:-]*", literals) or literals.count(":") != 1:
        raise ValueError("may have letters, digits and . _ @ - beside arguments, and one colon")
    return tuple(part for part in parts if part)


def _argument_text(arguments: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """The argument as a text. Only texts and whole numbers have one spelling. Raises SubjectMissing."""
    found: Any = arguments
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    field = f"arguments.{'.'.join(path)}"
    if found is None:
        raise SubjectMissing(field, "is missing. It says whom the call acts on: send it as a text or a whole number")
    if type(found) is int and abs(found) < 10**VALUE_MAX:
        return str(found)
    if not isinstance(found, str) or not 0 < len(found) <= VALUE_MAX:
        raise SubjectMissing(field, "must be a text or a whole number, since it says whom the call acts on")
    return found
