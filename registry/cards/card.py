"""Cards and registrations: how an agent or server describes itself, and how the gateway registered it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from registry.cards.effects import EffectDeclaration
from registry.names import InvalidMember
from registry.virtual.selection import Selection

# Characters that are invisible or change how a longer text around them is shown. Excludes tabs, line feeds, and the joiners U+200C and
# U+200D that some scripts and emoji need.
HIDDEN_IN_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


def strip_hidden(text: str) -> str:
    """The text without hidden characters, which a model would read and a person would not see."""
    return HIDDEN_IN_TEXT.sub("", text)


CLEARANCE_MAX = 3
INSTRUCTIONS = "instructions"  # in the facts of a server: its approved instructions for models
QUESTIONS = "questions"  # in the `upstream` of an A2A agent: `one` where a context has one open question, as its operator knows
VERSION_FACT = "workflow_version"  # among the facts of a workflow: the version that new runs begin with
BUILT_IN_KIND = "built-in"  # the kind of MCP servers whose tools are functions of the gateway
NEEDS = "needs"  # in the facts of a built-in server: tool, or empty for resources -> action and permissions without which it is not listed
WORKFLOW_KIND = "workflow"  # the kind of agents whose adapter is the gateway's own engine of workflows
FEATURES = "features"  # in the facts of a vendor's agent, whose card the gateway wrote: what its kind supports


class RegistrationStatus(StrEnum):
    ACTIVE = "active"
    PENDING = "pending"
    QUARANTINED = "quarantined"
    DOWN = "down"


# Callers find entries of these statuses. A call of an entry that is down is refused as not reachable; other statuses are unknown names.
KNOWN_STATUSES = (RegistrationStatus.ACTIVE, RegistrationStatus.DOWN)


class Family(StrEnum):
    AGENT = "agent"
    SERVER = "server"
    VIRTUAL = "virtual"  # a selection of what servers and agents offer


class BadCard(InvalidMember):
    """A card that can't be used. `field` is a path such as `skills[0].name`; both texts are safe to show."""


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill of a card (A2A 1.0 s4.4.5)."""

    id: str
    name: str
    description: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentInterface:
    """An address and protocol of an agent. `binding` is JSONRPC, HTTP+JSON or GRPC; `version` is Major.Minor."""

    url: str
    binding: str
    version: str
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class AgentCard:
    """An A2A card of either version, parsed. `document` is the original."""

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
    extensions: Mapping[str, bool] = field(default_factory=dict)  # by URI: whether the agent requires it (s4.4.4)


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
    """A definition that callers do not see: changed or new and not yet approved, or pinned and no longer listed."""

    kind: str  # tools | prompts | resources | templates
    name: str  # of a resource its URI, of a template its text
    before: Mapping[str, Any] | None = field(repr=False)  # the pinned one; None: it is new
    after: Mapping[str, Any] | None = field(repr=False)  # the one to approve; None: it is gone


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """An additional address of the same agent. `weight`: its share of new tasks; 0: only when no other address is reachable."""

    url: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Registration:
    """An agent, a server or a virtual server with its name in one tenant."""

    tenant: str
    name: str
    family: Family
    kind: str
    status: RegistrationStatus
    url: str  # where calls go; `stdio:` for a command from the configuration file
    owner: str
    ceiling: tuple[str, ...]  # permission strings; ("*",) = no limit
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
    trusted_keys: tuple[Mapping[str, Any], ...] = ()  # JWKs, one of which must have signed the card; empty: no signature is required
    rank: int = 0  # the operator's preference among agents that fit equally well
    prompts: tuple[McpPrompt, ...] = ()
    resources: tuple[McpResource, ...] = ()
    templates: tuple[McpResourceTemplate, ...] = ()
    withheld: tuple[WithheldDefinition, ...] = ()
    selection: Selection | None = None  # of a virtual server
    sensitivity: int = 0  # 0..3, of what a server returns
    clearance: int = CLEARANCE_MAX  # 0..3: the highest sensitivity of data that it may receive
    sensitivities: Mapping[str, int] = field(default_factory=dict)  # of tools that differ from their server
    contracts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # skill, empty for all -> JSON Schemas: input, output
    context: str = "none"  # none | summary: what an agent learns of the conversation that a message comes from
    endpoints: tuple[AgentEndpoint, ...] = ()  # in addition to `url`
    model_free: tuple[str, ...] = ()  # tools behind which no model works, as an operator says
    effects: Mapping[str, EffectDeclaration] = field(default_factory=dict)  # by tool or skill; `*`: of every other call
    prices: Mapping[str, int] = field(default_factory=dict)  # of one call in millionths, by tool; `*`: of every other call
    memory: str = "none"  # none | read | write: what an agent may do with memory, within the rights of the person it acts for
    label: str = ""  # of the documents that declare it (`interlock apply --label`); empty for an entry that none created

    @property
    def may_act(self) -> bool:
        """Whether it may act for people: while active, and while down, since one of its turns may still run.

        False while it is down and its card is not known to be signed by one of the pinned keys.
        """
        trusted = self.card is not None and (not self.trusted_keys or self.facts.get("signature") == "verified")
        return self.status is RegistrationStatus.ACTIVE or (self.status is RegistrationStatus.DOWN and trusted)

    @property
    def workflow_version(self) -> str:
        """The version of its document that new runs of a workflow begin with; empty for another entry."""
        return str(self.facts.get(VERSION_FACT, ""))

    def price_of(self, tool: str) -> int | None:
        """The price of one call in millionths: of a tool, or of the agent where `tool` is empty; None where no operator has set one."""
        return self.prices.get(tool, self.prices.get("*"))

    def effect_of(self, name: str) -> EffectDeclaration | None:
        """What a call of a tool or skill does to a subject; None where no operator has declared it."""
        return self.effects.get(name, self.effects.get("*"))

    def sensitivity_of(self, tool: str) -> int:
        """The sensitivity of what this tool returns; of anything but a tool, the server's."""
        return self.sensitivities.get(tool, self.sensitivity)
