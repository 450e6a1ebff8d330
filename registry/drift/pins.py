"""Pins a server's definitions by hash: changed ones, and new ones that steer models, are withheld until an operator approves them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import rfc8785

from registry.cards.card import INSTRUCTIONS, Registration, WithheldDefinition
from registry.drift.comparison import Difference, compare_documents
from registry.drift.suspicions import find_suspicions
from registry.rows import DEFINITION_LISTS, Candidate, definitions_by_kind, definitions_in_force

Definition = Mapping[str, Any]
Entry = TypeVar("Entry", Registration, Candidate)
UNPINNED_KINDS = frozenset({"resources"})  # they come and go as the server works; the definition of one is pinned while it is listed
GONE_MAX = 4000  # definitions that a server no longer lists, and that are recognized when they return


def pin_hash(definition: Definition) -> str:
    """sha256 (hex) over the canonical form (RFC 8785); over sorted JSON where a number is too large for that form."""
    try:
        canonical = rfc8785.dumps(dict(definition))
    except rfc8785.CanonicalizationError:
        canonical = b"json:" + json.dumps(definition, sort_keys=True).encode()
    return hashlib.sha256(canonical).hexdigest()


def withhold_suspicious(found: Candidate) -> Candidate:
    """The offer of a newly registered server, without the definitions that have suspicious texts, which are withheld."""
    withheld = [
        WithheldDefinition(kind, name, None, definition)
        for kind, each in definitions_in_force(found).items()
        for name, definition in each.items()
        if find_suspicions(definition, length_max=None)
    ]
    doubtful = {(one.kind, one.name) for one in withheld}
    offered_definitions = {
        kind: [definition for name, definition in each.items() if (kind, name) not in doubtful]
        for kind, each in definitions_in_force(found).items()
    }
    instructions = _instructions_of(found)
    if instructions is not None and find_suspicions(instructions, length_max=None):
        withheld.append(WithheldDefinition(INSTRUCTIONS, INSTRUCTIONS, None, instructions))
        found = _with_instructions(found, None)
    return replace(found, **definitions_by_kind(offered_definitions), withheld=tuple(withheld))


def withhold_changed(entry: Registration, found: Candidate) -> Candidate:
    """The offer with only the definitions that equal their pins in force; all others are withheld for approval."""
    pinned, offered = _pinned_definitions(entry), definitions_in_force(found)
    in_force: dict[str, list[Definition]] = {}
    withheld: list[WithheldDefinition] = []
    for kind in DEFINITION_LISTS:
        order = [name for name in definitions_in_force(entry)[kind] if name in offered[kind]]
        names = [*order, *(name for name in offered[kind] if name not in definitions_in_force(entry)[kind])]
        in_force[kind] = []
        for name in names:
            before, after = pinned[kind].get(name), offered[kind][name]
            if _may_be_in_force(kind, before, after):
                in_force[kind].append(after if before is None else before)
            else:
                withheld.append(WithheldDefinition(kind, name, before, after))
        if kind not in UNPINNED_KINDS:
            withheld += [WithheldDefinition(kind, name, before, None) for name, before in pinned[kind].items() if name not in offered[kind]]
    approved_before, instructions = _pinned_instructions(entry), _instructions_of(found)
    if instructions != approved_before:
        withheld.append(WithheldDefinition(INSTRUCTIONS, INSTRUCTIONS, approved_before, instructions))
        found = _with_instructions(found, None)
    return replace(found, **definitions_by_kind(in_force), withheld=_limit_gone(withheld))


def candidate_as_offered(entry: Registration) -> Candidate:
    """The last known offer of a server, pending changes included, for one that can't be asked again."""
    lists = {kind: list(each.values()) for kind, each in definitions_in_force(entry).items()}
    instructions = _instructions_of(entry)
    for one in awaiting_approval(entry):
        if one.kind == INSTRUCTIONS:
            instructions = one.after
        else:
            lists[one.kind].append(one.after or {})
    found = Candidate(
        entry.tenant,
        entry.name,
        entry.family,
        entry.kind,
        entry.url,
        entry.owner,
        entry.status,
        facts=entry.facts,
        **definitions_by_kind(lists),
    )
    return _with_instructions(found, instructions)


def _may_be_in_force(kind: str, before: Definition | None, after: Definition) -> bool:
    if before is None:
        return kind in UNPINNED_KINDS and not find_suspicions(after, length_max=None)
    return _have_same_pin(before, after)


def _have_same_pin(before: Definition, after: Definition) -> bool:
    """Whether both have the same pin. Compares their JSON first: most are unchanged, and a pin costs a hundred times more."""
    return msgspec.json.encode(before) == msgspec.json.encode(after) or pin_hash(before) == pin_hash(after)


def _pinned_definitions(entry: Registration) -> dict[str, dict[str, Definition]]:
    """The approved definitions by kind and name, in force or not."""
    pinned = {kind: dict(each) for kind, each in definitions_in_force(entry).items()}
    for one in entry.withheld:
        if one.before is not None and one.kind != INSTRUCTIONS:
            pinned[one.kind][one.name] = one.before
    return pinned


def _instructions_of(entry: Entry) -> Definition | None:
    """The instructions of a server for models, as a definition; None where it has none."""
    text = entry.facts.get(INSTRUCTIONS)
    return {"text": text} if text else None


def _pinned_instructions(entry: Registration) -> Definition | None:
    """The approved instructions, in force or not."""
    held = next((one.before for one in entry.withheld if one.kind == INSTRUCTIONS), None)
    return held or _instructions_of(entry)


def _with_instructions(entry: Entry, instructions: Definition | None) -> Entry:
    """The entry with these instructions in force."""
    facts = {name: value for name, value in entry.facts.items() if name != INSTRUCTIONS}
    return replace(entry, facts=facts | ({INSTRUCTIONS: instructions["text"]} if instructions else {}))


def _limit_gone(withheld: Sequence[WithheldDefinition]) -> tuple[WithheldDefinition, ...]:
    gone = [one for one in withheld if one.after is None]
    forgotten = {(one.kind, one.name) for one in gone[: max(len(gone) - GONE_MAX, 0)]}
    return tuple(one for one in withheld if one.after is not None or (one.kind, one.name) not in forgotten)


def awaiting_approval(entry: Registration) -> Iterator[WithheldDefinition]:
    """Yields the withheld definitions that an operator can approve."""
    return (one for one in entry.withheld if one.after is not None)


def with_approved(entry: Registration, chosen_names: Mapping[str, Sequence[str]] | None) -> Registration:
    """The entry with withheld definitions put into force and pinned. `chosen_names`: names by kind; None: all that wait."""
    taken = [one for one in awaiting_approval(entry) if chosen_names is None or one.name in chosen_names.get(one.kind, ())]
    lists = {kind: [*each.values()] for kind, each in definitions_in_force(entry).items()}
    for one in taken:
        assert one.after is not None  # awaiting_approval has no others
        if one.kind == INSTRUCTIONS:
            entry = _with_instructions(entry, one.after)
        else:
            lists[one.kind].append(one.after)
    return replace(entry, **definitions_by_kind(lists), withheld=tuple(one for one in entry.withheld if one not in taken))


def pinned_differences(entry: Registration) -> list[Difference]:
    """The differences between pinned and waiting definitions."""
    found: list[Difference] = []
    for one in awaiting_approval(entry):
        path = f"{one.kind}[{one.name}]"
        if one.before is None:
            found.append(Difference(path, None, one.after))
        else:
            found += [replace(change, path=f"{path}.{change.path}") for change in compare_documents(one.before, one.after or {})]
    return found


def describe_withheld(one: WithheldDefinition) -> dict[str, Any]:
    """A withheld definition for operators: its state, the pins of both versions, and warnings."""
    state = "gone" if one.after is None else "new" if one.before is None else "changed"
    pins = {"pinned": one.before and pin_hash(one.before), "found": one.after and pin_hash(one.after)}
    return {"kind": one.kind, "name": one.name, "state": state, **pins, "warnings": find_suspicions(one.after or {}, length_max=None)}
