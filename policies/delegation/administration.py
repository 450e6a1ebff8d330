"""Administration is never delegated: an agent may only do acts of these kinds on behalf of a person."""

from policies.delegation.chain import Delegation
from policies.delegation.rulings import Act

DELEGATED_ADMINISTRATION = "delegated-administration"
# The act of an operator. No registry entry has this kind, so no policy about an entry grants it.
WRITE_REGISTRY = Act("registerAgent", "Key", "write", "registry:write", "write")
# An action that is not listed here counts as administration, so a new action can't be delegated by default.
DELEGABLE_ACTIONS = frozenset({"invokeAgent", "callTool", "readResource", "getPrompt", "readState", "writeState", "runWorkflow"})


def is_delegated_administration(delegation: Delegation, act: Act) -> bool:
    """Whether an agent asks for administration: acts on the registry, secrets, policies, kills, approvals, grants or the audit log."""
    return bool(delegation.path) and act.action not in DELEGABLE_ACTIONS
