"""The selection of a virtual server: tools, prompts and resources of several servers, and agents, some with other names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from registry.names import InvalidMember
from registry.virtual.tool_overrides import BadOverride, ToolOverride

ITEMS_MAX = 1000
_ALIAS = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOOL = re.compile(r"\*|[a-z0-9-]{1,64}(?:\.[^\x00-\x1f\x7f]{1,128}|/[^\x00-\x1f\x7f]{1,128})?")
_PROMPT = re.compile(r"\*|[a-z0-9-]{1,64}\.[^\x00-\x1f\x7f]{1,128}")
_RESOURCE = re.compile(r"\*|[a-z0-9-]{1,64}(?:\+[!-~]{1,2048})?")


class BadSelection(InvalidMember, ValueError):
    """The selection is invalid. `field` is a path such as `tools[0]`; the message is safe to show."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a virtual server offers. `*` alone selects everything.

    `tools`: `crm.search`, `crm.*`, agents as `sales` and `sales/quote`. `prompts`: `crm.greeting`, `crm.*`. `resources`: `crm`,
    `crm+note://*`. `aliases`: another name -> `crm.search`. `search`: offers two tools that find all others. `overrides`: `crm.search` ->
    how it is shown.
    """

    description: str = ""
    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    search: bool = False
    overrides: Mapping[str, ToolOverride] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Reads the form that `to_document` returns. Raises BadSelection."""
        made = cls(
            str(document.get("description", "")),
            _check_patterns("tools", document.get("tools", ()), _TOOL),
            _check_patterns("prompts", document.get("prompts", ()), _PROMPT),
            _check_patterns("resources", document.get("resources", ()), _RESOURCE),
            dict(document.get("aliases", {})),
            document.get("mode", "all") == "search",
            _parse_overrides(document.get("overrides", {})),
        )
        for alias, target in made.aliases.items():
            if not _ALIAS.fullmatch(alias):
                raise BadSelection("aliases", "are 1 to 64 characters of A-Z, a-z, 0-9, _, . and -")
            if "*" in target or not _TOOL.fullmatch(target):
                raise BadSelection(f"aliases.{alias}", "must name one tool, prompt or agent, as crm.search or sales")
        if len(set(made.aliases.values())) < len(made.aliases):
            raise BadSelection("aliases", "give the same target two names")
        if not (made.tools or made.prompts or made.resources):
            raise BadSelection("tools", "prompts or resources are needed")
        return made

    def to_document(self) -> dict[str, Any]:
        """The JSON form that `from_document` reads."""
        lists = {"tools": list(self.tools), "prompts": list(self.prompts), "resources": list(self.resources)}
        document = {"description": self.description, **lists, "aliases": dict(self.aliases), "mode": "search" if self.search else "all"}
        overrides = {name: each.to_document() for name, each in self.overrides.items()}
        return document | ({"overrides": overrides} if overrides else {})

    def has_tool(self, name: str) -> bool:
        """Whether it selects `crm.search`, `sales` or `sales/quote`; an agent includes all of its skills."""
        owner, slash, _ = name.partition("/")
        return _matches_any(self.tools, name) or bool(slash and "." not in owner and owner in self.tools)

    def has_prompt(self, name: str) -> bool:
        return _matches_any(self.prompts, name)

    def has_resource(self, server: str, uri: str) -> bool:
        """Whether it selects a resource, or a template by its text."""
        return server in self.resources or _matches_any(self.resources, f"{server}+{uri}")

    def may_include(self, name: str) -> bool:
        """Whether it may select anything of this agent or server."""
        return any(re.split(r"[.+/]", each, maxsplit=1)[0] in ("*", name) for each in (*self.tools, *self.prompts, *self.resources))

    def alias_of(self, name: str) -> str | None:
        return next((alias for alias, target in self.aliases.items() if target == name), None)


def _parse_overrides(document: Any) -> dict[str, ToolOverride]:
    """Reads the overrides. Raises BadSelection."""
    if not isinstance(document, Mapping) or len(document) > ITEMS_MAX:
        raise BadSelection("overrides", f"must be a mapping of at most {ITEMS_MAX} tools")
    found = {}
    for name, each in document.items():
        if not isinstance(name, str) or "*" in name or not _TOOL.fullmatch(name):
            raise BadSelection("overrides", "must name single tools or agents, as crm.search or sales")
        try:
            found[name] = ToolOverride.from_document(each)
        except BadOverride as error:
            raise BadSelection(f"overrides.{name}{'.' if error.field else ''}{error.field}", error.problem) from error
    return found


def _matches_any(patterns: Iterable[str], name: str) -> bool:
    return any(pattern == name or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in patterns)


def _check_patterns(field: str, patterns: Any, form: re.Pattern[str]) -> tuple[str, ...]:
    if not isinstance(patterns, list | tuple) or len(patterns) > ITEMS_MAX:
        raise BadSelection(field, f"must be a list of at most {ITEMS_MAX} texts")
    for index, text in enumerate(patterns):
        if not isinstance(text, str) or not form.fullmatch(text):
            raise BadSelection(f"{field}[{index}]", "names nothing that can be selected")
    return tuple(patterns)
