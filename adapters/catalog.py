"""The adapter catalog: the kind of a registration -> its adapter. Each vendor is one line here."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

import structlog

from adapters.a2a_client.agent import A2AAgent
from adapters.a2a_client.push_wakeups import PushWakeups
from adapters.a2a_client.wire.transport import ANSWER_LIMIT, GRPC, HTTP_JSON, JSONRPC, Transport
from adapters.contract import Adapter
from adapters.mcp_client.agent import ToolAgent, ToolCaller
from adapters.oauth.agents import authorize_adapter, needs_credential
from adapters.oauth.authorized import UpstreamOAuth
from adapters.openapi.tools import OPENAPI_KIND
from adapters.sandbox.calculation import SANDBOX_KIND as SANDBOX
from adapters.upstream.aws_access import AWS_OPTION
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import guard
from adapters.upstream.request_signing import RequestSigner
from adapters.upstream.resilience import Resilience
from adapters.vendors.aws.agentcore_session import AgentCoreSessions
from adapters.vendors.sdk.agent import AgentFacts, Features, VendorAgent, build_vendor_agent, parse_options
from adapters.vendors.sdk.connection import VendorEndpoint
from registry.cards.card import BUILT_IN_KIND

SERVER_KINDS = frozenset({"mcp", OPENAPI_KIND, SANDBOX, BUILT_IN_KIND})  # the kinds of servers; agents can't have them
ENTRY_POINT_GROUP: Final = "interlock.adapters"  # by which other distributions add vendors
# loaded when an agent of the kind is first checked (see AdapterCatalog.load), since some import heavy libraries
VENDORS: Final[Mapping[str, str]] = {
    "activity": "adapters.vendors.microsoft.activity:Activity",
    "adk": "adapters.vendors.adk.agent:Adk",
    "ag-ui": "adapters.vendors.ag_ui.agent:AgUi",
    "agentcore": "adapters.vendors.aws.agentcore:AgentCore",
    "agentforce": "adapters.vendors.agentforce.agent:Agentforce",
    "anthropic-agents": "adapters.vendors.anthropic.agents:AnthropicAgents",
    "bedrock": "adapters.vendors.aws.bedrock:Bedrock",
    "crewai": "adapters.vendors.crewai:CrewAI",
    "dify": "adapters.vendors.dify.agent:Dify",
    "direct-line": "adapters.vendors.microsoft.direct_line:DirectLine",
    "foundry": "adapters.vendors.microsoft.foundry:Foundry",
    "langgraph": "adapters.vendors.langchain.langgraph:LangGraph",
    "llama-agents": "adapters.vendors.llama_agents:LlamaAgents",
    "openai-agents": "adapters.vendors.openai.agents:OpenAIAgents",
    "openai-chat": "adapters.vendors.openai.chat:OpenAIChat",
    "openai-responses": "adapters.vendors.openai.responses:OpenAIResponses",
    "rest": "adapters.vendors.rest.template:RestTemplate",
}
NO_OPTIONS: Final[Mapping[str, Any]] = {}
log = structlog.get_logger()


class UnknownKind(Exception):
    """No adapter exists for this kind of agent."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"there is no adapter for agents of the kind {kind[:64]!r}")
        self.kind = kind


class AdapterCatalog:
    """The adapters, each guarded, over one egress client. Without `grpc`, agents can't be called over gRPC.

    `grpc` makes the gRPC transport on first use, since its libraries take half a second to load. `push_wakeups` are for agents that push.
    `servers` calls tools of MCP servers and HTTP APIs, which can be called as agents too. `oauth` gets credentials for entries with `auth`.
    """

    def __init__(
        self,
        egress: Egress,
        grpc: Callable[[], Transport] | None = None,
        push_wakeups: PushWakeups | None = None,
        servers: ToolCaller | None = None,
        oauth: UpstreamOAuth | None = None,
        *,
        answer_limit: int = ANSWER_LIMIT,
        read_option: Callable[[str], str] = str,
    ) -> None:
        """`answer_limit`: maximum bytes of one response of an A2A agent, or of one event of its stream.

        `read_option` resolves options such as `env:NAME`.
        """
        resilience = Resilience()
        self.signer = RequestSigner(read_option)
        ask_again = resilience.may_retry
        a2a = A2AAgent(egress, grpc=grpc, push_wakeups=push_wakeups, may_retry=ask_again, signer=self.signer, limit=answer_limit)
        self._protocol_adapters: dict[str, Adapter] = {"a2a": a2a}
        self._signed_a2a_adapter = guard(authorize_adapter(AgentCoreSessions(a2a), oauth), resilience)
        self._oauth = oauth
        self._authorized_adapters: dict[str, Adapter] = {}
        self.bindings = (JSONRPC, HTTP_JSON, GRPC) if grpc else (JSONRPC, HTTP_JSON)  # of A2A, over which agents can be called
        self._egress = egress
        self.resilience = resilience
        self._class_paths = {**_entry_point_vendors(), **VENDORS}
        self._vendors: dict[str, VendorAgent] = {}
        self._adapters = {kind: guard(adapter, resilience) for kind, adapter in self._protocol_adapters.items()}
        self._tool_agent = guard(ToolAgent(servers)) if servers is not None else None
        self._read_text = read_option
        self._own_builders: dict[str, Callable[[], Adapter]] = {}
        self._own_adapters: dict[str, Adapter] = {}

    def add_own_kind(self, kind: str, build_adapter: Callable[[], Adapter]) -> None:
        """Adds a kind of the gateway's own agents, which nobody can register by its URL. `build_adapter` runs on first use."""
        self._own_builders[kind] = build_adapter

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that an agent may be registered as."""
        return (*dict.fromkeys(("a2a", *sorted(self._class_paths))),)

    async def load(self, kind: str) -> None:
        """Imports a vendor's module in a thread, since that may take a second. An import error is reported on first use."""
        if kind in self._class_paths and kind not in self._vendors:
            await asyncio.to_thread(self._import_module, kind)

    def adapter(self, kind: str, upstream: Mapping[str, Any] = NO_OPTIONS) -> Adapter:
        """The adapter for an entry with that `upstream`. Raises UnknownKind."""
        if kind in SERVER_KINDS and self._tool_agent is not None:
            return self._tool_agent
        if kind in self._own_builders:
            self._own_adapters[kind] = self._own_builders.pop(kind)()
        if kind in self._own_adapters:
            return self._own_adapters[kind]
        if kind == "a2a" and AWS_OPTION in upstream:
            return self._signed_a2a_adapter
        if upstream and needs_credential(upstream):
            if kind not in self._authorized_adapters:
                self._authorized_adapters[kind] = guard(
                    authorize_adapter(self._protocol_adapters.get(kind) or self._vendor_agent(kind), self._oauth), self.resilience
                )
            return self._authorized_adapters[kind]
        if kind not in self._adapters:
            self._adapters[kind] = guard(self._vendor_agent(kind), self.resilience)
        return self._adapters[kind]

    def is_vendor(self, kind: str) -> bool:
        """Whether agents of this kind have no card of their own, but an adapter that describes them."""
        return kind in self._class_paths

    def features(self, kind: str, upstream: Mapping[str, Any] = NO_OPTIONS) -> Features:
        """The features of an agent of this kind with that `upstream`. Raises UnknownKind and BadOptions."""
        vendor = self._vendor_agent(kind).vendor
        return parse_options(vendor, upstream, self._read_text).narrow_features(vendor.features) if upstream else vendor.features

    def check(self, kind: str, upstream: Mapping[str, Any]) -> None:
        """Checks that an `upstream` is valid for this kind of agent. Raises UnknownKind and BadOptions."""
        parse_options(self._vendor_agent(kind).vendor, upstream)

    async def describe(self, kind: str, endpoint: VendorEndpoint) -> AgentFacts:
        """Requests an agent's description. Raises UnknownKind, BadOptions, EgressRefused and UpstreamFault."""
        return await self._vendor_agent(kind).describe(endpoint)

    def _vendor_agent(self, kind: str) -> VendorAgent:
        if kind not in self._vendors:
            self._vendors[kind] = build_vendor_agent(self._load_class(kind)(), self._egress, self._read_text)
        return self._vendors[kind]

    def _import_module(self, kind: str) -> None:
        with suppress(ImportError):
            import_module(self._class_paths[kind].partition(":")[0])

    def _load_class(self, kind: str) -> Any:
        module, _, name = self._class_paths.get(kind, "").partition(":")
        if not module:
            raise UnknownKind(kind)
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            log.error("adapter_not_loaded", kind=kind, place=self._class_paths[kind], error=f"{type(error).__name__}: {error}"[:300])
            raise UnknownKind(kind) from error


@cache
def _installed_entry_points() -> tuple[tuple[str, str], ...]:
    """Returns name and object reference of each adapter that is installed. A process reads the metadata of all distributions once."""
    return tuple((entry.name, entry.value) for entry in entry_points(group=ENTRY_POINT_GROUP))


def _entry_point_vendors() -> dict[str, str]:
    """Vendors of other distributions, which can't replace existing kinds."""
    found = dict(_installed_entry_points())
    for kind in found.keys() & {"a2a", *VENDORS, *SERVER_KINDS}:
        log.warning("adapter_ignored", kind=kind, place=found.pop(kind))
    return found
