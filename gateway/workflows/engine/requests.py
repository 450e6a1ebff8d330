"""Builds the message of a step from its call, and names what reads its result."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from adapters.a2a_client.wire.v1 import part_problem
from adapters.sandbox.calculation import PYTHON_TOOL, SANDBOX_KIND
from adapters.task import Part, Task
from gateway.workflows.dsl.determinism import COMPUTE
from gateway.workflows.dsl.targets import agent_at, server_at, split_tool
from gateway.workflows.engine.http_targets import NoOperation, arguments_of, find_target
from gateway.workflows.engine.results import a2a_result, agent_output, computed_value, http_content, mcp_result, tool_output
from gateway.workflows.engine.steps import StepRequest
from gateway.workflows.interpreter.effects import PreparedCall, StepKey, SubRun
from gateway.workflows.interpreter.errors import standard_error
from registry.cards.card import Registration

ReadOutput = Callable[[Task], Any]
JSON: Final = "application/json"


def build_request(key: StepKey, call: PreparedCall) -> tuple[StepRequest, ReadOutput]:
    """The message of a call, and what reads the step's output from its task. Raises WorkflowError (validation, configuration)."""
    build = _BUILDERS.get(call.function)
    if build is None:
        raise standard_error("configuration", f"{call.function} is not run by this gateway", key.pointer)
    request, read_output = build(key, call.arguments)
    return replace(request, is_deterministic=call.is_deterministic or call.function == COMPUTE), read_output


def sub_run_request(run: SubRun) -> StepRequest:
    """The message that starts another workflow."""
    return StepRequest(run.name, (_data_part(run.input),), f"workflow {run.name}")


def answer_parts(value: Any) -> tuple[Part, ...]:
    """A person's answer as a message to the agent that asked."""
    return (Part(text=value),) if isinstance(value, str) else (_data_part(value),)


def _agent_request(key: StepKey, arguments: Mapping[str, Any]) -> tuple[StepRequest, ReadOutput]:
    agent, given = _text(key, arguments, "agent"), arguments.get("input", "")
    return StepRequest(agent, answer_parts(given), f"agent {agent}", str(arguments.get("skill", ""))), agent_output


def _tool_request(key: StepKey, arguments: Mapping[str, Any]) -> tuple[StepRequest, ReadOutput]:
    named = split_tool(_text(key, arguments, "tool"))
    if named is None:
        raise standard_error("validation", "`tool` is not of the form server.tool", key.pointer)
    return _call_of_tool(key, *named, arguments.get("arguments", {})), tool_output


def _compute_request(key: StepKey, arguments: Mapping[str, Any]) -> tuple[StepRequest, ReadOutput]:
    given = {"code": _text(key, arguments, "code"), "inputs": arguments.get("inputs", {}), "exact": True}
    return _call_of_tool(key, SANDBOX_KIND, PYTHON_TOOL, given), computed_value


def _a2a_request(key: StepKey, arguments: Mapping[str, Any]) -> tuple[StepRequest, ReadOutput]:
    agent = agent_at(_endpoint(arguments.get("agentCard", arguments.get("server"))))
    parameters = arguments.get("parameters")
    message = parameters.get("message") if isinstance(parameters, Mapping) else None
    parts = message.get("parts") if isinstance(message, Mapping) else None
    if agent is None or not isinstance(parts, list) or not parts:
        raise standard_error("validation", "`parameters.message.parts` is no list of parts", key.pointer)
    return StepRequest(agent, tuple(_part(key, part) for part in parts), f"agent {agent}"), a2a_result


def _mcp_request(key: StepKey, arguments: Mapping[str, Any]) -> tuple[StepRequest, ReadOutput]:
    server = server_at(_endpoint(arguments["transport"]["http"]["endpoint"]))
    parameters = arguments.get("parameters")
    if server is None or not isinstance(parameters, Mapping):
        raise standard_error("validation", "`parameters` has no name of a tool", key.pointer)
    return _call_of_tool(key, server, _text(key, parameters, "name"), parameters.get("arguments", {})), mcp_result


def _openapi_request(key: StepKey, arguments: Mapping[str, Any]) -> tuple[StepRequest, ReadOutput]:
    server = server_at(_endpoint(arguments["document"]["endpoint"])) or ""
    return _call_of_tool(key, server, _text(key, arguments, "operationId"), arguments.get("parameters", {})), tool_output


def _http_request(key: StepKey, arguments: Mapping[str, Any]) -> tuple[StepRequest, ReadOutput]:
    server, tool = _text(key, arguments, "server"), _text(key, arguments, "tool")
    return _call_of_tool(key, server, tool, arguments["arguments"]), http_content


def resolve_http(key: StepKey, call: PreparedCall, servers: Sequence[Registration]) -> PreparedCall:
    """A request with the tool that it is. Raises WorkflowError (configuration, validation)."""
    given = call.arguments
    try:
        target = find_target(servers, _text(key, given, "method"), _text(key, given, "template"))
    except NoOperation as error:
        raise standard_error("configuration", f"the endpoint {error}", key.pointer) from error
    try:
        arguments = arguments_of(target, given, call.input)
    except NoOperation as error:
        raise standard_error("validation", f"the request {error}", key.pointer) from error
    return replace(call, arguments={"server": target.server, "tool": target.tool, "arguments": arguments})


def _call_of_tool(key: StepKey, server: str, tool: str, arguments: Any) -> StepRequest:
    if not isinstance(arguments, Mapping):
        raise standard_error("validation", "the arguments of a tool are no object", key.pointer)
    return StepRequest(server, (_data_part({"tool": tool, "arguments": dict(arguments)}),), f"tool {server}.{tool}", tool=tool)


def _endpoint(value: Any) -> str:
    """The URI of an endpoint, which a document writes as a text or as an object, within a resource or by itself."""
    while isinstance(value, Mapping):
        value = value.get("endpoint", value.get("uri"))
    return str(value)


def _part(key: StepKey, value: Any) -> Part:
    """A part in the form of A2A 1.0 or 0.3. Raises WorkflowError."""
    given = {name: member for name, member in value.items() if name != "kind"} if isinstance(value, Mapping) else {}
    if isinstance(file := given.pop("file", None), Mapping):
        names = {"uri": "url", "bytes": "raw", "mimeType": "mediaType", "name": "filename"}
        given |= {names[name]: member for name, member in file.items() if name in names}
    try:
        part = msgspec.convert(given, Part)
    except msgspec.ValidationError as error:
        raise standard_error("validation", f"a part of the message can't be read: {error}", key.pointer) from error
    if problem := part_problem(part):
        raise standard_error("validation", f"a part of the message {problem}", key.pointer)
    return part


def _data_part(value: Any) -> Part:
    return Part(data=value, media_type=JSON)


def _text(key: StepKey, arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise standard_error("validation", f"`{name}` is no text", key.pointer)
    return value


_BUILDERS: Final[Mapping[str, Callable[[StepKey, Mapping[str, Any]], tuple[StepRequest, ReadOutput]]]] = {
    "a2a": _a2a_request,
    "gateway.agent": _agent_request,
    COMPUTE: _compute_request,
    "gateway.tool": _tool_request,
    "http": _http_request,
    "mcp": _mcp_request,
    "openapi": _openapi_request,
}
