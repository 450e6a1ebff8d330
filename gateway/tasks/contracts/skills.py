"""Contracts: JSON Schemas for the input and output of an agent's skills, enforced on messages to and from the agent."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from msgspec import UNSET, Struct

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import Message, Part
from gateway.tasks.contracts.json_schema import BadSchema, BrokenRule, check_schema, find_broken_rule
from registry.cards.card import FEATURES, Registration, Skill
from registry.names import InvalidMember

SKILL_FORMS_EXTENSION: Final = (
    "urn:interlock:a2a:skill-forms:1"  # params: {"skills": {id: {"inputSchema": {…}, "taskSupport": "required"}}}
)
SIDES: Final = ("input", "output")
SKILLS_MAX: Final = 200
NAME_SHOWN_MAX: Final = 200
WANTED_SHOWN_MAX: Final = 1_000
SKILLS_NAMED_MAX: Final = 20  # skills that an error text lists
CONTRACT_BROKEN: Final = "CONTRACT_BROKEN"  # failure kind


class ContractBroken(BadMessage):
    """A message does not fit the agent's contract for its input. `field` is the path of the violation."""


class BadContract(InvalidMember):
    """A contract cannot be used. `field` is its path, `problem` the reason; both are public texts."""


class Contract(Struct, frozen=True):
    """JSON Schemas for the data parts of messages to and from the agent.

    `is_declared` says that an operator declared the contract, which makes a data part mandatory.
    """

    input: Mapping[str, Any] | None = None
    output: Mapping[str, Any] | None = None
    is_declared: bool = True


NO_CONTRACT: Final = Contract()


def contract_of(entry: Registration, skill: str) -> Contract:
    """Returns the operator's contract for the skill or for all skills, else the input schema of a vendor's agent."""
    if not skill and entry.card is not None and len(entry.card.skills) == 1:
        skill = entry.card.skills[0].id
    contract = entry.contracts.get(skill, entry.contracts.get("")) if entry.contracts else None
    if contract is not None:
        return Contract(contract.get("input"), contract.get("output"))
    if FEATURES not in entry.facts or entry.card is None:
        return NO_CONTRACT
    form = skill_forms(entry).get(skill, {}).get("inputSchema")
    return Contract(form, is_declared=False) if isinstance(form, dict) and is_usable_schema(form) else NO_CONTRACT


def skill_forms(entry: Registration) -> Mapping[str, Mapping[str, Any]]:
    """Returns the card's extension data about skills, by skill id."""
    capabilities: Any = entry.card.document.get("capabilities") if entry.card else None
    extensions = capabilities.get("extensions") if isinstance(capabilities, dict) else None
    for each in extensions if isinstance(extensions, list) else ():
        params = each.get("params") if isinstance(each, dict) and each.get("uri") == SKILL_FORMS_EXTENSION else None
        skills = params.get("skills") if isinstance(params, dict) else None
        if isinstance(skills, dict):
            return {skill: form for skill, form in skills.items() if isinstance(form, dict)}
    return {}


def is_usable_schema(schema: Mapping[str, Any]) -> bool:
    """Returns whether values can be validated against an untrusted schema."""
    try:
        check_schema(schema)
    except BadSchema:
        return False
    return True


def check_contracts(contracts: Mapping[str, Any]) -> None:
    """Raises BadContract if a contract cannot be used."""
    if len(contracts) > SKILLS_MAX:
        raise BadContract("contracts", f"has more than {SKILLS_MAX} skills")
    for skill, contract in contracts.items():
        place = f"contracts.{_printable(skill)}" if skill else "contracts"
        if not isinstance(contract, Mapping) or not contract or contract.keys() - set(SIDES):
            raise BadContract(place, "must have an input or an output, and nothing else")
        for side in SIDES:
            if side in contract and not isinstance(contract[side], Mapping):
                raise BadContract(f"{place}.{side}", "must be a JSON Schema")
            try:
                check_schema(contract.get(side, {}))
            except BadSchema as error:
                raise BadContract(f"{place}.{side}", str(error)) from error


def check_skill_names(contracts: Mapping[str, Any], skills: Sequence[Skill]) -> None:
    """Raises BadContract if a contract names no skill of the agent. An empty name means all skills."""
    known = [skill.id for skill in skills]
    offered_skills = (
        f"has: {', '.join(map(_printable, known[:SKILLS_NAMED_MAX]))}{', …' if len(known) > SKILLS_NAMED_MAX else ''}"
        if known
        else "has none"
    )
    for skill in sorted(contracts.keys() - {"", *known}):
        near = "".join(f": did you mean `{_printable(each)}`?" for each in get_close_matches(skill, known, 1)) or "."
        raise BadContract(
            f"contracts.{_printable(skill)}", f"is no skill on the agent's card{near} It {offered_skills}; an empty name is for all"
        )


def check_input(contract: Contract, message: Message) -> None:
    """Raises ContractBroken if a message must not be sent to the agent."""
    if contract.input is None:
        return
    if contract.is_declared and all(part.data is UNSET for part in message.parts):
        raise ContractBroken("message.parts", "has no data part, which the agent's contract needs")
    if (breach := find_breach(contract.input, message.parts)) is not None:
        raise ContractBroken(f"message.{breach.path}", f"{breach.text} of the agent's contract")


def find_breach(schema: Mapping[str, Any], parts: Sequence[Part]) -> BrokenRule | None:
    """Returns what the first data part that breaks the schema breaks, with the path from the message or artifact; or None."""
    for place, part in enumerate(parts):
        if part.data is UNSET:
            continue
        try:
            broken = find_broken_rule(schema, part.data)
        except BadSchema:
            broken = BrokenRule("$", "size")  # too expensive to validate
        if broken is not None:
            return BrokenRule(f"parts[{place}].data{_printable(broken.path[1:])}", broken.name, _printable(broken.wanted, WANTED_SHOWN_MAX))
    return None


def _printable(text: str, length: int = NAME_SHOWN_MAX) -> str:
    """Returns an untrusted text with unprintable characters replaced, for use in an error text."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:length])
