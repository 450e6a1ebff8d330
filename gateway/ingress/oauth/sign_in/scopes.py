"""Scopes of people's tokens: permissions, which narrow what the person may do, and words of OpenID that mean nothing here."""

from collections.abc import Collection
from typing import Final

from policies.delegation.permissions import BadPermission, Permissions

OFFLINE_ACCESS: Final = "offline_access"
WITHOUT_PERMISSION: Final = frozenset({OFFLINE_ACCESS, "openid", "profile", "email", "address", "phone"})
SCOPES_MAX: Final = 100
TEXT_MAX: Final = 4096  # characters
EVERYTHING: Final = "do everything that you may do yourself, administration included"
_ANY: Final = {
    "agent": "send tasks to every agent",
    "tool": "call every tool",
    "prompt": "use every prompt",
    "resource": "read the resources of every server",
    "state": "read and write shared state",
    "memory": "read and write what is remembered",
    "workflow": "upload workflows that run as service principals",
    "registry": "register, change and remove agents and servers",
    "approval": "decide approvals for you",
    "audit": "read the audit of everybody",
    "policy": "change policies, and stop agents, servers and people",
}
_ONE: Final = {
    "agent": "send tasks to the agent {}",
    "tool": "call the tool {}",
    "prompt": "use the prompt {}",
    "resource": "read the resources of the server {}",
}


class BadScope(ValueError):
    """The scope can't be granted; the message is safe to show."""


def parse_scope(text: str, default: Collection[str]) -> str:
    """The permissions of a requested scope, sorted, or `default` where it names none. Raises BadScope for anything unknown."""
    named = [scope for scope in text.split(" ") if scope]
    if len(text) > TEXT_MAX or len(named) > SCOPES_MAX:
        raise BadScope(f"a scope has at most {SCOPES_MAX} words and {TEXT_MAX} characters")
    wanted = [scope for scope in named if scope not in WITHOUT_PERMISSION]
    try:
        return str(Permissions.parse(wanted or default))
    except BadPermission:
        raise BadScope("a scope is a permission of this gateway, such as agent:sales, tool:crm.* or tool:*") from None


def narrow_scope(requested: str, granted: str) -> str:
    """A scope that a refresh asks for, which what was granted has to cover (RFC 6749 s6). Raises BadScope."""
    wanted = parse_scope(requested, granted.split(" "))
    if not Permissions.parse(wanted.split(" ")).is_within(Permissions.parse(granted.split(" "))):
        raise BadScope("the scope is wider than what the person consented to")
    return wanted


def describe_scope(scope: str) -> list[str]:
    """What a scope allows, in words."""
    return [_describe(permission) for permission in scope.split(" ")]


def _describe(permission: str) -> str:
    if permission == "*":
        return EVERYTHING
    kind, _, name = permission.partition(":")
    if name == "*":
        return _ANY.get(kind, f"use {permission}")
    if kind in _ONE and not name.endswith("*"):
        return _ONE[kind].format(name)
    return f"use {permission}"
