"""The methods of the two gRPC services of A2A: the request message, the operation and the response message of each."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from a2a.compat.v0_3 import a2a_v0_3_pb2 as pb03
from a2a.types import a2a_pb2 as pb1
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message as Protobuf

from adapters.a2a_client.protobuf import to_protobuf
from adapters.a2a_client.wire import push, v03_proto, v03_requests, v1
from adapters.a2a_client.wire.lists import read_list_params
from gateway.ingress.a2a_server.operations import OperationRequest, Operations, SequencedEvent


@dataclass(frozen=True, slots=True)
class GrpcMethod:
    """One method.

    `read_params` reads the JSON of a `request` and raises BadMessage. `write_result` builds the response, or one message of a stream.
    """

    request: type[Protobuf]
    read_params: Callable[[Any], Any]
    operation: Callable[[Operations, OperationRequest, Any], Awaitable[Any]]
    write_result: Callable[[Any], Protobuf]
    is_streaming: bool = False


@dataclass(frozen=True, slots=True)
class GrpcService:
    """One gRPC service; `version` is its A2A version."""

    name: str
    version: str
    methods: Mapping[str, GrpcMethod]


def _protobuf_writer(message_type: type[Protobuf], to_wire: Callable[[Any], Any] = lambda noun: noun) -> Callable[[Any], Protobuf]:
    return lambda noun: to_protobuf(to_wire(noun), message_type)


def _write_empty(_: None) -> Protobuf:
    return Empty()


def _ignore_params(_: Any) -> None:
    """Reads the parameters of a request that only names the agent."""


def _event_0_3(numbered: SequencedEvent) -> dict[str, Any]:
    return v03_proto.event_json(v1.only_member(numbered.response))


_write_event = _protobuf_writer(pb1.StreamResponse, lambda numbered: numbered.response)
_write_task, _write_config = _protobuf_writer(pb1.Task), _protobuf_writer(pb1.TaskPushNotificationConfig)
SERVICE_1_0 = GrpcService(
    "lf.a2a.v1.A2AService",
    "1.0",
    {
        "SendMessage": GrpcMethod(
            pb1.SendMessageRequest,
            v1.read_send_params,
            lambda offered, *args: offered.send(*args),
            _protobuf_writer(pb1.SendMessageResponse, v1.send_result),
        ),
        "SendStreamingMessage": GrpcMethod(
            pb1.SendMessageRequest, v1.read_send_params, lambda offered, *args: offered.stream(*args), _write_event, is_streaming=True
        ),
        "GetTask": GrpcMethod(pb1.GetTaskRequest, v1.read_task_params, lambda offered, *args: offered.get_task(*args), _write_task),
        "ListTasks": GrpcMethod(
            pb1.ListTasksRequest,
            read_list_params,
            lambda offered, *args: offered.list_tasks(*args),
            _protobuf_writer(pb1.ListTasksResponse),
        ),
        "CancelTask": GrpcMethod(pb1.CancelTaskRequest, v1.read_task_params, lambda offered, *args: offered.cancel(*args), _write_task),
        "SubscribeToTask": GrpcMethod(
            pb1.SubscribeToTaskRequest,
            v1.read_task_params,
            lambda offered, *args: offered.subscribe(*args),
            _write_event,
            is_streaming=True,
        ),
        "CreateTaskPushNotificationConfig": GrpcMethod(
            pb1.TaskPushNotificationConfig, push.read_push_config, lambda offered, *args: offered.create_push(*args), _write_config
        ),
        "GetTaskPushNotificationConfig": GrpcMethod(
            pb1.GetTaskPushNotificationConfigRequest, push.read_push_params, lambda offered, *args: offered.get_push(*args), _write_config
        ),
        "ListTaskPushNotificationConfigs": GrpcMethod(
            pb1.ListTaskPushNotificationConfigsRequest,
            push.read_push_list_params,
            lambda offered, *args: offered.list_push(*args),
            _protobuf_writer(pb1.ListTaskPushNotificationConfigsResponse),
        ),
        "DeleteTaskPushNotificationConfig": GrpcMethod(
            pb1.DeleteTaskPushNotificationConfigRequest,
            push.read_push_params,
            lambda offered, *args: offered.delete_push(*args),
            _write_empty,
        ),
        "GetExtendedAgentCard": GrpcMethod(
            pb1.GetExtendedAgentCardRequest,
            _ignore_params,
            lambda offered, request, _: offered.get_extended_card(request),
            _protobuf_writer(pb1.AgentCard),
        ),
    },
)

_write_event_0_3 = _protobuf_writer(pb03.StreamResponse, _event_0_3)
_write_task_0_3, _write_config_0_3 = (
    _protobuf_writer(pb03.Task, v03_proto.task_json),
    _protobuf_writer(pb03.TaskPushNotificationConfig, v03_requests.push_config_json),
)
SERVICE_0_3 = GrpcService(
    "a2a.v1.A2AService",
    "0.3",
    {
        "SendMessage": GrpcMethod(
            pb03.SendMessageRequest,
            v03_requests.read_send_params,
            lambda offered, *args: offered.send(*args),
            _protobuf_writer(pb03.SendMessageResponse, v03_proto.event_json),
        ),
        "SendStreamingMessage": GrpcMethod(
            pb03.SendMessageRequest,
            v03_requests.read_send_params,
            lambda offered, *args: offered.stream(*args),
            _write_event_0_3,
            is_streaming=True,
        ),
        "GetTask": GrpcMethod(
            pb03.GetTaskRequest, v03_requests.read_task_params, lambda offered, *args: offered.get_task(*args), _write_task_0_3
        ),
        "CancelTask": GrpcMethod(
            pb03.CancelTaskRequest, v03_requests.read_task_params, lambda offered, *args: offered.cancel(*args), _write_task_0_3
        ),
        "TaskSubscription": GrpcMethod(
            pb03.TaskSubscriptionRequest,
            v03_requests.read_task_params,
            lambda offered, *args: offered.subscribe(*args),
            _write_event_0_3,
            is_streaming=True,
        ),
        "CreateTaskPushNotificationConfig": GrpcMethod(
            pb03.CreateTaskPushNotificationConfigRequest,
            v03_requests.read_push_config,
            lambda offered, *args: offered.create_push(*args),
            _write_config_0_3,
        ),
        "GetTaskPushNotificationConfig": GrpcMethod(
            pb03.GetTaskPushNotificationConfigRequest,
            v03_requests.read_push_params,
            lambda offered, *args: offered.get_push(*args),
            _write_config_0_3,
        ),
        "ListTaskPushNotificationConfig": GrpcMethod(
            pb03.ListTaskPushNotificationConfigRequest,
            v03_requests.read_push_list_params,
            lambda offered, *args: offered.list_push(*args),
            _protobuf_writer(pb03.ListTaskPushNotificationConfigResponse, v03_requests.push_configs_json),
        ),
        "DeleteTaskPushNotificationConfig": GrpcMethod(
            pb03.DeleteTaskPushNotificationConfigRequest,
            v03_requests.read_push_params,
            lambda offered, *args: offered.delete_push(*args),
            _write_empty,
        ),
        "GetAgentCard": GrpcMethod(
            pb03.GetAgentCardRequest,
            _ignore_params,
            lambda offered, request, _: offered.get_extended_card(request),
            _protobuf_writer(pb03.AgentCard, v03_requests.card_json),
        ),
    },
)
SERVICES = (SERVICE_1_0, SERVICE_0_3)
