"""Finds out whether a list is empty because of the caller's token, and reports it to the caller and in the log."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from gateway.calls.limits.slices import Slices
from policies.callers import Caller, HypotheticalCaller, hypothetical_caller
from policies.delegation.permissions import ALL_PERMISSIONS

SCOPE_MISSING, ROLES_MISSING = "scope-missing", "roles-missing"
Candidates = Iterable[object | None]  # items of a list in any order; None for each that the caller may not use


class LogEmptyList(Protocol):
    """Type of RejectedCredentialLog.log_empty_list."""

    def __call__(self, reason: str, resource: str, issuer: str) -> None: ...


class EmptyListReasons:
    """Explains empty lists. `known_roles` returns the names of all roles that permit something now."""

    def __init__(self, known_roles: Callable[[], Collection[str]], log_empty_list: LogEmptyList) -> None:
        self._known_roles = known_roles
        self._log_empty_list = log_empty_list

    async def find_reason(self, caller: Caller, resource: str, candidates: Callable[[Caller], Candidates]) -> Mapping[str, str] | None:
        """Returns `reason_id` and `detail`, or None when the list is empty for another reason.

        `candidates` returns the items of the list for a given caller. Agents that act for a person requested their scopes themselves, so
        they get no reason.
        """
        if caller.delegation.path:
            return None
        reason = await self._find_reason_id(caller, candidates)
        if not reason:
            return None
        self._log_empty_list(reason, resource, caller.principal.issuer)
        return {"reason_id": reason, "detail": _reason_detail(caller, reason)}

    async def _find_reason_id(self, caller: Caller, candidates: Callable[[Caller], Candidates]) -> str:
        narrowed = caller.delegation.scope != ALL_PERMISSIONS
        if narrowed and await _has_permitted(candidates(hypothetical_caller(HypotheticalCaller(caller.principal)))):
            return SCOPE_MISSING  # whatever gives the person the right: a role of the settings, or a policy
        known = self._known_roles()
        return "" if any(role in known for role in caller.principal.roles) else ROLES_MISSING


async def _has_permitted(candidates: Candidates) -> bool:
    """Returns whether any candidate is permitted. It stops at the first one."""
    async for candidate in Slices(candidates):
        if candidate is not None:
            return True
    return False


def _reason_detail(caller: Caller, reason: str) -> str:
    if reason == ROLES_MISSING:
        return "Your token names no role that this gateway knows. Ask the operator of the gateway which roles or groups it reads."
    known = ", ".join(sorted(caller.scope_map or ()))
    remedy = f"one with some of the scopes {known}" if known else "one whose scopes are not narrowed to other permissions"
    return f"The scopes of your token cover nothing of what your roles allow here. Get another token: {remedy}."
