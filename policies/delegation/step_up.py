"""The scope that a client asks a person for after a refusal (the step-up of MCP's authorization, RFC 6750 s3.1)."""

from collections.abc import Callable, Iterator
from typing import Final

from policies.delegation.permissions import Permissions

DELEGABLE_KINDS: Final = ("agent:", "tool:", "prompt:", "resource:", "state:", "memory:")
NEEDS_MAX: Final = 50  # permissions that a refusal adds at most; a longer list would not fit into a header, nor on a page


def scope_after_consent(scope: Permissions, permission: str, ceiling: Permissions | None, may_hold: Callable[[str], bool]) -> str:
    """The scope that a person is to consent to: what the token has, `permission`, and all that the called agent needs.

    `ceiling` is that of the called agent, None without one. `may_hold` says whether the person's roles cover a permission. "" where they do
    not cover `permission` itself, since the person would sign in for nothing.
    """
    if not may_hold(permission):
        return ""
    missing = {permission, *(each for each in _needs_of(ceiling) if may_hold(each) and not scope.covers(each))}
    return str(Permissions(scope.patterns | (missing if len(missing) <= NEEDS_MAX else {permission})))


def _needs_of(ceiling: Permissions | None) -> Iterator[str]:
    """The permissions that a ceiling names one by one, as that of a workflow does. A wildcard is a bound, and no need."""
    if ceiling is not None:
        yield from (each for each in ceiling.patterns if each.startswith(DELEGABLE_KINDS) and not each.endswith("*"))
