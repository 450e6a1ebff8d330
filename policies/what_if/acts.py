"""Acts by their permission, for questions about what would be ruled."""

from policies.cedar.role_rules import ACTION_BY_PREFIX, ADMINISTER_ACTION
from policies.cedar.schema import RESOURCE_KINDS
from policies.delegation.permissions import BadPermission, Permissions
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent


def act_of_permission(permission: str) -> Act:
    """`tool:inventory.check` -> the act of calling it. Raises BadPermission for a permission that names several acts or none."""
    Permissions.parse([permission])
    family = next((family for family in ACTION_BY_PREFIX if permission.startswith(family)), "")
    name = permission.removeprefix(family)
    parent, dot, rest = name.partition(".")
    if not family or name.endswith("*") or (family in ("tool:", "prompt:") and not (dot and rest)):
        raise BadPermission(permission)
    if family in ("tool:", "prompt:"):
        return act_of_calling_tool(parent, rest) if family == "tool:" else act_of_getting_prompt(parent, rest)
    if family == "agent:":
        agent, _, skill = name.partition("/")
        return act_of_invoking_agent(agent, skill)
    action = ACTION_BY_PREFIX[family]
    kind = (
        "Key" if action == ADMINISTER_ACTION else RESOURCE_KINDS.get(action, ("Key",))[0]
    )  # for administration in general, not of one entry
    return Act(action, kind, name, permission, name)


def act_of_resource(action: str, kind: str, name: str) -> Act:
    """The act with this Cedar action (a group or a tool's own) on a resource. Raises BadPermission."""
    wanted = "callTool" if action == name and kind == "Tool" else action
    for family, known in ACTION_BY_PREFIX.items():
        if known == wanted:
            act = act_of_permission(family + name)
            if act.kind == kind:
                return act
    raise BadPermission(f"{action} {kind} {name}")
