"""What one agent or server has, by the names that it has on /mcp and by its own, with its definitions encoded once for all lists."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.param_headers import HeaderArgument, find_header_arguments
from adapters.task import TaskState
from gateway.ingress.mcp_server.catalogue.names import public_names
from gateway.ingress.mcp_server.catalogue.skill_schemas import TEXT_ONLY, SkillSchemas, skill_schemas_of
from gateway.ingress.mcp_server.catalogue.uris import rewrite_document
from registry.cards.card import Family, McpTool, Registration
from registry.virtual.tool_overrides import ToolOverride

LEGACY_ERAS = ("legacy", "sse")  # of servers, as they are registered
CACHED_MAX = 10_000  # registrations that are kept ready
OUTPUT_SCHEMA_ID = "urn:interlock:contract:output"
COMPLETED = TaskState.COMPLETED.value
encode = msgspec.json.Encoder().encode
AGENT_INPUT = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What the agent is asked, in plain words."},
        "context_id": {"type": "string", "description": "The conversation to go on with; leave out to begin one."},
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
        "data": {"type": "array", "description": "What the agent gave as data, in its order."},
        "files": {
            "type": "array",
            "description": "Files that the agent gave; their bytes are in the content.",
        },
    },
    "required": ["task_id", "context_id", "state", "text"],
}


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool of an MCP server under its own name. `marks`: its arguments that travel as headers too.

    `tasks`: whether a call may (`optional`) or must (`required`) be a task, which servers of 2025-11-25 say.
    """

    server: str
    tool: str
    mirrored_params: tuple[HeaderArgument, ...] = ()
    task_support: str = ""

    @property
    def selection_name(self) -> str:
        """What it is called in a selection."""
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
    """`exposed`: by the names on /mcp; `own`: a server's tools by their own. `prompts`: exposed name -> own name."""

    by_public_name: Mapping[str, ToolTarget]
    by_own_name: Mapping[str, ServerTool]
    prompts: Mapping[str, str]
    definitions: Mapping[str, Mapping[str, Any]]  # of tools, by what they are called in a selection
    encoded: dict[tuple[str, str, ToolOverride | None], Raw] = field(default_factory=dict, repr=False)

    def encoded_definition(self, target: ToolTarget, name: str, override: ToolOverride | None = None) -> Raw:
        """A tool's definition as it is listed under this name, and as a virtual server shows it."""
        key = (target.selection_name, name, override)
        text = self.encoded.get(key)
        if text is None:
            definition = self.definitions[target.selection_name]
            definition = definition if override is None else override.apply_to(definition)
            text = self.encoded[key] = Raw(encode({**definition, "name": name}))
        return text


class DefinitionCache:
    """Named things of each registration, made when they are first asked for and whenever it changed."""

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self._cached: dict[tuple[str, str, bool], tuple[Registration, EntryDefinitions]] = {}

    def find_or_build(self, entry: Registration, with_own_names: bool = False) -> EntryDefinitions:
        """`own`: with definitions for the server's own place, where no address in them is rewritten."""
        key = (entry.tenant, entry.name, with_own_names)
        known = self._cached.get(key)
        if known is None or known[0] is not entry:
            if len(self._cached) >= CACHED_MAX:
                self._cached.clear()
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
    return ServerTool(entry.name, tool.name, marks, support if support in ("optional", "required") else "")


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
    whole = _agent_tool_definition(entry.card.name, entry.card.description, form)
    return EntryDefinitions({entry.name: AgentTool(entry.name, schemas=form), **tools}, {}, {}, {entry.name: whole, **definitions})


def _agent_tool_definition(title: str, description: str, form: SkillSchemas) -> dict[str, Any]:
    """`execution` is for clients of 2025-11-25."""
    schemas = {"inputSchema": form.input_schema or AGENT_INPUT, "outputSchema": _output_schema(form.output_schema)}
    return {
        "title": title,
        "description": description,
        **schemas,
        "execution": {"taskSupport": "required" if form.requires_task else "optional"},
    }


def _output_schema(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a call comes to: of a task that is completed, with data as the agent's contract has it."""
    if schema is None:
        return AGENT_OUTPUT
    inner = {"$id": OUTPUT_SCHEMA_ID, **schema}  # a document of its own, to which its references are
    done = {"properties": {"data": {"items": inner}}, "required": ["data"]}
    return {**AGENT_OUTPUT, "if": {"properties": {"state": {"const": COMPLETED}}}, "then": done}
