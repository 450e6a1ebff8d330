"""Rulings: a Grant, a Denial or a Question. Values, not exceptions; only `policies/authority.py` makes a Grant."""

from msgspec import Struct
from msgspec.structs import replace

from policies.delegation.chain import Delegation
from policies.delegation.history import VERB_FOLLOW_TASK, VERB_STOP_TASK, HistoryMark

SERVER_KINDS = frozenset({"Tool", "Prompt"})  # their parent is a server


class Act(Struct, frozen=True):
    """What is asked: a Cedar action on a resource, and the permission string that stands for both.

    `parent` is the server of a tool or a prompt, the agent of a skill, else the resource itself.
    """

    action: str  # invokeAgent | callTool | … (see docs/permissions.md)
    kind: str  # Agent | Tool | Server | …
    resource: str  # `sales`, `inventory.reserve`
    permission: str  # `agent:sales`, `tool:inventory.reserve`
    parent: str
    verb: str = ""  # of an action that stands for several: approve, remove, follow-a-task-of, …; no policy sees it


def act_of_invoking_agent(agent: str, skill: str = "") -> Act:
    """The act of sending a message to an agent, or to one skill of it."""
    name = f"{agent}/{skill}" if skill else agent
    return Act("invokeAgent", "Agent", name, f"agent:{name}", agent)


def act_of_calling_tool(server: str, tool: str) -> Act:
    """The act of calling a tool of an MCP server."""
    name = f"{server}.{tool}"
    return Act("callTool", "Tool", name, f"tool:{name}", server)


def act_of_following_task(server: str, tool: str) -> Act:
    """The act of looking at a task, or answering it, that a tool's server made of a call."""
    return replace(act_of_calling_tool(server, tool), verb=VERB_FOLLOW_TASK)


def act_of_stopping_task(server: str, tool: str) -> Act:
    """The act of having it canceled."""
    return replace(act_of_calling_tool(server, tool), verb=VERB_STOP_TASK)


def act_of_getting_prompt(server: str, prompt: str) -> Act:
    """The act of getting a prompt of an MCP server."""
    name = f"{server}.{prompt}"
    return Act("getPrompt", "Prompt", name, f"prompt:{name}", server)


def act_of_reading_resource(server: str) -> Act:
    """The act of reading a resource of an MCP server, whichever it is."""
    return Act("readResource", "Server", server, f"resource:{server}", server)


class ChainLink(Struct, frozen=True):
    """One agent of a chain, with what it was allowed at most, for explanations."""

    agent: str
    permissions: tuple[str, ...]


class Decision(Struct, frozen=True):
    """Why a ruling came out as it did; `interlock why` shows exactly this."""

    id: str
    at: int  # microseconds since 1970
    allowed: bool
    reason_id: str
    principal: str  # tenant|issuer|subject
    roles: tuple[str, ...]
    chain: tuple[ChainLink, ...]
    act: Act
    policies: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # permissions that would have been needed, e.g. `tool:inventory.reserve (user)`
    grant_id: str = ""
    task_id: str = ""
    txn: str = ""
    trace_id: str = ""
    arguments: str = ""  # sha256 of the canonical arguments, where the act has any
    policy_version: str = ""
    scope: tuple[str, ...] = ()  # what the token left, where it left less than everything
    approval: str = ""  # that it used, or that it asks for
    approvers: tuple[str, ...] = ()  # tenant|issuer|subject of each
    began: str = ""  # the decision that used the approval before, where an act goes on that had to wait
    goes_on: str = ""  # the decision of an act that asked something, which this one answers, and with which it was counted
    problem: str = ""  # why a policy could not be evaluated


class Grant(Struct, frozen=True):
    """Leave for one call. An adapter or a credential can't be had without one."""

    decision: Decision
    delegation: Delegation  # for invokeAgent the callee's, already narrowed; else the caller's own
    history_mark: HistoryMark | None = None  # what is kept of it in the history of its errand


class Denial(Struct, frozen=True):
    """A refusal. `hidden` means: answer exactly as if the thing did not exist. `scope` names the permission that a token lacks.

    `wanted` is the scope to ask the token's issuer for; empty where the issuer has none that covers it.
    """

    decision: Decision
    is_hidden: bool = False
    missing_permission: str = ""
    note: str = ""  # what whoever denied it said
    scope_to_request: str = ""


class Question(Struct, frozen=True):
    """A person has to decide first (human approval). `seconds`: for how long their answer is good."""

    decision: Decision
    prompt: str = ""
    approvals_needed: int = 1
    answer_valid_seconds: int = 0


Ruling = Grant | Denial | Question
