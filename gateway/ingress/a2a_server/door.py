"""Routes the paths of an agent, /agents/{name} and below: JSON-RPC, HTTP+JSON, the card, and push notifications of the agent."""

import re
from dataclasses import dataclass
from typing import Final

from gateway.ingress.a2a_server.agent_notifications import NotificationEndpoint
from gateway.ingress.a2a_server.bindings.jsonrpc import JsonRpcEndpoint
from gateway.ingress.a2a_server.bindings.rest import RestEndpoint
from gateway.ingress.a2a_server.cards import AgentCardEndpoint
from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.ingress.http.request_trace import RequestTraces, read_traceparent

CARD_PATHS: Final = frozenset({"/.well-known/agent-card.json", "/.well-known/agent.json"})
NOTIFICATION_PATH: Final = re.compile(r"/notifications/([A-Za-z0-9_-]{1,128})")


@dataclass(frozen=True, slots=True)
class A2aServer:
    """Serves A2A over HTTP. `subpath` is the part of the path after the agent's name."""

    jsonrpc: JsonRpcEndpoint
    rest: RestEndpoint
    cards: AgentCardEndpoint
    notifications: NotificationEndpoint
    request_traces: RequestTraces

    async def __call__(self, scope: Scope, receive: Receive, send: Send, name: str, subpath: str) -> None:
        request_trace = self.request_traces.begin("a2a", "/agents", read_traceparent(scope))
        try:
            if subpath in CARD_PATHS:
                request_trace.method = scope["method"]
                await self.cards(scope, send, name)
            elif (found := NOTIFICATION_PATH.fullmatch(subpath)) is not None:
                request_trace.method = scope["method"]
                await self.notifications(scope, receive, send, name, found[1])
            else:
                await (self.jsonrpc if subpath in ("", "/") else self.rest)(scope, receive, send, name, request_trace)
        finally:
            self.request_traces.end(request_trace)
