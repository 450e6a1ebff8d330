"""Test cases for a folder of policies: a person, agents and an act, and the expected outcome."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.cedar.files.yaml_entries import NotEntries, read_entries
from policies.cedar.syntax import spelling_hint
from policies.delegation.chain import Hop, Principal
from policies.delegation.facts import SubjectEffect, SubjectFacts
from policies.delegation.history import History
from policies.delegation.permissions import ALL_PERMISSIONS, BadPermission, Permissions
from policies.delegation.rulings import Act
from policies.what_if.acts import act_of_permission
from policies.what_if.fact_cases import BadFacts, parse_facts

MEMBERS = (
    "name",
    "who",
    "roles",
    "scope",
    "chain",
    "act",
    "arguments",
    "history",
    "effect",
    "subject",
    "facts",
    "expect",
    "reason",
    "policies",
    "missing",
)
OUTCOMES = ("allow", "deny", "ask")
RolesOf = Callable[[Principal], Sequence[str]]


class BadCases(Exception):
    """The file has no runnable cases; the message is for its author."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test case. `policies` and `missing` None and an empty `reason` are not compared."""

    name: str
    line: int
    principal: Principal
    scope: Permissions
    path: tuple[Hop, ...]
    act: Act
    arguments: Mapping[str, Any] | None
    history: History
    expect: str
    reason: str
    policies: tuple[str, ...] | None
    missing: tuple[str, ...] | None
    effect: SubjectEffect | None = None
    facts: SubjectFacts | None = None


def read_cases(text: str, user_prefix: str, roles_of: RolesOf) -> list[Case]:
    """Parses the cases of a YAML text. `user_prefix`: `tenant|issuer` of people given by a name alone. Raises BadCases."""
    try:
        found = read_entries(text, "cases")
    except NotEntries as error:
        raise BadCases(f"line {error.line}: {error.problem}") from error
    if found is None:
        raise BadCases("has no cases")
    return list(_parse_cases(found, user_prefix, roles_of))


def _parse_cases(found: Iterable[tuple[Any, int]], user_prefix: str, roles_of: RolesOf) -> Iterator[Case]:
    for number, (entry, line) in enumerate(found, 1):
        try:
            yield _parse_case(entry, number, line, user_prefix, roles_of)
        except (BadCases, BadPermission) as error:
            raise BadCases(f"line {line}: {error}") from error


def _parse_case(entry: Any, number: int, line: int, user_prefix: str, roles_of: RolesOf) -> Case:
    if not isinstance(entry, dict):
        raise BadCases("a case must be a mapping")
    if unknown := sorted(str(name) for name in entry.keys() - set(MEMBERS)):
        raise BadCases(f"a case has no {unknown[0]!r}{spelling_hint(unknown[0], MEMBERS)}; it has {', '.join(MEMBERS)}")
    expect, arguments = entry.get("expect"), entry.get("arguments")
    if expect not in OUTCOMES:
        raise BadCases(f"expect must be one of {', '.join(OUTCOMES)}")
    if arguments is not None and not isinstance(arguments, dict):
        raise BadCases("arguments must be a mapping")
    act = act_of_permission(_required_text(entry, "act"))
    return Case(
        name=str(entry.get("name") or f"{entry.get('who')} {act.permission} ({number})"),
        line=line,
        principal=_parse_principal(entry, user_prefix, roles_of),
        scope=Permissions.parse(_optional_texts(entry, "scope") or ()) if "scope" in entry else ALL_PERMISSIONS,
        path=tuple(_parse_hop(one) for one in _list(entry, "chain")),
        act=act,
        arguments=arguments,
        history=_parse_history(entry.get("history", {})),
        **_parse_subject(entry),
        expect=expect,
        reason=_required_text(entry, "reason") if "reason" in entry else "",
        policies=_optional_texts(entry, "policies"),
        missing=_optional_texts(entry, "missing"),
    )


def _parse_principal(entry: Mapping[str, Any], user_prefix: str, roles_of: RolesOf) -> Principal:
    who = _required_text(entry, "who")
    person = parse_principal(who, user_prefix)
    roles = _optional_texts(entry, "roles")
    return Principal(person.tenant, person.issuer, person.subject, tuple(roles_of(person)) if roles is None else roles)


def parse_principal(who: str, user_prefix: str) -> Principal:
    """The principal of `tenant|issuer|subject`, or of a name alone."""
    tenant, issuer, subject = (who if who.count("|") >= 2 else f"{user_prefix}|{who}").split("|", 2)
    return Principal(tenant, issuer, subject)


def _parse_hop(document: Any) -> Hop:
    if isinstance(document, str):
        return Hop(document)
    if isinstance(document, dict) and set(document) <= {"agent", "ceiling"}:
        return Hop(
            _required_text(document, "agent"),
            Permissions.parse(_optional_texts(document, "ceiling") or ()) if "ceiling" in document else ALL_PERMISSIONS,
        )
    raise BadCases("chain must be a list of agents: names, or mappings with agent and ceiling")


def _parse_history(document: Any) -> History:
    """The history of a case; empty by default. Raises BadCases."""
    if not isinstance(document, dict) or set(document) - {"approvals", "calls", "totals", "taint"}:
        raise BadCases("history must be a mapping with some of approvals, calls, totals, taint")
    calls, totals, taint = document.get("calls", {}), document.get("totals", {}), document.get("taint", 0)
    if not all(isinstance(one, dict) and all(type(count) is int for count in one.values()) for one in (calls, totals)):
        raise BadCases("history.calls and history.totals must map names to whole numbers")
    if type(taint) is not int:
        raise BadCases("history.taint must be a whole number")
    return History(-1, taint, totals, calls, _optional_texts(document, "approvals") or ())


def _parse_subject(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The effect of a case on a subject, with the facts about it. Raises BadCases."""
    if "effect" not in entry:
        if "subject" in entry or "facts" in entry:
            raise BadCases("subject and facts need an effect beside them")
        return {"effect": None, "facts": None}
    subject = _required_text(entry, "subject")
    try:
        facts, priority = parse_facts(entry.get("facts", {}))
    except BadFacts as error:
        raise BadCases(str(error)) from error
    return {"effect": SubjectEffect(subject, _required_text(entry, "effect"), priority=priority), "facts": facts}


def _required_text(entry: Mapping[str, Any], name: str) -> str:
    found = entry.get(name)
    if not isinstance(found, str) or not found:
        raise BadCases(f"{name} must be a text")
    return found


def _optional_texts(entry: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    if name not in entry:
        return None
    found = _list(entry, name)
    if not all(isinstance(one, str) for one in found):
        raise BadCases(f"{name} must be a list of texts")
    return tuple(found)


def _list(entry: Mapping[str, Any], name: str) -> list[Any]:
    found = entry.get(name, [])
    if not isinstance(found, list):
        raise BadCases(f"{name} must be a list")
    return found
