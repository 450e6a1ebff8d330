"""Cards and registrations: who an agent or server says it is, and what the gateway made of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from registry.virtual.selection import Selection

# Nobody sees these characters, or they change how the text around them looks. Joiners that some scripts and emoji need, U+200C and U+200D,
# tabs and line feeds are not among them.
HIDDEN_CHARACTERS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


def strip_hidden(text: str) -> str:
    """A stranger's prose without what nobody would see of it, and models would."""
    return HIDDEN_CHARACTERS.sub("", text)


CLEARANCE_MAX = 3
INSTRUCTIONS = "instructions"  # in the facts of a server: what it tells models of its use, once that is in force
QUESTIONS = "questions"  # in the `upstream` of an A2A agent: `one` where a context holds one open question, as its operator knows
FEATURES = "features"  # in the facts of an agent of a vendor, whose card the gateway wrote: what its kind can do


class RegistrationStatus(StrEnum):
    ACTIVE = "active"
    PENDING = "pending"
    QUARANTINED = "quarantined"
    DOWN = "down"


class Family(StrEnum):
    AGENT = "agent"
    SERVER = "server"
    VIRTUAL = "virtual"  # a selection of what servers and agents offer


class BadCard(Exception):
    """A card that can't be used. `field` is a path such as `skills[0].name`; both texts are safe to show."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill of a card (A2A 1.0 s4.4.5)."""

    id: str
    name: str
    description: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentInterface:
    """Where and how an agent is called. `binding` is JSONRPC, HTTP+JSON or GRPC; `version` is Major.Minor."""

    url: str
    binding: str
    version: str
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class AgentCard:
    """A card of either version, read into one shape. `document` is the original, verbatim."""

    name: str
    description: str
    version: str
    interfaces: tuple[AgentInterface, ...]
    skills: tuple[Skill, ...]
    streaming: bool
    push_notifications: bool
    input_modes: tuple[str, ...]
    output_modes: tuple[str, ...]
    document: Mapping[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpTool:
    """One tool of an MCP server; `definition` is its entry of tools/list, verbatim."""

    name: str
    definition: Mapping[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpPrompt:
    """One prompt of an MCP server; `definition` is its entry of prompts/list, verbatim."""

    name: str
    definition: Mapping[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpResource:
    """One resource that an MCP server lists; `definition` is its entry of resources/list, verbatim."""

    uri: str
    definition: Mapping[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpResourceTemplate:
    """One family of resources; `uri` is a URI template (RFC 6570), `definition` its entry of resources/templates/list, verbatim."""

    uri: str
    definition: Mapping[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class WithheldDefinition:
    """A definition that callers do not get to see: changed or new, until it is approved, or pinned and not listed any more."""

    kind: str  # tools | prompts | resources | templates
    name: str  # of a resource its URI, of a template its text
    before: Mapping[str, Any] | None = field(repr=False)  # what is pinned; None: it is new
    after: Mapping[str, Any] | None = field(repr=False)  # what waits; None: it is gone


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """One more address at which the same agent is called. `weight`: its share of new tasks; 0: only when no other can be reached."""

    url: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Registration:
    """An agent, a server or a virtual server under its name in one tenant, ready to be called."""

    tenant: str
    name: str
    family: Family
    kind: str
    status: RegistrationStatus
    url: str  # where calls go; for a command from the configuration file `stdio:`
    owner: str
    ceiling: tuple[str, ...]  # permission strings; ("*",) = no limit of its own
    delegation: str  # bearer | header | ticket | none
    upstream: Mapping[str, Any]
    facts: Mapping[str, Any]  # interface, binding, version, streaming (agents); era, protocol version (servers)
    client_id: str
    card: AgentCard | None
    card_text: str = field(repr=False)  # verbatim
    tools: tuple[McpTool, ...]
    card_hash: str
    created: int
    updated: int
    trusted_keys: tuple[Mapping[str, Any], ...] = ()  # JWKs, one of which has to sign the card; none: anybody may, or nobody
    rank: int = 0  # the operator's preference among agents that fit equally well
    prompts: tuple[McpPrompt, ...] = ()
    resources: tuple[McpResource, ...] = ()
    templates: tuple[McpResourceTemplate, ...] = ()
    withheld: tuple[WithheldDefinition, ...] = ()
    selection: Selection | None = None  # of a virtual server
    sensitivity: int = 0  # 0..3, of what a server tells
    clearance: int = CLEARANCE_MAX  # 0..3: the most sensitive that it may be told
    sensitivities: Mapping[str, int] = field(default_factory=dict)  # of single tools
    contracts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # skill, empty for all -> JSON Schemas: input, output
    context: str = "none"  # none | summary: what an agent is told of the conversation that a message comes from
    endpoints: tuple[AgentEndpoint, ...] = ()  # beside `url`

    @property
    def may_act(self) -> bool:
        """Whether it may act for people: while it is active, and while it is down, since a turn of it may go on.

        Not while it is down and none of the keys that the operator pinned is known to have signed its card.
        """
        trusted = self.card is not None and (not self.trusted_keys or self.facts.get("signature") == "verified")
        return self.status is RegistrationStatus.ACTIVE or (self.status is RegistrationStatus.DOWN and trusted)

    def sensitivity_of(self, tool: str) -> int:
        """Of what this tool tells; of anything but a tool, its server's."""
        return self.sensitivities.get(tool, self.sensitivity)
