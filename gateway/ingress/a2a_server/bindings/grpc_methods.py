"""The methods of the two gRPC services of A2A: the request message, the A2A method and the response message of each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from a2a.compat.v0_3 import a2a_v0_3_pb2 as pb03
from a2a.types import a2a_pb2 as pb1
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message as Protobuf

from adapters.a2a_client.protobuf import to_protobuf
from adapters.a2a_client.wire import v03_proto, v03_requests
from adapters.a2a_client.wire.lists import TaskPage
from adapters.task import encode
from gateway.ingress.a2a_server.bindings import jsonrpc_methods as methods
from gateway.ingress.a2a_server.bindings.jsonrpc_methods import A2aMethod
from gateway.ingress.a2a_server.bindings.rest_paths import event_0_3
from gateway.ingress.a2a_server.operations import Operations


@dataclass(frozen=True, slots=True)
class GrpcMethod:
    """One method: `a2a` reads the JSON of a `request`, and its result is the JSON of a `response`."""

    request: type[Protobuf]
    a2a: A2aMethod
    response: type[Protobuf]

    def to_response(self, outcome: Any) -> Protobuf:
        """Returns the response, or for a numbered event one message of a stream."""
        return to_protobuf(self.a2a.write_result(outcome.response if self.a2a.is_streaming else outcome), self.response)


@dataclass(frozen=True, slots=True)
class GrpcService:
    """One gRPC service; `version` is its A2A version."""

    name: str
    version: str
    methods: Mapping[str, GrpcMethod]


def _ignore_params(_: Any) -> str:
    """Reads the parameters of a request that only names the agent: no tenant."""
    return ""


def _page_json(page: TaskPage) -> Any:
    """Returns the JSON of a page, whose tasks are encoded already."""
    return msgspec.json.decode(encode(page))


_SEND_0_3 = A2aMethod("SendMessage", v03_requests.read_send_params, Operations.send, event_0_3)
_STREAM_0_3 = A2aMethod("SendStreamingMessage", v03_requests.read_send_params, Operations.stream, event_0_3, is_streaming=True)
_SUBSCRIBE_0_3 = A2aMethod("TaskSubscription", v03_requests.read_task_params, Operations.subscribe, event_0_3, is_streaming=True)
_GET_TASK_0_3 = A2aMethod("GetTask", v03_requests.read_task_params, Operations.get_task, v03_proto.task_json)
_CANCEL_TASK_0_3 = A2aMethod("CancelTask", v03_requests.read_task_params, Operations.cancel, v03_proto.task_json)
_CREATE_PUSH_0_3 = replace(methods.CREATE_PUSH, read_params=v03_requests.read_push_config, write_result=v03_requests.push_config_json)
_GET_PUSH_0_3 = replace(methods.GET_PUSH, read_params=v03_requests.read_push_params, write_result=v03_requests.push_config_json)
_LIST_PUSH_0_3 = replace(methods.LIST_PUSH, read_params=v03_requests.read_push_list_params, write_result=v03_requests.push_configs_json)
_DELETE_PUSH_0_3 = replace(methods.DELETE_PUSH, read_params=v03_requests.read_push_params)
_LIST_TASKS = replace(methods.LIST_TASKS, write_result=_page_json)
_GET_CARD = replace(methods.GET_EXTENDED_CARD, read_params=_ignore_params)
SERVICE_1_0 = GrpcService(
    "lf.a2a.v1.A2AService",
    "1.0",
    {
        "SendMessage": GrpcMethod(pb1.SendMessageRequest, methods.SEND, pb1.SendMessageResponse),
        "SendStreamingMessage": GrpcMethod(pb1.SendMessageRequest, methods.STREAM, pb1.StreamResponse),
        "GetTask": GrpcMethod(pb1.GetTaskRequest, methods.GET_TASK, pb1.Task),
        "ListTasks": GrpcMethod(pb1.ListTasksRequest, _LIST_TASKS, pb1.ListTasksResponse),
        "CancelTask": GrpcMethod(pb1.CancelTaskRequest, methods.CANCEL_TASK, pb1.Task),
        "SubscribeToTask": GrpcMethod(pb1.SubscribeToTaskRequest, methods.SUBSCRIBE, pb1.StreamResponse),
        "CreateTaskPushNotificationConfig": GrpcMethod(pb1.TaskPushNotificationConfig, methods.CREATE_PUSH, pb1.TaskPushNotificationConfig),
        "GetTaskPushNotificationConfig": GrpcMethod(
            pb1.GetTaskPushNotificationConfigRequest, methods.GET_PUSH, pb1.TaskPushNotificationConfig
        ),
        "ListTaskPushNotificationConfigs": GrpcMethod(
            pb1.ListTaskPushNotificationConfigsRequest, methods.LIST_PUSH, pb1.ListTaskPushNotificationConfigsResponse
        ),
        "DeleteTaskPushNotificationConfig": GrpcMethod(pb1.DeleteTaskPushNotificationConfigRequest, methods.DELETE_PUSH, Empty),
        "GetExtendedAgentCard": GrpcMethod(pb1.GetExtendedAgentCardRequest, _GET_CARD, pb1.AgentCard),
    },
)
SERVICE_0_3 = GrpcService(
    "a2a.v1.A2AService",
    "0.3",
    {
        "SendMessage": GrpcMethod(pb03.SendMessageRequest, _SEND_0_3, pb03.SendMessageResponse),
        "SendStreamingMessage": GrpcMethod(pb03.SendMessageRequest, _STREAM_0_3, pb03.StreamResponse),
        "GetTask": GrpcMethod(pb03.GetTaskRequest, _GET_TASK_0_3, pb03.Task),
        "CancelTask": GrpcMethod(pb03.CancelTaskRequest, _CANCEL_TASK_0_3, pb03.Task),
        "TaskSubscription": GrpcMethod(pb03.TaskSubscriptionRequest, _SUBSCRIBE_0_3, pb03.StreamResponse),
        "CreateTaskPushNotificationConfig": GrpcMethod(
            pb03.CreateTaskPushNotificationConfigRequest, _CREATE_PUSH_0_3, pb03.TaskPushNotificationConfig
        ),
        "GetTaskPushNotificationConfig": GrpcMethod(
            pb03.GetTaskPushNotificationConfigRequest, _GET_PUSH_0_3, pb03.TaskPushNotificationConfig
        ),
        "ListTaskPushNotificationConfig": GrpcMethod(
            pb03.ListTaskPushNotificationConfigRequest, _LIST_PUSH_0_3, pb03.ListTaskPushNotificationConfigResponse
        ),
        "DeleteTaskPushNotificationConfig": GrpcMethod(pb03.DeleteTaskPushNotificationConfigRequest, _DELETE_PUSH_0_3, Empty),
        "GetAgentCard": GrpcMethod(pb03.GetAgentCardRequest, replace(_GET_CARD, write_result=v03_requests.card_json), pb03.AgentCard),
    },
)
SERVICES = (SERVICE_1_0, SERVICE_0_3)
