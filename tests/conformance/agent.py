"""A2A 1.0 agents built with the official SDK: JSON-RPC, HTTP+JSON and gRPC, streaming, push, an extended card."""

import argparse
import asyncio
import logging
import os

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import grpc.aio
import httpx
import uvicorn
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler, RequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import BasePushNotificationSender, InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentExtension, AgentInterface, AgentSkill
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from tests.conformance.scenarios import COMPLETE, STAY_OPEN, ScenarioExecutor

HOST = "127.0.0.1"
EXTENSION = AgentExtension(uri="urn:a2a:tck:required-extension", description="What the kit never asks for", required=True)
CAPABILITIES = {  # the path that an agent is served below -> what its card declares
    "": AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True),
    "/bare": AgentCapabilities(),
    "/strict": AgentCapabilities(streaming=True, extensions=[EXTENSION]),
    "/open": AgentCapabilities(streaming=True, push_notifications=True),
}


def card(path: str, port: int, grpc_port: int) -> AgentCard:
    """The card of the agent below `path`. With a gRPC port it offers the other bindings too, which only the kit itself uses."""
    url = f"http://{HOST}:{port}{path}"
    offered = {"JSONRPC": f"{url}/"} | ({"HTTP+JSON": f"{url}/rest"} if grpc_port else {})
    if grpc_port and not path:
        offered["GRPC"] = f"{HOST}:{grpc_port}"
    return AgentCard(
        name=f"Conformance agent {path.strip('/')}".strip(),
        description="Behaves as the scenarios of the A2A kit ask.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=at, protocol_binding=binding, protocol_version="1.0") for binding, at in offered.items()],
        capabilities=CAPABILITIES[path],
        default_input_modes=["*/*"],
        default_output_modes=["*/*"],
        skills=[AgentSkill(id="tck", name="Scenarios", description="Plays the scenario that the messageId names", tags=["tck"])],
    )


def handler(path: str, offered: AgentCard, client: httpx.AsyncClient) -> RequestHandler:
    """Below /open a message that names no scenario leaves its task open: the kit for 0.3 expects to go on with it."""
    pushes = InMemoryPushNotificationConfigStore()
    return DefaultRequestHandler(
        ScenarioExecutor(STAY_OPEN if path == "/open" else COMPLETE),
        InMemoryTaskStore(),
        offered,
        push_config_store=pushes,
        push_sender=BasePushNotificationSender(client, pushes),
        extended_agent_card=offered if offered.capabilities.extended_agent_card else None,
    )


def routes(offered: AgentCard, answering: RequestHandler) -> list[BaseRoute]:
    rest = Mount("/rest", Starlette(routes=create_rest_routes(answering)))
    return [*create_agent_card_routes(offered, cache_control="max-age=60"), *create_jsonrpc_routes(answering, "/"), rest]


async def serve(port: int, grpc_port: int) -> None:
    """All agents on one port, over gRPC the first."""
    cards = {path: card(path, port, grpc_port) for path in CAPABILITIES}
    async with httpx.AsyncClient(timeout=60) as client:
        handlers = {path: handler(path, offered, client) for path, offered in cards.items()}
        mounts = [Mount(path, routes=routes(cards[path], handlers[path])) for path in sorted(cards, key=len, reverse=True)]
        remote = grpc.aio.server()
        if grpc_port:
            add_A2AServiceServicer_to_server(GrpcHandler(handlers[""]), remote)
            remote.add_insecure_port(f"{HOST}:{grpc_port}")
        await remote.start()
        settings = uvicorn.Config(Starlette(routes=mounts), host=HOST, port=port, log_level="warning", timeout_graceful_shutdown=2)
        await uvicorn.Server(settings).serve()
        await remote.stop(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, default=0, help="also serve HTTP+JSON under /rest, and gRPC on this port")
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(given.port, given.grpc_port))
