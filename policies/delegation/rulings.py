"""Rulings: a Grant, a Denial or a Question. They are values, not exceptions; only `policies/authority.py` makes grants."""

from msgspec import Struct
from msgspec.structs import replace

from policies.delegation.chain import Delegation
from policies.delegation.history import VERB_FOLLOW_TASK, VERB_STOP_TASK, HistoryMark

STATE_ACTIONS = frozenset({"readState", "writeState"})  # on keys of the board and types of events, whose segments have slashes between
SERVER_KINDS = frozenset({"Tool", "Prompt"})  # their parent is a server


class Act(Struct, frozen=True):
    """One act: a Cedar action on a resource, and the permission string for both.

    `parent` is the server of a tool or a prompt, the agent of a skill, else the resource itself.
    """

    action: str  # invokeAgent | callTool | … (see docs/permissions.md)
    kind: str  # Agent | Tool | Server | …
    resource: str  # `sales`, `inventory.reserve`
    permission: str  # `agent:sales`, `tool:inventory.reserve`
    parent: str
    verb: str = ""  # distinguishes acts of one action: approve, remove, follow-a-task-of, …; policies do not see it


def act_of_invoking_agent(agent: str, skill: str = "") -> Act:
    """The act of sending a message to an agent, or to one skill of it."""
    name = f"{agent}/{skill}" if skill else agent
    return Act("invokeAgent", "Agent", name, f"agent:{name}", agent)


def act_of_calling_tool(server: str, tool: str) -> Act:
    """The act of calling a tool of an MCP server."""
    name = f"{server}.{tool}"
    return Act("callTool", "Tool", name, f"tool:{name}", server)


def act_of_following_task(server: str, tool: str) -> Act:
    """The act of reading or answering a task that a server created for a tool call."""
    return replace(act_of_calling_tool(server, tool), verb=VERB_FOLLOW_TASK)


def act_of_stopping_task(server: str, tool: str) -> Act:
    """The act of canceling a task that a server created for a tool call."""
    return replace(act_of_calling_tool(server, tool), verb=VERB_STOP_TASK)


def act_of_getting_prompt(server: str, prompt: str) -> Act:
    """The act of getting a prompt of an MCP server."""
    name = f"{server}.{prompt}"
    return Act("getPrompt", "Prompt", name, f"prompt:{name}", server)


def act_of_reading_resource(server: str) -> Act:
    """The act of reading any resource of an MCP server."""
    return Act("readResource", "Server", server, f"resource:{server}", server)


class ChainLink(Struct, frozen=True):
    """One agent of a chain with the most that it was allowed, for explanations."""

    agent: str
    permissions: tuple[str, ...]


class Decision(Struct, frozen=True):
    """The reasons of a ruling, as `interlock why` shows them."""

    id: str
    at: int  # microseconds since 1970
    allowed: bool
    reason_id: str
    principal: str  # tenant|issuer|subject
    roles: tuple[str, ...]
    chain: tuple[ChainLink, ...]
    act: Act
    policies: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # permissions that were missing, e.g. `tool:inventory.reserve (user)`
    grant_id: str = ""
    task_id: str = ""
    txn: str = ""
    trace_id: str = ""
    arguments: str = ""  # sha256 of the canonical arguments, where the act has any
    policy_version: str = ""
    scope: tuple[str, ...] = ()  # the token's scope, where it is less than everything
    approval: str = ""  # the approval that the act used or needs
    approvers: tuple[str, ...] = ()  # tenant|issuer|subject of each
    continues_decision_id: str = ""  # the decision that used the approval before, for an act that continues after a pause
    counted_with_decision_id: str = ""  # the decision of the act whose question this act answers, and with which it was counted
    problem: str = ""  # why a policy could not be evaluated


class Grant(Struct, frozen=True):
    """Permission for one call. Adapters and credentials are only available with one."""

    decision: Decision
    delegation: Delegation  # for invokeAgent the callee's, already narrowed; otherwise the caller's own
    history_mark: HistoryMark | None = None  # the change to the transaction's history


class Denial(Struct, frozen=True):
    """A refusal. With `is_hidden`, the caller gets the answer for a resource that does not exist.

    `missing_permission` is what the token's scope lacks. `scope_to_request` is the scope to request from the token's issuer; empty where
    the issuer has none that covers it.
    """

    decision: Decision
    is_hidden: bool = False
    missing_permission: str = ""
    note: str = ""  # the comment of the person who rejected the approval
    scope_to_request: str = ""


class Question(Struct, frozen=True):
    """A person has to decide first (human approval). `answer_valid_seconds`: how long an approval stays valid."""

    decision: Decision
    prompt: str = ""
    approvals_needed: int = 1
    answer_valid_seconds: int = 0


Ruling = Grant | Denial | Question
