"""Which languages the gateway speaks: the kind of a registration -> its adapter. A vendor is one line here."""

from collections.abc import Callable

from adapters.a2a_agent import A2AAgent
from adapters.a2a_wire.transport import GRPC, HTTP_JSON, JSONRPC, Transport
from adapters.calculation import KIND as SANDBOX
from adapters.contract import Adapter
from adapters.doorbells import Doorbells
from adapters.egress import Egress
from adapters.guarded import Guarded
from adapters.mcp_agent import Servers, ToolAgent
from adapters.openapi_tools import KIND

SERVERS = frozenset({"mcp", KIND, SANDBOX})  # the kinds of servers; no agent is registered as one


class UnknownKind(Exception):
    """No adapter speaks to agents of this kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"no adapter speaks to agents of the kind {kind[:64]!r}")
        self.kind = kind


class Catalog:
    """The adapters, each behind the guard, over the one egress. Without `grpc`, agents can't be called over gRPC.

    `grpc` makes the gRPC transport when an agent is first called over it, since its libraries take half a second to load.
    `doorbells` are for agents that push, `servers` are those of tools, MCP's and HTTP APIs, which are called as agents too.
    """

    def __init__(
        self,
        egress: Egress,
        grpc: Callable[[], Transport] | None = None,
        doorbells: Doorbells | None = None,
        servers: Servers | None = None,
    ) -> None:
        languages: dict[str, Adapter] = {
            "a2a": A2AAgent(egress, grpc=grpc, doorbells=doorbells),
        }
        self.bindings = (JSONRPC, HTTP_JSON, GRPC) if grpc else (JSONRPC, HTTP_JSON)  # of A2A, that agents can be called over
        self._adapters = {kind: Guarded(adapter) for kind, adapter in languages.items()}
        self._servers = Guarded(ToolAgent(servers)) if servers is not None else None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds an agent may be registered as."""
        return tuple(self._adapters)

    def adapter(self, kind: str) -> Adapter:
        """Raises UnknownKind."""
        if kind in SERVERS and self._servers is not None:
            return self._servers
        try:
            return self._adapters[kind]
        except KeyError:
            raise UnknownKind(kind) from None
