"""What skills of agents take as tools, where their card says so: arguments by a schema, and whether a call has to become a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.tasks.contracts.skills import FORMS, contract_of, forms_in, is_sound
from registry.cards.card import Registration

__all__ = ["FORMS", "PLAIN", "SkillForm", "forms_of"]


@dataclass(frozen=True, slots=True)
class SkillForm:
    """`schema` None: plain words. `output`: of the first data part that comes back. `required`: who takes no tasks can't call it."""

    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    output: Mapping[str, Any] | None = field(default=None, repr=False)
    required: bool = False


PLAIN = SkillForm()


def forms_of(entry: Registration) -> dict[str, SkillForm]:
    """By skill, and for the agent as a whole. What is not sound is left out: the skill then takes plain words, as any other.

    What an operator declares counts before what the card says; where either is of another type than an object, a tool can't have it.
    """
    said = forms_in(entry)
    skills = [skill.id for skill in entry.card.skills] if entry.card else []
    found = {skill: _form(entry, skill, said.get(skill, {})) for skill in ("", *skills)}
    return {skill: form for skill, form in found.items() if form != PLAIN}


def _form(entry: Registration, skill: str, said: Mapping[str, Any]) -> SkillForm:
    contract = contract_of(entry, skill)
    if not skill and not contract.declared:
        return PLAIN
    schema = _object(contract.input)
    if contract.input is None and isinstance(told := said.get("inputSchema"), dict) and is_sound(told):
        schema = _object(told)
    return SkillForm(schema, _object(contract.output), said.get("taskSupport") == "required")


def _object(schema: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return schema if schema is not None and schema.get("type") == "object" else None
