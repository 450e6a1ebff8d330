"""The methods of the two gRPC services of A2A: which message each method takes, which operation it is, and which message answers it."""

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
from gateway.ingress.a2a_server.operations import Asked, Numbered, Operations


@dataclass(frozen=True, slots=True)
class Method:
    """`read` takes the JSON of a `request` and raises BadMessage; `write` makes the answer, or one message of a stream."""

    request: type[Protobuf]
    read: Callable[[Any], Any]
    act: Callable[[Operations, Asked, Any], Awaitable[Any]]
    write: Callable[[Any], Protobuf]
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """`version` is A2A's."""

    name: str
    version: str
    methods: Mapping[str, Method]


def _as(kind: type[Protobuf], worded: Callable[[Any], Any] = lambda noun: noun) -> Callable[[Any], Protobuf]:
    return lambda noun: to_protobuf(worded(noun), kind)


def _empty(_: None) -> Protobuf:
    return Empty()


def _no_params(_: Any) -> None:
    """Of a request that only names the agent."""


def _older_event(numbered: Numbered) -> dict[str, Any]:
    return v03_proto.event_json(v1.member_of(numbered.response))


def _older_page(page: push.PushPage) -> dict[str, Any]:
    return {"configs": [v03_requests.push_config_json(config) for config in page.configs], "nextPageToken": page.next_page_token}


_response = _as(pb1.StreamResponse, lambda numbered: numbered.response)
_task, _config = _as(pb1.Task), _as(pb1.TaskPushNotificationConfig)
CURRENT = Service(
    "lf.a2a.v1.A2AService",
    "1.0",
    {
        "SendMessage": Method(
            pb1.SendMessageRequest,
            v1.read_send_params,
            lambda offered, *given: offered.send(*given),
            _as(pb1.SendMessageResponse, v1.send_result),
        ),
        "SendStreamingMessage": Method(
            pb1.SendMessageRequest, v1.read_send_params, lambda offered, *given: offered.stream(*given), _response, streams=True
        ),
        "GetTask": Method(pb1.GetTaskRequest, v1.read_task_params, lambda offered, *given: offered.task(*given), _task),
        "ListTasks": Method(
            pb1.ListTasksRequest, read_list_params, lambda offered, *given: offered.list(*given), _as(pb1.ListTasksResponse)
        ),
        "CancelTask": Method(pb1.CancelTaskRequest, v1.read_task_params, lambda offered, *given: offered.cancel(*given), _task),
        "SubscribeToTask": Method(
            pb1.SubscribeToTaskRequest, v1.read_task_params, lambda offered, *given: offered.subscribe(*given), _response, streams=True
        ),
        "CreateTaskPushNotificationConfig": Method(
            pb1.TaskPushNotificationConfig, push.read_push_config, lambda offered, *given: offered.create_push(*given), _config
        ),
        "GetTaskPushNotificationConfig": Method(
            pb1.GetTaskPushNotificationConfigRequest, push.read_push_params, lambda offered, *given: offered.get_push(*given), _config
        ),
        "ListTaskPushNotificationConfigs": Method(
            pb1.ListTaskPushNotificationConfigsRequest,
            push.read_push_list_params,
            lambda offered, *given: offered.list_push(*given),
            _as(pb1.ListTaskPushNotificationConfigsResponse),
        ),
        "DeleteTaskPushNotificationConfig": Method(
            pb1.DeleteTaskPushNotificationConfigRequest, push.read_push_params, lambda offered, *given: offered.delete_push(*given), _empty
        ),
        "GetExtendedAgentCard": Method(
            pb1.GetExtendedAgentCardRequest, _no_params, lambda offered, asked, _: offered.extended_card(asked), _as(pb1.AgentCard)
        ),
    },
)

_older_response = _as(pb03.StreamResponse, _older_event)
_older_task, _older_config = _as(pb03.Task, v03_proto.task_json), _as(pb03.TaskPushNotificationConfig, v03_requests.push_config_json)
OLDER = Service(
    "a2a.v1.A2AService",
    "0.3",
    {
        "SendMessage": Method(
            pb03.SendMessageRequest,
            v03_requests.read_send_params,
            lambda offered, *given: offered.send(*given),
            _as(pb03.SendMessageResponse, v03_proto.event_json),
        ),
        "SendStreamingMessage": Method(
            pb03.SendMessageRequest,
            v03_requests.read_send_params,
            lambda offered, *given: offered.stream(*given),
            _older_response,
            streams=True,
        ),
        "GetTask": Method(pb03.GetTaskRequest, v03_requests.read_task_params, lambda offered, *given: offered.task(*given), _older_task),
        "CancelTask": Method(
            pb03.CancelTaskRequest, v03_requests.read_task_params, lambda offered, *given: offered.cancel(*given), _older_task
        ),
        "TaskSubscription": Method(
            pb03.TaskSubscriptionRequest,
            v03_requests.read_task_params,
            lambda offered, *given: offered.subscribe(*given),
            _older_response,
            streams=True,
        ),
        "CreateTaskPushNotificationConfig": Method(
            pb03.CreateTaskPushNotificationConfigRequest,
            v03_requests.read_push_config,
            lambda offered, *given: offered.create_push(*given),
            _older_config,
        ),
        "GetTaskPushNotificationConfig": Method(
            pb03.GetTaskPushNotificationConfigRequest,
            v03_requests.read_push_params,
            lambda offered, *given: offered.get_push(*given),
            _older_config,
        ),
        "ListTaskPushNotificationConfig": Method(
            pb03.ListTaskPushNotificationConfigRequest,
            v03_requests.read_push_list_params,
            lambda offered, *given: offered.list_push(*given),
            _as(pb03.ListTaskPushNotificationConfigResponse, _older_page),
        ),
        "DeleteTaskPushNotificationConfig": Method(
            pb03.DeleteTaskPushNotificationConfigRequest,
            v03_requests.read_push_params,
            lambda offered, *given: offered.delete_push(*given),
            _empty,
        ),
        "GetAgentCard": Method(
            pb03.GetAgentCardRequest,
            _no_params,
            lambda offered, asked, _: offered.extended_card(asked),
            _as(pb03.AgentCard, v03_requests.card_json),
        ),
    },
)
SERVICES = (CURRENT, OLDER)
