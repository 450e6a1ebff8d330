"""What one agent or server has, by the names that it has on /mcp and by its own, with its definitions encoded once for all lists."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.param_headers import Mirrored, mirrored
from adapters.task import TaskState
from gateway.ingress.mcp_server.catalogue.names import exposed
from gateway.ingress.mcp_server.catalogue.skill_schemas import PLAIN, SkillForm, forms_of
from gateway.ingress.mcp_server.catalogue.uris import document_outward
from registry.cards.card import Family, Registration, Tool
from registry.virtual.tool_overrides import Override

OLDER_ERAS = ("legacy", "sse")  # of servers, as they are registered
KNOWN_MAX = 10_000  # registrations that are kept ready
CONTRACT = "urn:interlock:contract:output"
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
    marks: tuple[Mirrored, ...] = ()
    tasks: str = ""

    @property
    def selected(self) -> str:
        """What it is called in a selection."""
        return f"{self.server}.{self.tool}"


@dataclass(frozen=True, slots=True)
class AgentTool:
    """An agent, or one of its skills."""

    agent: str
    skill: str = ""
    form: SkillForm = PLAIN

    @property
    def selected(self) -> str:
        return f"{self.agent}/{self.skill}" if self.skill else self.agent


Target = ServerTool | AgentTool


@dataclass(frozen=True, slots=True)
class Named:
    """`exposed`: by the names on /mcp; `own`: a server's tools by their own. `prompts`: exposed name -> own name."""

    exposed: Mapping[str, Target]
    own: Mapping[str, ServerTool]
    prompts: Mapping[str, str]
    definitions: Mapping[str, Mapping[str, Any]]  # of tools, by what they are called in a selection
    texts: dict[tuple[str, str, Override | None], Raw] = field(default_factory=dict, repr=False)

    def definition(self, target: Target, name: str, override: Override | None = None) -> Raw:
        """A tool's definition as it is listed under this name, and as a virtual server shows it."""
        key = (target.selected, name, override)
        text = self.texts.get(key)
        if text is None:
            definition = self.definitions[target.selected]
            definition = definition if override is None else override.definition(definition)
            text = self.texts[key] = Raw(encode({**definition, "name": name}))
        return text


class Known:
    """Named things of each registration, made when they are first asked for and whenever it changed."""

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self._known: dict[tuple[str, str, bool], tuple[Registration, Named]] = {}

    def of(self, entry: Registration, own: bool = False) -> Named:
        """`own`: with definitions for the server's own place, where no address in them is rewritten."""
        key = (entry.tenant, entry.name, own)
        known = self._known.get(key)
        if known is None or known[0] is not entry:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[key] = (entry, _named(entry, self.separator, own))
        return known[1]


def _named(entry: Registration, separator: str, own: bool) -> Named:
    if entry.family is not Family.SERVER:
        return _agent(entry, separator)
    tools = {tool.name: _server_tool(entry, tool) for tool in entry.tools}
    names = {name: tools[inner] for name, inner in exposed(entry.name, tools, separator).items()}
    definitions = {
        f"{entry.name}.{tool.name}": tool.definition if own else document_outward(entry.name, tool.definition) for tool in entry.tools
    }
    return Named(names, tools, exposed(entry.name, [prompt.name for prompt in entry.prompts], separator), definitions)


def _server_tool(entry: Registration, tool: Tool) -> ServerTool:
    execution = tool.definition.get("execution")
    support = execution.get("taskSupport") if isinstance(execution, dict) and entry.facts.get("era") in OLDER_ERAS else ""
    marks = tuple(mirrored(tool.definition.get("inputSchema")))
    return ServerTool(entry.name, tool.name, marks, support if support in ("optional", "required") else "")


def _agent(entry: Registration, separator: str) -> Named:
    if entry.card is None:
        return Named({}, {}, {}, {})
    skills, forms = exposed(entry.name, [skill.id for skill in entry.card.skills], separator), forms_of(entry)
    tools = {name: AgentTool(entry.name, skill, forms.get(skill, PLAIN)) for name, skill in skills.items()}
    definitions = {
        f"{entry.name}/{skill.id}": _agent_tool(skill.name, skill.description, forms.get(skill.id, PLAIN)) for skill in entry.card.skills
    }
    form = forms.get("", PLAIN)
    whole = _agent_tool(entry.card.name, entry.card.description, form)
    return Named({entry.name: AgentTool(entry.name, form=form), **tools}, {}, {}, {entry.name: whole, **definitions})


def _agent_tool(title: str, description: str, form: SkillForm) -> dict[str, Any]:
    """`execution` is for clients of 2025-11-25."""
    schemas = {"inputSchema": form.schema or AGENT_INPUT, "outputSchema": _output(form.output)}
    return {
        "title": title,
        "description": description,
        **schemas,
        "execution": {"taskSupport": "required" if form.required else "optional"},
    }


def _output(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a call comes to: of a task that is completed, with data as the agent's contract has it."""
    if schema is None:
        return AGENT_OUTPUT
    inner = {"$id": CONTRACT, **schema}  # a document of its own, to which its references are
    done = {"properties": {"data": {"items": inner}}, "required": ["data"]}
    return {**AGENT_OUTPUT, "if": {"properties": {"state": {"const": COMPLETED}}}, "then": done}
