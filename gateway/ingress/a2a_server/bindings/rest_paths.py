"""The paths of A2A over HTTP+JSON below an agent: their HTTP methods, and the A2A method of each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from adapters.a2a_client.wire import push, v03_proto, v03_requests, v1
from adapters.a2a_client.wire.lists import PAGE_SIZE_MAX, ListParams, TaskPage
from adapters.a2a_client.wire.v1 import with_json_names
from adapters.task import Message, PushConfig, StreamResponse, Task
from gateway.ingress.a2a_server.bindings import jsonrpc_methods as methods
from gateway.ingress.a2a_server.bindings.jsonrpc_methods import A2aMethod
from gateway.ingress.a2a_server.operations import Operations
from gateway.ingress.http.errors import HttpMethodNotAllowed, UnknownPath


@dataclass(frozen=True, slots=True)
class Route:
    """A path that is served.

    `members` are the members of the request that the path contains; `tenant` is empty where the path has none.
    """

    version: str
    methods_by_verb: Mapping[str, A2aMethod]
    members: Mapping[str, str]
    tenant: str = ""

    def method_for(self, verb: str) -> A2aMethod:
        """Returns the A2A method for an HTTP method. Raises HttpMethodNotAllowed."""
        found = self.methods_by_verb.get(verb)
        if found is None:
            more = {"HEAD"} if "GET" in self.methods_by_verb else set()  # gateway/server/router.py
            raise HttpMethodNotAllowed(tuple(sorted(self.methods_by_verb.keys() | more)))
        return found


def find_route(path: str) -> Route:
    """Returns the route of a path below the agent's. In 1.0 a tenant may precede it (s11). Raises UnknownPath."""
    if path.startswith("/v1/") and (place := _match_route(path.removeprefix("/v1"), "0.3", _V03)) is not None:
        return place
    if (place := _match_route(path, "1.0", _V1)) is not None:
        return place
    tenant, slash, rest = path.removeprefix("/").partition("/")
    place = _match_route(slash + rest, "1.0", _V1)
    if place is None:
        raise UnknownPath
    return Route(place.version, place.methods_by_verb, place.members, tenant)


HISTORY_MAX: Final = 1000  # messages
_decode_task = msgspec.json.Decoder(Task).decode
RouteTable = Sequence[tuple[re.Pattern[str], Mapping[str, A2aMethod]]]


def _match_route(path: str, version: str, routes: RouteTable) -> Route | None:
    for pattern, verbs in routes:
        if (found := pattern.fullmatch(path)) is not None:
            return Route(version, verbs, found.groupdict())
    return None


def event_0_3(outcome: Task | Message | StreamResponse) -> dict[str, Any]:
    """Returns a SendMessageResponse or StreamResponse of 0.3 as ProtoJSON."""
    return v03_proto.event_json(v1.only_member(outcome) if isinstance(outcome, StreamResponse) else outcome)


def _read_config_0_3(params: Any) -> PushConfig:
    """Reads CreateTaskPushNotificationConfigRequest or its `config` alone, since the specification and its .proto file differ.

    Raises BadMessage.
    """
    named = with_json_names(params)
    config = named.get("config") if isinstance(named.get("config"), dict) else named
    inner = config.get("pushNotificationConfig")
    config_id = named.get("configId")
    read = push.read_push_config_0_3(
        {"taskId": named["taskId"], "pushNotificationConfig": config if inner is None and "url" in config else inner}
    )
    return replace(read, id=read.id or (config_id if isinstance(config_id, str) else "") or read.task_id)


def _whole_list_params(_params: Any) -> ListParams:
    """Returns the parameters of tasks/list of 0.3, which takes none and lists whole tasks."""
    return ListParams(page_size=PAGE_SIZE_MAX, history_length=HISTORY_MAX, include_artifacts=True)


def _tasks_0_3(page: TaskPage) -> list[dict[str, Any]]:
    return [v03_proto.task_json(_decode_task(task)) for task in page.tasks]


_TASK: Final = "/tasks/(?P<id>[^/]+)"
_PUSH: Final = "/tasks/(?P<taskId>[^/]+)/pushNotificationConfigs"
_V1: Final[RouteTable] = [
    (re.compile(pattern), verbs)
    for pattern, verbs in (
        ("/message:send", {"POST": methods.SEND}),
        ("/message:stream", {"POST": methods.STREAM}),
        ("/tasks", {"GET": methods.LIST_TASKS}),
        (f"{_TASK}:cancel", {"POST": methods.CANCEL_TASK}),
        (f"{_TASK}:subscribe", {"GET": methods.SUBSCRIBE, "POST": methods.SUBSCRIBE}),
        (_TASK, {"GET": methods.GET_TASK}),
        (_PUSH, {"GET": methods.LIST_PUSH, "POST": methods.CREATE_PUSH}),
        (f"{_PUSH}/(?P<id>[^/]+)", {"GET": methods.GET_PUSH, "DELETE": methods.DELETE_PUSH}),
        ("/extendedAgentCard", {"GET": methods.GET_EXTENDED_CARD}),
    )
]
_SUBSCRIBE: Final = A2aMethod("SubscribeToTask", v1.read_task_params, Operations.subscribe, event_0_3, is_streaming=True)
_V03: Final[RouteTable] = [
    (re.compile(pattern), verbs)
    for pattern, verbs in (
        ("/message:send", {"POST": A2aMethod("SendMessage", v03_requests.read_send_params, Operations.send, event_0_3)}),
        (
            "/message:stream",
            {"POST": A2aMethod("SendStreamingMessage", v03_requests.read_send_params, Operations.stream, event_0_3, is_streaming=True)},
        ),
        ("/tasks", {"GET": A2aMethod("ListTasks", _whole_list_params, Operations.list_tasks, _tasks_0_3)}),
        (f"{_TASK}:cancel", {"POST": A2aMethod("CancelTask", v1.read_task_params, Operations.cancel, v03_proto.task_json)}),
        (f"{_TASK}:subscribe", {"GET": _SUBSCRIBE, "POST": _SUBSCRIBE}),
        (_TASK, {"GET": A2aMethod("GetTask", v1.read_task_params, Operations.get_task, v03_proto.task_json)}),
        (
            _PUSH,
            {
                "GET": A2aMethod(methods.LIST_PUSH.name, push.read_push_list_params, Operations.list_push, v03_requests.push_configs_json),
                "POST": A2aMethod(methods.CREATE_PUSH.name, _read_config_0_3, Operations.create_push, v03_requests.push_config_json),
            },
        ),
        (
            f"{_PUSH}/(?P<id>[^/]+)",
            {
                "GET": A2aMethod(methods.GET_PUSH.name, push.read_push_params, Operations.get_push, v03_requests.push_config_json),
                "DELETE": methods.DELETE_PUSH,
            },
        ),
        (
            "/card",
            {
                "GET": A2aMethod(
                    methods.GET_EXTENDED_CARD.name, methods.read_card_params, Operations.get_extended_card, v03_requests.card_json
                )
            },
        ),
    )
]
