"""What skills of agents take as tools, where their card says so: arguments by a schema, and whether a call has to become a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.tasks.contracts.skills import SKILL_FORMS_EXTENSION, contract_of, is_usable_schema, skill_forms
from registry.cards.card import Registration

__all__ = ["SKILL_FORMS_EXTENSION", "TEXT_ONLY", "SkillSchemas", "skill_schemas_of"]


@dataclass(frozen=True, slots=True)
class SkillSchemas:
    """`schema` None: plain words. `output`: of the first data part that comes back. `required`: who takes no tasks can't call it."""

    input_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    output_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    requires_task: bool = False


TEXT_ONLY = SkillSchemas()


def skill_schemas_of(entry: Registration) -> dict[str, SkillSchemas]:
    """By skill, and for the agent as a whole. What is not sound is left out: the skill then takes plain words, as any other.

    What an operator declares counts before what the card says; where either is of another type than an object, a tool can't have it.
    """
    said = skill_forms(entry)
    skills = [skill.id for skill in entry.card.skills] if entry.card else []
    found = {skill: _schemas_of_skill(entry, skill, said.get(skill, {})) for skill in ("", *skills)}
    return {skill: form for skill, form in found.items() if form != TEXT_ONLY}


def _schemas_of_skill(entry: Registration, skill: str, card_form: Mapping[str, Any]) -> SkillSchemas:
    contract = contract_of(entry, skill)
    if not skill and not contract.is_declared:
        return TEXT_ONLY
    schema = _object_schema_or_none(contract.input)
    if contract.input is None and isinstance(told := card_form.get("inputSchema"), dict) and is_usable_schema(told):
        schema = _object_schema_or_none(told)
    return SkillSchemas(schema, _object_schema_or_none(contract.output), card_form.get("taskSupport") == "required")


def _object_schema_or_none(schema: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return schema if schema is not None and schema.get("type") == "object" else None
