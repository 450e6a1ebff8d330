"""The reference clients of every binding and version at one gateway, each with all operations of A2A that its version has there."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import httpx
from a2a.client.client import ClientCallContext
from a2a.client.transports.grpc import GrpcTransport
from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.client.transports.rest import RestTransport
from a2a.compat.v0_3 import a2a_v0_3_pb2 as pb03
from a2a.compat.v0_3 import conversions, proto_utils
from a2a.compat.v0_3.grpc_transport import CompatGrpcTransport
from a2a.compat.v0_3.jsonrpc_transport import CompatJsonRpcTransport
from a2a.compat.v0_3.rest_transport import CompatRestTransport
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    DeleteTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskState,
)
from google.protobuf.json_format import ParseDict
from grpc.aio import insecure_channel

from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.house import House, open_house
from tests.fakes.ports import free_port


class WholeRest03(CompatRestTransport):
    """With what 0.3 has over HTTP+JSON and its reference client can't ask for: lists of tasks and of webhooks, and removing one."""

    async def list_tasks(self, request: ListTasksRequest, *, context: ClientCallContext | None = None) -> ListTasksResponse:
        found: Any = await self._execute_request("GET", "/v1/tasks", context)
        read = [proto_utils.FromProto.task(ParseDict(each, pb03.Task())) for each in found]
        return ListTasksResponse(tasks=[conversions.to_core_task(each) for each in read])

    async def list_task_push_notification_configs(
        self, request: ListTaskPushNotificationConfigsRequest, *, context: ClientCallContext | None = None
    ) -> ListTaskPushNotificationConfigsResponse:
        found = await self._execute_request("GET", f"/v1/tasks/{request.task_id}/pushNotificationConfigs", context)
        read = proto_utils.FromProto.list_task_push_notification_config_response(
            ParseDict(found, pb03.ListTaskPushNotificationConfigResponse())
        )
        return conversions.to_core_list_task_push_notification_config_response(read)

    async def delete_task_push_notification_config(
        self, request: DeleteTaskPushNotificationConfigRequest, *, context: ClientCallContext | None = None
    ) -> None:
        await self._execute_request("DELETE", f"/v1/tasks/{request.task_id}/pushNotificationConfigs/{request.id}", context)


HTTP: dict[str, Any] = {
    "jsonrpc-1.0": JsonRpcTransport,
    "jsonrpc-0.3": CompatJsonRpcTransport,
    "rest-1.0": RestTransport,
    "rest-0.3": WholeRest03,
}
GRPC: dict[str, Any] = {"grpc-1.0": GrpcTransport, "grpc-0.3": CompatGrpcTransport}
EVERY_DOOR = (*HTTP, *GRPC)
TIMEOUT = 60.0  # seconds


class Client:
    """A reference client that says with each call who it is, and to which agent it speaks."""

    def __init__(self, transport: Any, context: ClientCallContext) -> None:
        self._transport = transport
        self._context = context

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._transport, name)
        return lambda request: act(request, context=self._context)


@asynccontextmanager
async def every_door(folder: Path, database_url: str, **settings: Any) -> AsyncIterator[House]:
    """A gateway on loopback, with gRPC."""
    async with open_house(folder, database_url, grpc_port=free_port(), **settings) as home:
        home.gateway.lifecycle.start()
        await home.gateway.lifecycle.wait_until_started()
        yield home


@asynccontextmanager
async def client_of(home: House, door: str, user: str = "alice", **more: Any) -> AsyncIterator[Client]:
    """`more`: the token to show, the agent to speak to, and further headers."""
    token, agent = more.pop("token", None) or home.token(user), more.pop("agent", "sales")
    said = {"authorization": f"Bearer {token}", **more.pop("headers", {})}
    card = AgentCard(capabilities=AgentCapabilities(extended_agent_card=True, streaming=True))
    if door in GRPC:
        context = ClientCallContext(timeout=TIMEOUT, service_parameters={**said, "a2a-tenant": agent})
        async with insecure_channel(f"127.0.0.1:{home.gateway.settings.grpc_port}") as channel:
            yield Client(GRPC[door](channel, card), context)
        return
    headers = {**said, "A2A-Version": door.rpartition("-")[2]}
    async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT, verify=False) as http:  # there is no TLS to verify
        yield Client(HTTP[door](http, card, f"{home.url}/agents/{agent}"), ClientCallContext(timeout=TIMEOUT))


async def scripted(home: House, version: str = "1.0", agent: Any = None) -> None:
    """The agent `sales` of the reference implementation, over JSON-RPC in `version`."""
    url = await home.stack.enter_async_context(serving(agent or a2a_agent(version)))
    await home.registered("sales", url, facts={"version": version, "streaming": True})


def request(text: str, message_id: str = "m-1", **more: Any) -> SendMessageRequest:
    """Told to wait, which protobuf can't leave open in 0.3."""
    message = Message(message_id=message_id, role=Role.ROLE_USER, parts=[Part(text=text)], **more)
    return SendMessageRequest(message=message, configuration=SendMessageConfiguration(accepted_output_modes=["*/*"]))


async def sent(client: Client, text: str, **more: Any) -> Task:
    task: Task = (await client.send_message(request(text, **more))).task
    return task


def texts(task: Task) -> list[str]:
    return [part.text for artifact in task.artifacts for part in artifact.parts if part.text]


def history(task: Task) -> list[str]:
    return [part.text for message in task.history for part in message.parts]


def told(response: StreamResponse) -> str:
    """What an event says, in short: the same in each binding and version."""
    if response.HasField("status_update"):
        return str(TaskState.Name(response.status_update.status.state))
    if response.HasField("artifact_update"):
        return str(response.artifact_update.artifact.parts[0].text)
    return f"task {TaskState.Name(response.task.status.state)}"
