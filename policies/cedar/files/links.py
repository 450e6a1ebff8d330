"""Template links: policy templates of the operator's files, filled in by the entries of `links.yaml`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policies.cedar.files.folder import LINKS, BadPolicy
from policies.cedar.files.yaml_entries import NotEntries, read_entries
from policies.cedar.schema import ENTITY_TYPES
from policies.cedar.syntax import spelling_hint

ENTITY_LITERAL = re.compile(r'([A-Z][A-Za-z]*)::"([^"\\]+)"')
MEMBERS = ("template", "principal", "resource", "id")
SLOTS = ("principal", "resource")
Policy = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TemplateLink:
    """One entry of links.yaml: the template's @id, the Cedar type and id for each slot, and its line."""

    template: str
    id: str
    values: Mapping[str, tuple[str, str]]
    line: int


def fill_templates(text: str, templates: Mapping[str, Policy], user_prefix: str) -> Iterator[tuple[TemplateLink, Policy]]:
    """Yields each link with its policy. `user_prefix` is `tenant|issuer` of people given by a name alone. Raises BadPolicy."""
    for link in _read_links(text, user_prefix):
        template = templates.get(link.template)
        if template is None:
            raise BadPolicy(LINKS, f"there is no template {link.template!r}{spelling_hint(link.template, templates)}", link.line)
        yield link, _fill_template(template, link)


def _fill_template(template: Policy, link: TemplateLink) -> Policy:
    made = {**template, "annotations": {**template["annotations"], "id": link.id}}
    for slot in SLOTS:
        scope = template[slot]
        wanted, entity = _has_slot(scope), link.values.get(slot)
        if wanted != (entity is not None):
            raise BadPolicy(LINKS, f"template {link.template!r} {'needs a' if wanted else 'takes no'} {slot}", link.line)
        if entity is not None:
            made[slot] = _with_entity(scope, {"type": entity[0], "id": entity[1]})
    return made


def _has_slot(scope: Mapping[str, Any]) -> bool:
    return "slot" in scope or "slot" in scope.get("in", {})


def _with_entity(scope: Mapping[str, Any], entity: Mapping[str, str]) -> dict[str, Any]:
    if "slot" in scope:
        return {"op": scope["op"], "entity": entity}
    return {**scope, "in": {"entity": entity}}


def _read_links(text: str, user_prefix: str) -> Iterator[TemplateLink]:
    try:
        found = read_entries(text, "links")
    except NotEntries as error:
        raise BadPolicy(LINKS, error.problem, error.line) from error
    for number, (entry, line) in enumerate(found or (), 1):
        yield _read_link(entry, line, number, user_prefix)


def _read_link(entry: Any, line: int, number: int, user_prefix: str) -> TemplateLink:
    if not isinstance(entry, dict) or any(not isinstance(part, str) for pair in entry.items() for part in pair):
        raise BadPolicy(LINKS, "the members of a link must be texts: template, principal, resource, id", line)
    if unknown := sorted(entry.keys() - set(MEMBERS)):
        raise BadPolicy(LINKS, f"a link has no {unknown[0]!r}{spelling_hint(unknown[0], MEMBERS)}", line)
    if not entry.get("template"):
        raise BadPolicy(LINKS, "a link must name its template", line)
    values = {slot: _parse_entity(entry[slot], slot, line, user_prefix) for slot in SLOTS if slot in entry}
    return TemplateLink(entry["template"], entry.get("id") or f"{entry['template']}@{number}", values, line)


def _parse_entity(text: str, slot: str, line: int, user_prefix: str) -> tuple[str, str]:
    """The type and id of an entity such as `Tool::"inventory.check"`. A principal may also be `tenant|issuer|subject` or a name."""
    named = ENTITY_LITERAL.fullmatch(text)
    if named and named[1] in ENTITY_TYPES:
        return named[1], named[2]
    if slot == "principal" and "::" not in text and '"' not in text:
        if text.count("|") >= 2:
            return "User", text
        if text and "|" not in text:
            return "User", f"{user_prefix}|{text}"
    example = 'tenant|issuer|subject, a user\'s name or Role::"sales"' if slot == "principal" else 'Tool::"inventory.check_stock"'
    raise BadPolicy(LINKS, f"{slot} {text!r} is not of the form {example}", line)
