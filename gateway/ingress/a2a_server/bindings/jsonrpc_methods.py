"""The methods of both A2A versions: how to read the parameters, which operation to run, and how to write the result."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from adapters.a2a_client.wire import lists, push, v03, v1
from adapters.task import Message, PushConfig, StreamResponse, Task
from gateway.ingress.a2a_server.operations import OperationRequest, Operations
from gateway.ingress.http.errors import UnknownMethod
from registry.cards.older_card import older

VERSIONS: Final = ("1.0", "0.3")


@dataclass(frozen=True, slots=True)
class A2aMethod:
    """One method. `name` is its name in 1.0. A streaming operation returns events, and `write_result` converts each."""

    name: str
    read_params: Callable[[Any], Any]
    operation: Callable[[Operations, OperationRequest, Any], Awaitable[Any]]
    write_result: Callable[[Any], Any]
    is_streaming: bool = False

    @property
    def writes_unchanged(self) -> bool:
        """Returns whether the result of an operation is what 1.0 sends, so that what is encoded already need not be decoded."""
        return self.write_result is return_unchanged


def method_of(name: str, version: str) -> tuple[A2aMethod, str]:
    """Returns a JSON-RPC method and its version. Raises UnknownMethod.

    A request without a version means 0.3 (s3.6.2), but a method name of 1.0 is served as 1.0, since no name is in both.
    """
    version = version or ("1.0" if name in V1 else "0.3")
    found = METHODS[version].get(name)
    if found is None:
        raise UnknownMethod
    return found, version


def read_card_params(params: Any) -> str:
    """Returns the tenant of GetExtendedAgentCardRequest, or "". Raises BadMessage."""
    if params is None:
        return ""
    tenant = params.get("tenant") or "" if isinstance(params, dict) else None
    if not isinstance(tenant, str):
        raise v1.BadMessage("tenant" if isinstance(params, dict) else "params", "has the wrong type")
    return tenant


def return_unchanged(outcome: Any) -> Any:
    return outcome


def empty_result(_outcome: None) -> dict[str, Any]:
    """Returns google.protobuf.Empty as JSON."""
    return {}


def _configs_0_3(page: push.PushPage) -> list[dict[str, Any]]:
    return [push.push_config_json_0_3(config) for config in page.configs]


def _read_config_0_3(params: Any) -> PushConfig:
    """Reads a config. Without an id it gets the task's id, as in the reference implementation, so that setting it again replaces it."""
    read = push.read_push_config_0_3(params)
    return read if read.id else replace(read, id=read.task_id)


def _read_config_ref_0_3(params: Any) -> push.PushParams:
    read = push.read_push_params_0_3(params)
    if not read.id:
        raise v1.BadMessage("pushNotificationConfigId", "is missing")
    return read


def _read_list_params_0_3(params: Any) -> push.PushListParams:
    return push.PushListParams(push.read_push_params_0_3(params).task_id)


def _event_0_3(outcome: Task | Message | StreamResponse) -> dict[str, Any]:
    return v03.event_json(v1.only_member(outcome) if isinstance(outcome, StreamResponse) else outcome)


def _card_0_3(card: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the card in its 0.3 form, whose members one of its signatures covers."""
    members = {name: value for name, value in card.items() if name not in ("supportedInterfaces", "securityRequirements")}
    return {**members, **older(card)}


SEND: Final = A2aMethod("SendMessage", v1.read_send_params, Operations.send, v1.send_result)
STREAM: Final = A2aMethod("SendStreamingMessage", v1.read_send_params, Operations.stream, return_unchanged, is_streaming=True)
GET_TASK: Final = A2aMethod("GetTask", v1.read_task_params, Operations.get_task, return_unchanged)
LIST_TASKS: Final = A2aMethod("ListTasks", lists.read_list_params, Operations.list_tasks, return_unchanged)
CANCEL_TASK: Final = A2aMethod("CancelTask", v1.read_task_params, Operations.cancel, return_unchanged)
SUBSCRIBE: Final = A2aMethod("SubscribeToTask", v1.read_task_params, Operations.subscribe, return_unchanged, is_streaming=True)
CREATE_PUSH: Final = A2aMethod("CreateTaskPushNotificationConfig", push.read_push_config, Operations.create_push, return_unchanged)
GET_PUSH: Final = A2aMethod("GetTaskPushNotificationConfig", push.read_push_params, Operations.get_push, return_unchanged)
LIST_PUSH: Final = A2aMethod("ListTaskPushNotificationConfigs", push.read_push_list_params, Operations.list_push, return_unchanged)
DELETE_PUSH: Final = A2aMethod("DeleteTaskPushNotificationConfig", push.read_push_params, Operations.delete_push, empty_result)
GET_EXTENDED_CARD: Final = A2aMethod("GetExtendedAgentCard", read_card_params, Operations.get_extended_card, return_unchanged)

V1: Final[Mapping[str, A2aMethod]] = {
    method.name: method
    for method in (
        SEND,
        STREAM,
        GET_TASK,
        LIST_TASKS,
        CANCEL_TASK,
        SUBSCRIBE,
        CREATE_PUSH,
        GET_PUSH,
        LIST_PUSH,
        DELETE_PUSH,
        GET_EXTENDED_CARD,
    )
}
V03: Final[Mapping[str, A2aMethod]] = {
    "message/send": A2aMethod(SEND.name, v03.read_send_params, Operations.send, _event_0_3),
    "message/stream": A2aMethod(STREAM.name, v03.read_send_params, Operations.stream, _event_0_3, is_streaming=True),
    "tasks/get": A2aMethod(GET_TASK.name, v03.read_task_params, Operations.get_task, v03.task_json),
    "tasks/cancel": A2aMethod(CANCEL_TASK.name, v03.read_task_params, Operations.cancel, v03.task_json),
    "tasks/resubscribe": A2aMethod(SUBSCRIBE.name, v03.read_task_params, Operations.subscribe, _event_0_3, is_streaming=True),
    "tasks/pushNotificationConfig/set": A2aMethod(CREATE_PUSH.name, _read_config_0_3, Operations.create_push, push.push_config_json_0_3),
    "tasks/pushNotificationConfig/get": A2aMethod(GET_PUSH.name, push.read_push_params_0_3, Operations.get_push, push.push_config_json_0_3),
    "tasks/pushNotificationConfig/list": A2aMethod(LIST_PUSH.name, _read_list_params_0_3, Operations.list_push, _configs_0_3),
    "tasks/pushNotificationConfig/delete": A2aMethod(DELETE_PUSH.name, _read_config_ref_0_3, Operations.delete_push, return_unchanged),
    "agent/getAuthenticatedExtendedCard": A2aMethod(GET_EXTENDED_CARD.name, read_card_params, Operations.get_extended_card, _card_0_3),
}
METHODS: Final[Mapping[str, Mapping[str, A2aMethod]]] = {"1.0": V1, "0.3": V03}
