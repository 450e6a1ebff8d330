"""Administration is never delegated: what an agent may do on behalf of a person, and that it does nothing else."""

from policies.delegation.chain import Delegation
from policies.delegation.rulings import Act

DELEGATED_ADMINISTRATION = "delegated-administration"
# What makes an operator. Nobody can register anything of this kind, so no policy about an entry grants it.
WRITE_REGISTRY = Act("registerAgent", "Key", "write", "registry:write", "write")
# Every other action is administration, and so is one that is added later, until somebody puts it here.
DELEGABLE_ACTIONS = frozenset({"invokeAgent", "callTool", "readResource", "getPrompt", "readState", "writeState", "runWorkflow"})


def is_delegated_administration(delegation: Delegation, act: Act) -> bool:
    """Whether an agent asks for what only a person does: acts on the registry, secrets, policies, kills, approvals, grants, the audit."""
    return bool(delegation.path) and act.action not in DELEGABLE_ACTIONS
