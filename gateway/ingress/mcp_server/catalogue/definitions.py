"""The tools and prompts of one registration, by public and own names, with definitions encoded once for all lists."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw, Struct

from adapters.mcp_client.wire.param_headers import HeaderArgument, find_header_arguments
from adapters.task import TaskState
from gateway.ingress.mcp_server.catalogue.names import public_names
from gateway.ingress.mcp_server.catalogue.skill_schemas import TEXT_ONLY, SkillSchemas, skill_schemas_of
from gateway.ingress.mcp_server.catalogue.uris import rewrite_document
from policies.delegation.rulings import Act, act_of_calling_tool
from registry.cards.card import Family, McpTool, Registration
from registry.virtual.tool_overrides import ToolOverride

LEGACY_ERAS = ("legacy", "sse")  # values of a server's `era` fact
CACHED_MAX = 50_000  # registrations; a list of more would build all definitions again
OUTPUT_SCHEMA_ID = "urn:interlock:contract:output"
COMPLETED = TaskState.COMPLETED.value
encode = msgspec.json.Encoder().encode
AGENT_INPUT = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What the agent is asked, in natural language."},
        "context_id": {"type": "string", "description": "The conversation to continue; leave out to begin one."},
        "task_id": {"type": "string", "description": "The task that asked something (TASK_STATE_INPUT_REQUIRED), when message answers it."},
    },
    "required": ["message"],
    "additionalProperties": False,
}
AGENT_OUTPUT = {
    "type": "object",
    "properties": {
        "task_id": {"type": "string"},
        "context_id": {"type": "string"},
        "state": {"type": "string"},
        "text": {"type": "string"},
        "data": {"type": "array", "description": "The data parts of the agent's answer, in its order."},
        "files": {
            "type": "array",
            "description": "Files of the agent's answer; their bytes are in the content.",
        },
    },
    "required": ["task_id", "context_id", "state", "text"],
}


class ServerTool(Struct, frozen=True):
    """A tool of an MCP server under its own name. `act` is the act of calling it.

    `mirrored_params` are its arguments that are sent as headers too. `task_support` is `optional` or `required` where a server of
    2025-11-25 declares that a call may or must be a task.
    """

    server: str
    tool: str
    act: Act
    mirrored_params: tuple[HeaderArgument, ...] = ()
    task_support: str = ""

    @property
    def selection_name(self) -> str:
        """Returns the name of the tool in a selection."""
        return f"{self.server}.{self.tool}"


@dataclass(frozen=True, slots=True)
class AgentTool:
    """An agent, or one of its skills."""

    agent: str
    skill: str = ""
    schemas: SkillSchemas = TEXT_ONLY

    @property
    def selection_name(self) -> str:
        return f"{self.agent}/{self.skill}" if self.skill else self.agent


ToolTarget = ServerTool | AgentTool


@dataclass(frozen=True, slots=True)
class EntryDefinitions:
    """The definitions of one registration.

    `by_public_name` has the names on /mcp, `by_own_name` a server's own names. `prompts` maps public to own names.
    """

    by_public_name: Mapping[str, ToolTarget]
    by_own_name: Mapping[str, ServerTool]
    prompts: Mapping[str, str]
    definitions: Mapping[str, Mapping[str, Any]]  # of tools, by their names in a selection
    encoded: dict[tuple[str, str, ToolOverride | None], Raw] = field(default_factory=dict, repr=False)

    def encoded_definition(self, target: ToolTarget, name: str, override: ToolOverride | None = None) -> Raw:
        """Returns the encoded definition of a tool under this name, with the override of a virtual server."""
        key = (target.selection_name, name, override)
        text = self.encoded.get(key)
        if text is None:
            definition = self.definitions[target.selection_name]
            definition = definition if override is None else override.apply_to(definition)
            text = self.encoded[key] = Raw(encode({**definition, "name": name}))
        return text


class DefinitionCache:
    """Definitions of each registration, built when they are first needed and after it has changed."""

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self._cached: dict[tuple[str, str, bool], tuple[Registration, EntryDefinitions]] = {}

    def find_or_build(self, entry: Registration, with_own_names: bool = False) -> EntryDefinitions:
        """Returns the definitions. With `with_own_names` they are those of the server's own endpoint, where no URI is rewritten."""
        key = (entry.tenant, entry.name, with_own_names)
        known = self._cached.get(key)
        if known is None or known[0] is not entry:
            if len(self._cached) >= CACHED_MAX:
                del self._cached[next(iter(self._cached))]
            known = self._cached[key] = (entry, _build_definitions(entry, self.separator, with_own_names))
        return known[1]


def _build_definitions(entry: Registration, separator: str, with_own_names: bool) -> EntryDefinitions:
    if entry.family is not Family.SERVER:
        return _build_agent_definitions(entry, separator)
    tools = {tool.name: _build_server_tool(entry, tool) for tool in entry.tools}
    names = {name: tools[inner] for name, inner in public_names(entry.name, tools, separator).items()}
    definitions = {
        f"{entry.name}.{tool.name}": tool.definition if with_own_names else rewrite_document(entry.name, tool.definition)
        for tool in entry.tools
    }
    return EntryDefinitions(names, tools, public_names(entry.name, [prompt.name for prompt in entry.prompts], separator), definitions)


def _build_server_tool(entry: Registration, tool: McpTool) -> ServerTool:
    execution = tool.definition.get("execution")
    support = execution.get("taskSupport") if isinstance(execution, dict) and entry.facts.get("era") in LEGACY_ERAS else ""
    marks = tuple(find_header_arguments(tool.definition.get("inputSchema")))
    act = act_of_calling_tool(entry.name, tool.name)
    return ServerTool(entry.name, tool.name, act, marks, support if support in ("optional", "required") else "")


def _build_agent_definitions(entry: Registration, separator: str) -> EntryDefinitions:
    if entry.card is None:
        return EntryDefinitions({}, {}, {}, {})
    skills, forms = public_names(entry.name, [skill.id for skill in entry.card.skills], separator), skill_schemas_of(entry)
    tools = {name: AgentTool(entry.name, skill, forms.get(skill, TEXT_ONLY)) for name, skill in skills.items()}
    definitions = {
        f"{entry.name}/{skill.id}": _agent_tool_definition(skill.name, skill.description, forms.get(skill.id, TEXT_ONLY))
        for skill in entry.card.skills
    }
    form = forms.get("", TEXT_ONLY)
    agent_definition = _agent_tool_definition(entry.card.name, entry.card.description, form)
    return EntryDefinitions(
        {entry.name: AgentTool(entry.name, schemas=form), **tools}, {}, {}, {entry.name: agent_definition, **definitions}
    )


def _agent_tool_definition(title: str, description: str, form: SkillSchemas) -> dict[str, Any]:
    """Returns a tool definition; `execution` is for clients of 2025-11-25."""
    schemas = {"inputSchema": form.input_schema or AGENT_INPUT, "outputSchema": _output_schema(form.output_schema)}
    return {
        "title": title,
        "description": description,
        **schemas,
        "execution": {"taskSupport": "required" if form.requires_task else "optional"},
    }


def _output_schema(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the output schema: a completed task has data that fits the agent's contract."""
    if schema is None:
        return AGENT_OUTPUT
    inner = {"$id": OUTPUT_SCHEMA_ID, **schema}  # its own document, so that its references resolve in it
    done = {"properties": {"data": {"items": inner}}, "required": ["data"]}
    return {**AGENT_OUTPUT, "if": {"properties": {"state": {"const": COMPLETED}}}, "then": done}
