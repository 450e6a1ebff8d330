"""The methods of A2A's versions: how each is read, which operation it is, and how its outcome is written."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from adapters.a2a_client.wire import lists, push, v03, v1
from adapters.task import Message, PushConfig, StreamResponse, Task
from gateway.ingress.a2a_server.operations import Asked, Operations
from gateway.ingress.http.errors import UnknownMethod
from registry.cards.older_card import older

VERSIONS: Final = ("1.0", "0.3")


@dataclass(frozen=True, slots=True)
class Method:
    """`name` is the operation's in 1.0. Of one that streams, `act` returns its events, and `write` writes each."""

    name: str
    read: Callable[[Any], Any]
    act: Callable[[Operations, Asked, Any], Awaitable[Any]]
    write: Callable[[Any], Any]
    streams: bool = False


def method_of(name: str, version: str) -> tuple[Method, str]:
    """A method of JSON-RPC and its version. Where none is asked for, which means 0.3 (s3.6.2), those of 1.0 speak for themselves: no
    name is of both. Raises UnknownMethod."""
    version = version or ("1.0" if name in V1 else "0.3")
    found = METHODS[version].get(name)
    if found is None:
        raise UnknownMethod
    return found, version


def read_card_params(params: Any) -> str:
    """GetExtendedAgentCardRequest, of which nothing but its tenant matters. Raises BadMessage."""
    if params is None:
        return ""
    tenant = params.get("tenant") or "" if isinstance(params, dict) else None
    if not isinstance(tenant, str):
        raise v1.BadMessage("tenant" if isinstance(params, dict) else "params", "has the wrong type")
    return tenant


def as_it_is(outcome: Any) -> Any:
    return outcome


def nothing(_outcome: None) -> dict[str, Any]:
    """google.protobuf.Empty."""
    return {}


def _configs_0_3(page: push.PushPage) -> list[dict[str, Any]]:
    return [push.push_config_json_0_3(config) for config in page.configs]


def _config_0_3(params: Any) -> PushConfig:
    """The reference implementation's rule: a config without an id has the task's, so that setting it again replaces it."""
    read = push.read_push_config_0_3(params)
    return read if read.id else replace(read, id=read.task_id)


def _one_config_0_3(params: Any) -> push.PushParams:
    read = push.read_push_params_0_3(params)
    if not read.id:
        raise v1.BadMessage("pushNotificationConfigId", "is missing")
    return read


def _list_params_0_3(params: Any) -> push.PushListParams:
    return push.PushListParams(push.read_push_params_0_3(params).task_id)


def _event_0_3(outcome: Task | Message | StreamResponse) -> dict[str, Any]:
    return v03.event_json(v1.member_of(outcome) if isinstance(outcome, StreamResponse) else outcome)


def _card_0_3(card: Mapping[str, Any]) -> dict[str, Any]:
    """One of its signatures is over the members of 0.3."""
    kept = {name: value for name, value in card.items() if name not in ("supportedInterfaces", "securityRequirements")}
    return {**kept, **older(card)}


SEND: Final = Method("SendMessage", v1.read_send_params, Operations.send, v1.send_result)
STREAM: Final = Method("SendStreamingMessage", v1.read_send_params, Operations.stream, as_it_is, streams=True)
GET: Final = Method("GetTask", v1.read_task_params, Operations.task, as_it_is)
LIST: Final = Method("ListTasks", lists.read_list_params, Operations.list, as_it_is)
CANCEL: Final = Method("CancelTask", v1.read_task_params, Operations.cancel, as_it_is)
SUBSCRIBE: Final = Method("SubscribeToTask", v1.read_task_params, Operations.subscribe, as_it_is, streams=True)
CREATE_PUSH: Final = Method("CreateTaskPushNotificationConfig", push.read_push_config, Operations.create_push, as_it_is)
GET_PUSH: Final = Method("GetTaskPushNotificationConfig", push.read_push_params, Operations.get_push, as_it_is)
LIST_PUSH: Final = Method("ListTaskPushNotificationConfigs", push.read_push_list_params, Operations.list_push, as_it_is)
DELETE_PUSH: Final = Method("DeleteTaskPushNotificationConfig", push.read_push_params, Operations.delete_push, nothing)
CARD: Final = Method("GetExtendedAgentCard", read_card_params, Operations.extended_card, as_it_is)

V1: Final[Mapping[str, Method]] = {
    method.name: method for method in (SEND, STREAM, GET, LIST, CANCEL, SUBSCRIBE, CREATE_PUSH, GET_PUSH, LIST_PUSH, DELETE_PUSH, CARD)
}
V03: Final[Mapping[str, Method]] = {
    "message/send": Method(SEND.name, v03.read_send_params, Operations.send, _event_0_3),
    "message/stream": Method(STREAM.name, v03.read_send_params, Operations.stream, _event_0_3, streams=True),
    "tasks/get": Method(GET.name, v03.read_task_params, Operations.task, v03.task_json),
    "tasks/cancel": Method(CANCEL.name, v03.read_task_params, Operations.cancel, v03.task_json),
    "tasks/resubscribe": Method(SUBSCRIBE.name, v03.read_task_params, Operations.subscribe, _event_0_3, streams=True),
    "tasks/pushNotificationConfig/set": Method(CREATE_PUSH.name, _config_0_3, Operations.create_push, push.push_config_json_0_3),
    "tasks/pushNotificationConfig/get": Method(GET_PUSH.name, push.read_push_params_0_3, Operations.get_push, push.push_config_json_0_3),
    "tasks/pushNotificationConfig/list": Method(LIST_PUSH.name, _list_params_0_3, Operations.list_push, _configs_0_3),
    "tasks/pushNotificationConfig/delete": Method(DELETE_PUSH.name, _one_config_0_3, Operations.delete_push, as_it_is),
    "agent/getAuthenticatedExtendedCard": Method(CARD.name, read_card_params, Operations.extended_card, _card_0_3),
}
METHODS: Final[Mapping[str, Mapping[str, Method]]] = {"1.0": V1, "0.3": V03}
