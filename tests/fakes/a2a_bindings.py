"""Scripted agents of the reference implementation over HTTP+JSON and gRPC, in either version, served on loopback."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import grpc
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.routes import create_rest_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, a2a_pb2_grpc
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.fakes.a2a_agents import ScriptedAgent, keep_until_loop_closes, serving

Call = tuple[str, dict[str, str]]  # the path or method that was called, and its headers or metadata


def handler(binding: str, version: str) -> DefaultRequestHandler:
    card = AgentCard(
        name="Scripted",
        description="Does as it is told.",
        version="1",
        supported_interfaces=[AgentInterface(url="http://agent.example/", protocol_binding=binding, protocol_version=version)],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )
    return keep_until_loop_closes(DefaultRequestHandler(ScriptedAgent(), InMemoryTaskStore(), card))


@asynccontextmanager
async def rest_agent(version: str) -> AsyncIterator[tuple[str, list[Call]]]:
    """Its URL and the calls it gets. Version 0.3 knows no path of 1.0."""
    older = version == "0.3"
    routes = create_rest_routes(handler("HTTP+JSON", version), enable_v0_3_compat=older)
    app = Starlette(routes=[route for route in routes if not older or (isinstance(route, Route) and route.path.startswith("/v1/"))])
    calls: list[Call] = []

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append((scope["raw_path"].decode(), {name.decode(): value.decode() for name, value in scope["headers"]}))
        await app(scope, receive, send)

    async with serving(noted) as url:
        yield url, calls


class _Noted(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # gRPC has no types
    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]  # gRPC has no types
        self.calls.append((details.method, dict(details.invocation_metadata)))
        return await continuation(details)


@asynccontextmanager
async def grpc_agent(version: str) -> AsyncIterator[tuple[str, list[Call]]]:
    """Its target, `host:port`, and the calls it gets. Each version serves its own service alone."""
    noted = _Noted()
    server = grpc.aio.server(interceptors=[noted])
    if version == "0.3":
        a2a_v0_3_pb2_grpc.add_A2AServiceServicer_to_server(CompatGrpcHandler(handler("GRPC", version)), server)
    else:
        a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler("GRPC", version)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", noted.calls
    finally:
        await server.stop(None)
