"""Agent cards as the reference implementation writes them, and an application that serves one for whatever address it is reached at."""

import os
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

from a2a.compat.v0_3.conversions import to_compat_agent_card
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentProvider, AgentSkill
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def described(url: str, *versions: str) -> AgentCard:
    return AgentCard(
        name="Sales Agent (EU)",
        description="Takes orders — für alle.",
        version="1.2.0",
        provider=AgentProvider(organization="Example", url="https://provider.example"),
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=version) for version in versions],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain", "application/json"],
        skills=[AgentSkill(id="order", name="Take an order", description="2 of SKU-7", tags=["sales"], examples=["2 of SKU-7"])],
    )


def card(url: str, *versions: str) -> dict[str, Any]:
    """A pure 1.0 card for `1.0`, a pure 0.3 card for `0.3`, the union for both."""
    if versions == ("0.3",):
        return to_compat_agent_card(described(url, "0.3")).model_dump(mode="json", by_alias=True, exclude_none=True)
    return agent_card_to_dict(described(url, *versions))


def streaming_card(name: str, url: str, skill: str) -> dict[str, Any]:
    """The 1.0 card of an agent that streams over JSON-RPC."""
    described = {"id": skill, "name": skill.title(), "description": f"Can {skill}.", "tags": [skill]}
    return {
        "name": name,
        "description": f"Can {skill}.",
        "version": "1",
        "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [described],
    }


def card_app(*versions: str, path: str = "/.well-known/agent-card.json") -> Starlette:
    async def show(request: Request) -> JSONResponse:
        return JSONResponse(card(str(request.base_url), *versions))

    return Starlette(routes=[Route(path, show)])
