"""Acts by the permission that stands for them, for whoever asks what would be ruled."""

from policies.cedar.role_rules import ADMINISTER, FAMILIES
from policies.cedar.schema import RESOURCES
from policies.delegation.permissions import BadPermission, Permissions
from policies.delegation.rulings import Act, calling, getting, invoking


def act_of(permission: str) -> Act:
    """`tool:inventory.check` -> the act of calling it. Raises BadPermission for anything that stands for several acts, or for none."""
    Permissions.of([permission])
    family = next((family for family in FAMILIES if permission.startswith(family)), "")
    name = permission.removeprefix(family)
    parent, dot, rest = name.partition(".")
    if not family or name.endswith("*") or (family in ("tool:", "prompt:") and not (dot and rest)):
        raise BadPermission(permission)
    if family in ("tool:", "prompt:"):
        return calling(parent, rest) if family == "tool:" else getting(parent, rest)
    if family == "agent:":
        agent, _, skill = name.partition("/")
        return invoking(agent, skill)
    action = FAMILIES[family]
    kind = "Key" if action == ADMINISTER else RESOURCES.get(action, ("Key",))[0]  # of administration as such, not of one entry
    return Act(action, kind, name, permission, name)


def named_act(action: str, kind: str, name: str) -> Act:
    """The same by an action of Cedar's, or by a tool's own, and a resource. Raises BadPermission."""
    wanted = "callTool" if action == name and kind == "Tool" else action
    for family, known in FAMILIES.items():
        if known == wanted:
            act = act_of(family + name)
            if act.kind == kind:
                return act
    raise BadPermission(f"{action} {kind} {name}")
