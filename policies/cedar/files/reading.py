"""Reads policies from text: each gets a unique id, its file and its line."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from policies.cedar.actions import group_actions
from policies.cedar.annotations import parse_ask, parse_total
from policies.cedar.files.folder import LINKS, BadPolicy, read_built_in
from policies.cedar.files.links import fill_templates
from policies.cedar.files.positions import fault_line, line_of, overgrown_line
from policies.cedar.input_paths import check_decimals
from policies.cedar.syntax import find_misspelt_name

Policy = dict[str, Any]
FileText = tuple[str, str]  # the name and the text of a file
LEVELS_MAX = 120  # of a policy as JSON: Cedar writes deeper ones, but can't read them again
OVERGROWN = "a policy is nested too deeply: write [a, b].contains(c) instead of many ||, or split the policy in two"
ToJson = Callable[[str], str]  # Cedar's parser; raises ValueError


@dataclass(slots=True)
class ParsedPolicies:
    """The policies of some files. `policies` and `places` (file and line) have the same keys; `templates` are by @id."""

    policies: dict[str, Policy] = field(default_factory=dict)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    templates: dict[str, Policy] = field(default_factory=dict)
    unused_templates: dict[str, tuple[str, int]] = field(default_factory=dict)  # templates without a link

    def add(self, key: str, policy: Policy, place: tuple[str, int]) -> None:
        self.policies[key] = policy
        self.places[key] = place


def read_policies(texts: Iterable[FileText], to_json: ToJson, user_prefix: str) -> ParsedPolicies:
    """Parses policies, fills in templates, and checks each policy. Raises BadPolicy."""
    read, links = ParsedPolicies(), ""
    for file, text in texts:
        if file == LINKS:
            links = text
            continue
        for index, policy, is_template in _parse_file(file, text, to_json):
            place = (file, line_of(text, index))
            if _nesting_depth(policy) > LEVELS_MAX:
                raise BadPolicy(file, OVERGROWN, place[1])
            if problem := find_misspelt_name(policy):
                raise BadPolicy(file, f"policy {index + 1}: {problem}", place[1])
            policy = _check_and_group(file, policy, place[1])
            policy["annotations"] = {**policy.get("annotations", {})}
            name = policy["annotations"]["id"] = policy["annotations"].get("id") or f"{file}#{index + 1}"
            if not is_template:
                read.add(f"{file}#{index + 1}", policy, place)
            elif name in read.templates:
                raise BadPolicy(file, f'@id("{name}") is taken by another template', place[1])
            else:
                read.templates[name], read.unused_templates[name] = policy, place
    for number, (link, policy) in enumerate(fill_templates(links, read.templates, user_prefix), 1):
        read.add(f"{LINKS}#{number}", policy, (LINKS, link.line))
        read.unused_templates.pop(link.template, None)
    return read


@cache
def read_built_in_policies(to_json: ToJson, user_prefix: str) -> ParsedPolicies:
    """Parses the policies of the package, once in a process."""
    return read_policies(read_built_in(), to_json, user_prefix)


def _check_and_group(file: str, policy: Policy, line: int) -> Policy:
    """Checks the annotations and decimals of a policy, and applies it to the group of tools. Raises BadPolicy."""
    try:
        parse_ask(policy)
        parse_total(policy)
        check_decimals(policy)
        return group_actions(policy)
    except ValueError as error:
        raise BadPolicy(file, str(error), line) from error


def _parse_file(file: str, text: str, to_json: ToJson) -> Iterator[tuple[int, Policy, bool]]:
    """Yields the position in the file, the policy, and whether it is a template. Raises BadPolicy."""
    if line := overgrown_line(text):
        raise BadPolicy(file, OVERGROWN, line)
    try:
        document = json.loads(to_json(text))
    except ValueError as error:
        raise BadPolicy(file, str(error), fault_line(text, lambda part: _parse_error(part, to_json))) from error
    for kind in ("staticPolicies", "templates"):
        for key, policy in document[kind].items():
            yield int(key.removeprefix("policy")), policy, kind == "templates"


def _nesting_depth(policy: Policy) -> int:
    """The nesting depth of a policy, computed without recursion."""
    levels = 0
    within: list[Any] = [policy]
    while within:
        levels += 1
        within = [inner for one in within for inner in (one.values() if isinstance(one, dict) else one) if isinstance(inner, dict | list)]
    return levels


def _parse_error(text: str, to_json: ToJson) -> str:
    """Cedar's error for a text; empty for a valid one."""
    try:
        to_json(text)
    except ValueError as error:
        return str(error)
    return ""


def check_unique_ids(policies: Mapping[str, Mapping[str, Any]], places: Mapping[str, tuple[str, int]]) -> None:
    """Raises BadPolicy where two policies share an @id, or one has an id of the role rules: explanations name policies by @id."""
    seen: dict[str, str] = {}
    for key, policy in policies.items():
        name, (file, line) = policy["annotations"]["id"], places[key]
        if name in seen or name.startswith("role:"):
            raise BadPolicy(file, f'@id("{name}") is taken by {seen.get(name, "the role rule")}', line)
        seen[name] = file
