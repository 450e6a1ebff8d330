"""What a server offers is pinned by hash: what changed, and what is new and steers models, is withheld until an operator approves it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import rfc8785

from registry.cards.card import INSTRUCTIONS, Prompt, Registration, Resource, Template, Tool, Withheld
from registry.drift.comparison import Change, changes
from registry.drift.suspicions import suspicions
from registry.rows import LISTS, Candidate, lists_of, made

Definition = Mapping[str, Any]
Offered = TypeVar("Offered", Tool, Prompt, Resource, Template)
Entry = TypeVar("Entry", Registration, Candidate)
FREE = frozenset({"resources"})  # these come and go as their server works; what one says of itself is pinned while it is listed
GONE_MAX = 4000  # definitions that a server does not list any more and that are still known when they come back


def pin(definition: Definition) -> str:
    """sha256 over the canonical form (RFC 8785), in hex; where it has none, a number being too large, over sorted JSON."""
    try:
        canonical = rfc8785.dumps(dict(definition))
    except rfc8785.CanonicalizationError:
        canonical = b"json:" + json.dumps(definition, sort_keys=True).encode()
    return hashlib.sha256(canonical).hexdigest()


def first_seen(found: Candidate) -> Candidate:
    """A server that an operator registers: all is in force but what has texts that a person would overlook and a model obey."""
    withheld = [
        Withheld(kind, name, None, definition)
        for kind, each in lists_of(found).items()
        for name, definition in each.items()
        if suspicions(definition, longest=None)
    ]
    doubtful = {(one.kind, one.name) for one in withheld}
    kept = {
        kind: [definition for name, definition in each.items() if (kind, name) not in doubtful] for kind, each in lists_of(found).items()
    }
    said = _instructions(found)
    if said is not None and suspicions(said, longest=None):
        withheld.append(Withheld(INSTRUCTIONS, INSTRUCTIONS, None, said))
        found = _instructed(found, None)
    return replace(found, **made(kept), withheld=tuple(withheld))


def renewed(entry: Registration, found: Candidate) -> Candidate:
    """What of `found` may be in force without anybody's approval: what is as it was when it was pinned."""
    pinned, offered = _pinned(entry), lists_of(found)
    in_force: dict[str, list[Definition]] = {}
    withheld: list[Withheld] = []
    for kind in LISTS:
        order = [name for name in lists_of(entry)[kind] if name in offered[kind]]
        names = [*order, *(name for name in offered[kind] if name not in lists_of(entry)[kind])]
        in_force[kind] = []
        for name in names:
            before, after = pinned[kind].get(name), offered[kind][name]
            if _in_force(kind, before, after):
                in_force[kind].append(after if before is None else before)
            else:
                withheld.append(Withheld(kind, name, before, after))
        if kind not in FREE:
            withheld += [Withheld(kind, name, before, None) for name, before in pinned[kind].items() if name not in offered[kind]]
    approved_before, said = _pinned_instructions(entry), _instructions(found)
    if said != approved_before:
        withheld.append(Withheld(INSTRUCTIONS, INSTRUCTIONS, approved_before, said))
        found = _instructed(found, None)
    return replace(found, **made(in_force), withheld=_bounded(withheld))


def unchanged(entry: Registration) -> Candidate:
    """What a server offers that can't be asked again: what it did."""
    lists = {kind: list(each.values()) for kind, each in lists_of(entry).items()}
    said = _instructions(entry)
    for one in waiting(entry):
        if one.kind == INSTRUCTIONS:
            said = one.after
        else:
            lists[one.kind].append(one.after or {})
    found = Candidate(
        entry.tenant, entry.name, entry.family, entry.kind, entry.url, entry.owner, entry.status, facts=entry.facts, **made(lists)
    )
    return _instructed(found, said)


def _in_force(kind: str, before: Definition | None, after: Definition) -> bool:
    if before is None:
        return kind in FREE and not suspicions(after, longest=None)
    return _same(before, after)


def _same(before: Definition, after: Definition) -> bool:
    """Whether both have the same pin. Two equal texts have; most definitions are unchanged, and a pin costs a hundred times more."""
    return msgspec.json.encode(before) == msgspec.json.encode(after) or pin(before) == pin(after)


def _pinned(entry: Registration) -> dict[str, dict[str, Definition]]:
    """By kind and name: what was approved, whether it is in force or not."""
    pinned = {kind: dict(each) for kind, each in lists_of(entry).items()}
    for one in entry.withheld:
        if one.before is not None and one.kind != INSTRUCTIONS:
            pinned[one.kind][one.name] = one.before
    return pinned


def _instructions(entry: Entry) -> Definition | None:
    """What a server tells models of its use, as a definition; None where it says nothing."""
    text = entry.facts.get(INSTRUCTIONS)
    return {"text": text} if text else None


def _pinned_instructions(entry: Registration) -> Definition | None:
    """Those that were approved, whether they are in force or not."""
    held = next((one.before for one in entry.withheld if one.kind == INSTRUCTIONS), None)
    return held or _instructions(entry)


def _instructed(entry: Entry, said: Definition | None) -> Entry:
    """The entry with these instructions in force."""
    facts = {name: value for name, value in entry.facts.items() if name != INSTRUCTIONS}
    return replace(entry, facts=facts | ({INSTRUCTIONS: said["text"]} if said else {}))


def _bounded(withheld: Sequence[Withheld]) -> tuple[Withheld, ...]:
    gone = [one for one in withheld if one.after is None]
    forgotten = {(one.kind, one.name) for one in gone[: max(len(gone) - GONE_MAX, 0)]}
    return tuple(one for one in withheld if one.after is not None or (one.kind, one.name) not in forgotten)


def waiting(entry: Registration) -> Iterator[Withheld]:
    """What an operator can approve."""
    return (one for one in entry.withheld if one.after is not None)


def approved(entry: Registration, chosen: Mapping[str, Sequence[str]] | None) -> Registration:
    """`chosen`: names by kind; None: all that waits. Those are in force, and pinned as they are now."""
    taken = [one for one in waiting(entry) if chosen is None or one.name in chosen.get(one.kind, ())]
    lists = {kind: [*each.values()] for kind, each in lists_of(entry).items()}
    for one in taken:
        assert one.after is not None  # it waits
        if one.kind == INSTRUCTIONS:
            entry = _instructed(entry, one.after)
        else:
            lists[one.kind].append(one.after)
    return replace(entry, **made(lists), withheld=tuple(one for one in entry.withheld if one not in taken))


def differences(entry: Registration) -> list[Change]:
    """Between what was pinned and what waits, definition by definition."""
    found: list[Change] = []
    for one in waiting(entry):
        path = f"{one.kind}[{one.name}]"
        if one.before is None:
            found.append(Change(path, None, one.after))
        else:
            found += [replace(change, path=f"{path}.{change.path}") for change in changes(one.before, one.after or {})]
    return found


def shown(one: Withheld) -> dict[str, Any]:
    """What waits, for operators: its pin, and that of what was in force."""
    state = "gone" if one.after is None else "new" if one.before is None else "changed"
    pins = {"pinned": one.before and pin(one.before), "found": one.after and pin(one.after)}
    return {"kind": one.kind, "name": one.name, "state": state, **pins, "warnings": suspicions(one.after or {}, longest=None)}
