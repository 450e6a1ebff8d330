"""What skills of agents take as tools, where their card says so: arguments by a schema, and whether a call has to become a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from registry.card import Registration

FORMS = "urn:interlock:a2a:skill-forms:1"  # params: {"skills": {id: {"inputSchema": {…}, "taskSupport": "required"}}}
SCHEMA_MAX = 1 << 16  # bytes
DEPTH_MAX = 32
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class SkillForm:
    """`schema` None: plain words. `required`: who takes no tasks can't call it."""

    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    required: bool = False


PLAIN = SkillForm()


def forms_of(entry: Registration) -> dict[str, SkillForm]:
    """By skill. What is not sound is left out: the skill then takes plain words, as any other."""
    capabilities: Any = entry.card.document.get("capabilities") if entry.card else None
    extensions = capabilities.get("extensions") if isinstance(capabilities, dict) else None
    for each in extensions if isinstance(extensions, list) else ():
        params = each.get("params") if isinstance(each, dict) and each.get("uri") == FORMS else None
        skills = params.get("skills") if isinstance(params, dict) else None
        if isinstance(skills, dict):
            return {skill: _form(said) for skill, said in skills.items() if isinstance(said, dict)}
    return {}


def _form(said: Mapping[str, Any]) -> SkillForm:
    schema = said.get("inputSchema")
    sound = isinstance(schema, dict) and schema.get("type") == "object" and _is_sound(schema) and len(encode(schema)) <= SCHEMA_MAX
    return SkillForm(schema if sound else None, said.get("taskSupport") == "required")


def _is_sound(schema: Any, depth: int = 0) -> bool:
    """Not too deep, and without references to other documents."""
    if depth > DEPTH_MAX:
        return False
    if isinstance(schema, dict):
        reference = schema.get("$ref", "#")
        if not isinstance(reference, dict) and not str(reference).startswith("#"):
            return False
        return all(_is_sound(value, depth + 1) for value in schema.values())
    return not isinstance(schema, list) or all(_is_sound(value, depth + 1) for value in schema)
