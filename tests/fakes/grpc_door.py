"""The gRPC door on loopback, before operations of the test's own."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import grpc
from a2a.client.client import ClientCallContext
from a2a.client.transports.grpc import GrpcTransport
from a2a.compat.v0_3.grpc_transport import CompatGrpcTransport
from a2a.types import AgentCapabilities, AgentCard

from adapters.a2a_client.wire.lists import TaskPage
from adapters.a2a_client.wire.push import PushPage
from adapters.task import (
    Artifact,
    Message,
    Part,
    PushAuthentication,
    PushConfig,
    Role,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from gateway.ingress.a2a_server.bindings.grpc import GrpcServer
from gateway.ingress.a2a_server.bindings.grpc_methods import SERVICES, GrpcService
from gateway.ingress.a2a_server.bindings.jsonrpc_methods import A2aMethod
from gateway.ingress.a2a_server.operations import OperationRequest, SequencedEvent
from gateway.ingress.http.request_trace import RequestTraces
from gateway.telemetry.metrics import Metrics
from policies.tokens.verifier import TokenRefused

MESSAGE = Message("m-2", Role.AGENT, (Part(text="hello"), Part(data={"n": 1}), Part(raw="aGk=", media_type="a/b", filename="x")))
TASK = Task(
    id="t",
    context_id="c",
    status=TaskStatus(state=TaskState.CANCELED, message=MESSAGE, timestamp="2026-01-02T03:04:05.678Z"),
    artifacts=(Artifact("a", (Part(text="done"),), name="result"),),
    history=(MESSAGE,),
    metadata={"k": [1, None]},
)
EVENTS = (
    StreamResponse(task=TASK),
    StreamResponse(message=MESSAGE),
    StreamResponse(artifact_update=TaskArtifactUpdateEvent("t", "c", TASK.artifacts[0], append=True, last_chunk=True)),
    StreamResponse(status_update=TaskStatusUpdateEvent("t", "c", TASK.status)),
)
CONFIG = PushConfig("https://hook.example/", "p", "t", authentication=PushAuthentication("Bearer"))
CARD: dict[str, Any] = {
    "name": "Sales",
    "description": "Sells.",
    "version": "1",
    "supportedInterfaces": [
        {"url": "http://x/agents/sales", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        {"url": "x:9", "protocolBinding": "GRPC", "protocolVersion": "1.0", "tenant": "sales"},
    ],
    "capabilities": {"streaming": True, "extendedAgentCard": True},
    "securitySchemes": {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}},
    "securityRequirements": [{"schemes": {"bearer": {"list": ["agent:sales"]}}}],
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [{"id": "s", "name": "S", "description": "Sells.", "tags": ["a"]}],
    "signatures": [{"protected": "e30", "signature": "e30"}],
}


class Canned:
    """Operations that note what they are asked, and answer the same always, or raise `error`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, OperationRequest, Any]] = []
        self.error: Exception | None = None
        self.answers: dict[str, Any] = {
            "send": TASK,
            "stream": EVENTS,
            "get_task": TASK,
            "list_tasks": TaskPage((TASK,), "next", 10, 11),
            "cancel": TASK,
            "subscribe": EVENTS,
            "create_push": CONFIG,
            "get_push": CONFIG,
            "list_push": PushPage((CONFIG,), "next"),
            "delete_push": None,
            "get_extended_card": CARD,
        }

    def extensions_in_force(self, asked: OperationRequest) -> list[str]:
        return sorted(asked.extensions)

    def __getattr__(self, name: str) -> Any:
        async def act(asked: OperationRequest, params: Any = None) -> Any:
            self.asked.append((name, asked, params))
            if self.error is not None:
                raise self.error
            return self._events() if name in ("stream", "subscribe") else self.answers[name]

        return act

    async def _events(self) -> AsyncGenerator[list[SequencedEvent], None]:
        for seq, response in enumerate(self.answers["stream"], 1):
            yield [SequencedEvent(seq, response)]


def canned_services() -> list[GrpcService]:
    """The services, whose methods call the operation of the same name on what they are given, such as `Canned`."""
    return [
        replace(service, methods={name: replace(method, a2a=_by_name(method.a2a)) for name, method in service.methods.items()})
        for service in SERVICES
    ]


def _by_name(method: A2aMethod) -> A2aMethod:
    name = method.operation.__name__
    return replace(method, operation=lambda operations, asked, params: getattr(operations, name)(asked, params))


class Gate:
    """Lets in who shows the token `good`; notes for which resource."""

    def __init__(self) -> None:
        self.resources: list[str] = []

    async def authenticate_header(self, given: str | None, resource: str, scope: Any = None) -> Any:
        self.resources.append(resource)
        if given != "Bearer good":
            raise TokenRefused("missing" if given is None else "malformed")
        return "alice"

    def challenge(self, resource: str, error: str = "", scope: str = "", scheme: str = "Bearer") -> str:
        return f"Bearer {error}".strip()


class Opened:
    """A door that listens, and how to call it."""

    def __init__(self, door: GrpcServer, channel: Any) -> None:
        self.door = door
        self.channel = channel
        card = AgentCard(capabilities=AgentCapabilities(extended_agent_card=True))
        self.clients = {"1.0": GrpcTransport(channel, card), "0.3": CompatGrpcTransport(channel, card)}

    @staticmethod
    def as_(token: str = "good", timeout: float = 60, **metadata: str) -> ClientCallContext:
        """What the reference client sends along. In 0.3 the agent is named there."""
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        return ClientCallContext(timeout=timeout, service_parameters={"authorization": f"Bearer {token}", **named})

    async def call(self, method: str, body: bytes, metadata: Mapping[str, str] | tuple[tuple[str, str], ...]) -> bytes:
        """Any bytes, with any metadata."""
        pairs = tuple(metadata.items()) if isinstance(metadata, Mapping) else metadata
        answer: bytes = await self.channel.unary_unary(method)(body, metadata=pairs, timeout=60)
        return answer


@asynccontextmanager
async def opened(operations: Any, authentication: Any, max_body: int = 1 << 20, admit: Any = None) -> AsyncIterator[Opened]:
    door = GrpcServer(authentication, operations, RequestTraces(None, Metrics()), max_body, services=canned_services(), admit=admit)
    await door.open("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
        try:
            yield Opened(door, channel)
        finally:
            await door.close()
