"""The agents, tools and workflows that a document names: what its ceiling allows, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from adapters.sandbox.calculation import PYTHON_TOOL, SANDBOX_KIND
from gateway.workflows.dsl.coordination import PlanArguments, agent_argument_problems, plan_argument_problems
from gateway.workflows.dsl.determinism import COMPUTE, deterministic_tasks, paths_of
from gateway.workflows.dsl.document import (
    CallA2a,
    CallFunction,
    CallHttp,
    CallMcp,
    CallOpenApi,
    Document,
    HttpCallArguments,
    RunTask,
    TaskBase,
)
from gateway.workflows.dsl.targets import agent_at, server_at, split_tool
from gateway.workflows.dsl.walk import tasks
from gateway.workflows.engine.http_targets import NoOperation, arguments_of, find_target
from registry.cards.card import Registration

AT_AGENTS = "is no agent of the registry: write interlock://agents/NAME"
AT_TOOLS = "is no server of the registry: write interlock://tools/NAME"


class Need(Struct, frozen=True):
    """One target of a document. `tool` is empty for an agent and for a workflow."""

    path: str
    name: str
    tool: str = ""
    is_workflow: bool = False
    is_deterministic: bool = False  # the step may reach only a tool behind which no model works


class BadTarget(Struct, frozen=True):
    """A target that names nothing in the registry, or is only known when the step runs."""

    path: str
    reason: str


def needs_of(document: Document, servers: Sequence[Registration] = ()) -> Iterator[Need | BadTarget]:
    """Every target of a document, in its order. `servers`: those among which addresses of `call: http` are looked up."""
    fixed = paths_of(deterministic_tasks(document))
    for placed in tasks(document):
        for need in needs_of_task(placed.task, placed.path, servers):
            yield replace(need, is_deterministic=True) if isinstance(need, Need) and placed.path in fixed else need


def needs_of_task(task: TaskBase, path: str, servers: Sequence[Registration] = ()) -> Iterator[Need | BadTarget]:
    """The targets of one task, without those of the tasks within it."""
    check = task.metadata.gateway.check
    if check is not None and check.agent is not None:
        yield Need(f"{path}/metadata/gateway/check/agent", check.agent)
    match task:
        case CallA2a(with_=call):
            agent, place = agent_at(call.uri), f"{path}/with/{'server' if call.agent_card is None else 'agentCard'}"
            yield BadTarget(place, AT_AGENTS) if agent is None else Need(place, agent)
        case CallMcp(with_=call) if call.transport.http is not None:
            endpoint = call.transport.http.endpoint
            tool = call.parameters.get("name") if isinstance(call.parameters, dict) else None
            yield _tool(f"{path}/with", endpoint if isinstance(endpoint, str) else endpoint.uri, tool, "parameters/name")
        case CallHttp(with_=call):
            yield _request(call, f"{path}/with", servers)
        case CallOpenApi(with_=call):
            yield _tool(f"{path}/with", call.document.uri, call.operation_id, "operationId")
        case CallFunction(call=name, with_=given):
            yield from _of_function(name, given, path)
        case RunTask(run=run) if run.workflow is not None:
            yield Need(f"{path}/run/workflow/name", run.workflow.name, is_workflow=True)


def _of_function(name: str, given: dict[str, Any], path: str) -> Iterator[Need | BadTarget]:
    """The targets of a call of one of the gateway's functions."""
    match name:
        case "gateway.agent" if "agents" in given:
            agents = [] if agent_argument_problems(given) else given["agents"]  # refused by the checks of the document
            yield from (Need(f"{path}/with/agents/{index}", agent) for index, agent in enumerate(agents))
        case "gateway.agent":
            agent = _literal(given.get("agent"))
            yield Need(f"{path}/with/agent", agent) if agent else BadTarget(f"{path}/with", "names no `agent` by a plain text")
        case "gateway.plan":
            yield from _of_plan(given, f"{path}/with")
        case "gateway.tool":
            named = split_tool(_literal(given.get("tool")))
            bad = BadTarget(f"{path}/with", "names no `tool` as a plain text of the form server.tool")
            yield Need(f"{path}/with/tool", *named) if named else bad
        case _ if name == COMPUTE:
            yield Need(f"{path}/call", SANDBOX_KIND, PYTHON_TOOL)


def _request(call: HttpCallArguments, path: str, servers: Sequence[Registration]) -> Need | BadTarget:
    """The tool that a request is."""
    try:
        target = find_target(servers, call.method, call.endpoint if isinstance(call.endpoint, str) else call.endpoint.uri)
    except NoOperation as error:
        return BadTarget(f"{path}/endpoint", str(error))
    try:
        members = {name: value for name in ("query", "headers", "body") if not isinstance(value := getattr(call, name), str)}
        given = target.arguments.keys() | arguments_of(msgspec.structs.replace(target, arguments={}), members, {}).keys()
        if isinstance(call.query, str) or isinstance(call.headers, str):
            given |= {each.argument for each in target.operation.parameters}
        for each in target.operation.parameters:
            if each.required and each.argument not in given:
                raise NoOperation(f"lacks `{each.name}` in its {each.place}, which the operation `{target.server}.{target.tool}` needs")
    except NoOperation as error:
        return BadTarget(path, str(error))
    return Need(f"{path}/endpoint", target.server, target.tool)


def _of_plan(given: Mapping[str, Any], path: str) -> Iterator[Need]:
    """The planner, and everything that it may choose from."""
    if plan_argument_problems(given):  # refused by the checks of the document
        return
    said = PlanArguments.model_validate(given)
    yield Need(f"{path}/agent", said.agent)
    for index, agent in enumerate(said.among.agents):
        yield Need(f"{path}/among/agents/{index}", agent)
    for index, tool in enumerate(said.among.tools):
        server, _, name = tool.partition(".")
        yield Need(f"{path}/among/tools/{index}", server, name)


def _tool(path: str, endpoint: str, tool: Any, member: str) -> Need | BadTarget:
    server = server_at(endpoint)
    if server is None:
        return BadTarget(path, AT_TOOLS)
    name = _literal(tool)
    return Need(f"{path}/{member}", server, name) if name else BadTarget(f"{path}/{member}", "names no tool by a plain text")


def _literal(value: Any) -> str:
    """A text that is no expression; empty for anything else."""
    return value if isinstance(value, str) and "${" not in value else ""
