"""Reads callers' requests of A2A 0.3 in ProtoJSON as params of 1.0, and writes the responses that are no task types."""

import re
from collections.abc import Mapping
from typing import Any, Final

from adapters.a2a_client.wire import push, v03, v1
from adapters.a2a_client.wire.v03_proto import lift_message, with_json_names
from adapters.task import PushConfig

_TASK_NAME: Final = re.compile(r"tasks/([^/]+)")
_CONFIG_NAME: Final = re.compile(r"tasks/([^/]+)/pushNotificationConfigs/([^/]+)")


def read_send_params(params: Any) -> v1.SendParams:
    """Reads a SendMessageRequest with names in either case. Raises BadMessage.

    Without a configuration the call blocks. In a configuration, an absent `blocking` is false, since protobuf can't leave it unset.
    """
    if not isinstance(params, dict):
        raise v1.BadMessage("params", "must be an object")
    lifted = with_json_names(params)
    configuration = lifted.get("configuration")
    if isinstance(configuration, dict):
        lifted["configuration"] = _lift_configuration(with_json_names(configuration))
    if "request" in lifted and "message" not in lifted:
        lifted["message"] = lifted.pop("request")
    if "message" in lifted:
        lifted["message"] = lift_message(lifted["message"])
    return v03.read_send_params(lifted)


def read_task_params(params: Any) -> v1.TaskParams:
    """Reads a request whose `name` is `tasks/{id}`. Raises BadMessage."""
    length = with_json_names(params).get("historyLength") if isinstance(params, dict) else None
    return v1.read_task_params({"id": _task_id(params, "name")} | ({"historyLength": length} if length else {}))


def read_push_config(params: Any) -> PushConfig:
    """Reads CreateTaskPushNotificationConfigRequest: `parent` is `tasks/{id}`. Raises BadMessage."""
    members = with_json_names(params) if isinstance(params, dict) else {}
    config = members.get("config")
    inner = with_json_names(config).get("pushNotificationConfig") if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        raise v1.BadMessage("config.pushNotificationConfig", "is missing")
    lifted = push.lift_push_config(inner)
    config_id = members.get("configId") or lifted.get("id") or ""
    return push.read_push_config({**lifted, "id": config_id, "taskId": _task_id(params, "parent")})


def read_push_params(params: Any) -> push.PushParams:
    """Reads a request whose `name` is `tasks/{id}/pushNotificationConfigs/{id}`. Raises BadMessage."""
    name = params.get("name") if isinstance(params, dict) else None
    found = _CONFIG_NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise v1.BadMessage("name", "must be tasks/{id}/pushNotificationConfigs/{id}")
    return push.read_push_params({"taskId": found[1], "id": found[2]})


def read_push_list_params(params: Any) -> push.PushListParams:
    """Reads a request whose `parent` is `tasks/{id}`. Raises BadMessage."""
    pages = (
        {name: value for name, value in with_json_names(params).items() if name in ("pageSize", "pageToken")}
        if isinstance(params, dict)
        else {}
    )
    return push.read_push_list_params({**pages, "taskId": _task_id(params, "parent")})


def push_config_json(config: PushConfig) -> dict[str, Any]:
    """A TaskPushNotificationConfig without its secrets."""
    inner = push.push_config_json_0_3(config)["pushNotificationConfig"]
    return {"name": f"tasks/{config.task_id}/pushNotificationConfigs/{config.id}", "pushNotificationConfig": inner}


def push_configs_json(page: push.PushPage) -> dict[str, Any]:
    """A ListTaskPushNotificationConfigResponse without secrets."""
    return {"configs": [push_config_json(config) for config in page.configs], "nextPageToken": page.next_page_token}


def card_json(card: Mapping[str, Any]) -> dict[str, Any]:
    """A 1.0 card as 0.3's ProtoJSON, without signatures, which are over the 1.0 form.

    Its interfaces are those of 0.3, or all where there are none.
    """
    offered = card["supportedInterfaces"]
    interfaces = [each for each in offered if each["protocolVersion"].startswith("0.")] or offered
    others = [{"url": each["url"], "transport": each["protocolBinding"]} for each in interfaces[1:]]
    members = {name: value for name, value in card.items() if name not in ("supportedInterfaces", "securityRequirements", "signatures")}
    return {
        **members,
        "protocolVersion": "0.3.0",
        "url": interfaces[0]["url"],
        "preferredTransport": interfaces[0]["protocolBinding"],
        "additionalInterfaces": others,
        "security": card.get("securityRequirements", []),
        "supportsAuthenticatedExtendedCard": bool(card.get("capabilities", {}).get("extendedAgentCard")),
    }


def _task_id(params: Any, field: str) -> str:
    name = params.get(field) if isinstance(params, dict) else None
    found = _TASK_NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise v1.BadMessage(field, "must be tasks/ and the id of a task")
    return found[1]


def _lift_configuration(configuration: dict[str, Any]) -> dict[str, Any]:
    lifted = {"blocking": False, **configuration}
    config = lifted.pop("pushNotification", None)
    return lifted if config is None else {**lifted, "pushNotificationConfig": config}
