"""One limit of `limits.per`: its callers, its callees and its bounds."""

from msgspec import Struct

from policies.delegation.rulings import Act

WORKFLOW = "workflow"


class Limit(Struct, frozen=True):
    """One entry of `limits.per`. A `*` in `who` or `what` gives each subject or callee a meter of its own; empty means one shared meter.

    A bound of None is no bound.
    """

    who: str = ""  # user:NAME | agent:NAME | tenant:NAME
    what: str = ""  # agent:NAME | server:NAME | tool:SERVER.TOOL | workflow:NAME
    rate: float | None = None  # calls a second
    burst: float | None = None
    concurrent: int | None = None
    calls_per_day: int | None = None
    cost_per_day: float | None = None
    cost_per_run: float | None = None  # of each run of a workflow
    max_bytes: int | None = None

    @property
    def is_budget(self) -> bool:
        return self.calls_per_day is not None or self.cost_per_day is not None

    @property
    def is_of_workflow(self) -> bool:
        """Whether the limit counts what runs of workflows cause, instead of calls of an agent or server."""
        return self.what.partition(":")[0] == WORKFLOW

    def subject_of(self, owner: str, actor: str) -> str | None:
        """Returns the subject whose meter counts a call of this owner and agent.

        Returns an empty text for a shared meter, and None if the limit does not apply.
        """
        kind, _, name = self.who.partition(":")
        tenant, _, person = owner.split("|", 2)
        found = {"": "", "user": owner, "agent": actor, "tenant": tenant}[kind]
        if kind in ("", "tenant"):
            return "" if name in ("", "*", found) else None
        if not found or (kind == "user" and not person):
            return None
        return found if name in ("*", found, person if kind == "user" else found) else None

    def callee_of(self, act: Act) -> str | None:
        """Returns the callee whose meter counts this act, empty for a shared meter, or None if the limit does not apply to the act."""
        if not self.what:
            return ""
        kind, _, name = self.what.partition(":")
        if kind == WORKFLOW:
            return None
        if kind == "agent":
            found = act.parent if act.action == "invokeAgent" else ""
        elif kind == "server":
            found = act.parent if act.action != "invokeAgent" else ""
        else:
            found = act.resource if act.action == "callTool" else ""
        fits = name == "*" or name == found or (name.endswith(".*") and found.startswith(name[:-1]))
        return found if found and fits else None

    def counts_workflow(self, workflow: str) -> bool:
        """Whether the limit counts what runs of this workflow cause."""
        kind, _, name = self.what.partition(":")
        return kind == WORKFLOW and name in ("*", workflow)
