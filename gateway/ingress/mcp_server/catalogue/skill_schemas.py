"""Input and output schemas of skills as tools, from the operator's contract or the agent's card."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.tasks.contracts.skills import SKILL_FORMS_EXTENSION, contract_of, is_usable_schema, skill_forms
from registry.cards.card import Registration

__all__ = ["SKILL_FORMS_EXTENSION", "TEXT_ONLY", "SkillSchemas", "skill_schemas_of"]


@dataclass(frozen=True, slots=True)
class SkillSchemas:
    """The schemas of one skill.

    Without `input_schema` the tool takes a text message. `output_schema` is that of the first data part of the answer. `requires_task`:
    clients without tasks can't call the tool.
    """

    input_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    output_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    requires_task: bool = False


TEXT_ONLY = SkillSchemas()


def skill_schemas_of(entry: Registration) -> dict[str, SkillSchemas]:
    """Returns the schemas by skill id, with "" for the agent as a whole; skills that take text only are left out.

    The operator's contract has precedence over the card. An unusable schema, or one whose type is not object, is ignored.
    """
    card_forms = skill_forms(entry)
    skills = [skill.id for skill in entry.card.skills] if entry.card else []
    found = {skill: _schemas_of_skill(entry, skill, card_forms.get(skill, {})) for skill in ("", *skills)}
    return {skill: form for skill, form in found.items() if form != TEXT_ONLY}


def _schemas_of_skill(entry: Registration, skill: str, card_form: Mapping[str, Any]) -> SkillSchemas:
    contract = contract_of(entry, skill)
    if not skill and not contract.is_declared:
        return TEXT_ONLY
    schema = _object_schema_or_none(contract.input)
    if contract.input is None and isinstance(form_schema := card_form.get("inputSchema"), dict) and is_usable_schema(form_schema):
        schema = _object_schema_or_none(form_schema)
    return SkillSchemas(schema, _object_schema_or_none(contract.output), card_form.get("taskSupport") == "required")


def _object_schema_or_none(schema: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return schema if schema is not None and schema.get("type") == "object" else None
