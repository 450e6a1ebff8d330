"""The door of every agent, /agents/{name} and all below it: JSON-RPC, HTTP+JSON, the card, and where agents push to."""

import re
from dataclasses import dataclass
from typing import Final

from gateway.ingress.a2a_server.agent_notifications import Notifications
from gateway.ingress.a2a_server.bindings.jsonrpc import JsonRpc
from gateway.ingress.a2a_server.bindings.rest import Rest
from gateway.ingress.a2a_server.cards import Cards
from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.ingress.http.request_trace import Visits, traceparent

CARDS: Final = frozenset({"/.well-known/agent-card.json", "/.well-known/agent.json"})
NOTIFICATION: Final = re.compile(r"/notifications/([A-Za-z0-9_-]{1,128})")


@dataclass(frozen=True, slots=True)
class AgentDoor:
    """`below` is what follows the agent's name in the path."""

    jsonrpc: JsonRpc
    rest: Rest
    cards: Cards
    notifications: Notifications
    visits: Visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send, name: str, below: str) -> None:
        visit = self.visits.begin("a2a", "/agents", traceparent(scope))
        try:
            if below in CARDS:
                visit.method = scope["method"]
                await self.cards(scope, send, name)
            elif (found := NOTIFICATION.fullmatch(below)) is not None:
                visit.method = scope["method"]
                await self.notifications(scope, receive, send, name, found[1])
            else:
                await (self.jsonrpc if below in ("", "/") else self.rest)(scope, receive, send, name, visit)
        finally:
            self.visits.end(visit)
