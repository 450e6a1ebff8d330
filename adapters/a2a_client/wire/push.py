"""Push notification configs on the wire: in 1.0, and in 0.3 by conversion."""

from typing import Any, Final

from msgspec import Struct, UnsetType

from adapters.a2a_client.wire import v1
from adapters.task import PushConfig

PAGE_SIZE_MAX: Final = 100
TOKEN_LIMIT: Final = v1.ID_LIMIT + 20  # characters: the id of a config after a time


class PushParams(Struct, frozen=True, rename="camel"):
    """Get- and DeleteTaskPushNotificationConfigRequest (s3.1.8, s3.1.10). In 0.3, `id` is optional."""

    task_id: str
    id: str = ""
    tenant: str = ""


class PushListParams(Struct, frozen=True, rename="camel"):
    """ListTaskPushNotificationConfigsRequest (s3.1.9)."""

    task_id: str
    page_size: int = 0
    page_token: str = ""
    tenant: str = ""


class PushPage(Struct, frozen=True, rename="camel"):
    """ListTaskPushNotificationConfigsResponse; `next_page_token` is empty on the last page."""

    configs: tuple[PushConfig, ...]
    next_page_token: str = ""


def read_push_config(params: Any) -> PushConfig:
    """Reads the decoded params of CreateTaskPushNotificationConfig. Raises BadMessage."""
    read = v1.convert_params(params, PushConfig)
    _check_ids(read.task_id, read.id)
    return read


def read_push_params(params: Any) -> PushParams:
    """Reads the decoded params of Get- and DeleteTaskPushNotificationConfig. Raises BadMessage."""
    read = v1.convert_params(params, PushParams)
    _check_ids(read.task_id, read.id)
    if not read.id:
        raise v1.BadMessage("id", "is missing")
    return read


def read_push_list_params(params: Any) -> PushListParams:
    """Reads the decoded params of ListTaskPushNotificationConfigs. Raises BadMessage."""
    read = v1.convert_params(params, PushListParams)
    _check_ids(read.task_id, "")
    if not 0 <= read.page_size <= PAGE_SIZE_MAX:
        raise v1.BadMessage("pageSize", f"must be from 0 to {PAGE_SIZE_MAX}")
    if len(read.page_token) > TOKEN_LIMIT or not read.page_token.isprintable():
        raise v1.BadMessage("pageToken", "is not one of ours")
    return read


def read_push_config_0_3(params: Any) -> PushConfig:
    """Reads the decoded params of tasks/pushNotificationConfig/set: `{taskId, pushNotificationConfig}`. Raises BadMessage."""
    if not isinstance(params, dict):
        raise v1.BadMessage("params", "must be an object")
    inner = params.get("pushNotificationConfig")
    if not isinstance(inner, dict):
        raise v1.BadMessage("pushNotificationConfig", "is missing" if inner is None else "must be an object")
    return read_push_config({**lift_push_config(inner), "taskId": params.get("taskId")})


def read_push_params_0_3(params: Any) -> PushParams:
    """Reads the decoded params of tasks/pushNotificationConfig/{get,delete,list}, whose `id` is the task's. Raises BadMessage."""
    if not isinstance(params, dict):
        raise v1.BadMessage("params", "must be an object")
    lifted = {"taskId": params.get("id"), "id": params.get("pushNotificationConfigId") or ""}
    try:
        read = v1.convert_params(lifted, PushParams)
    except v1.BadMessage as bad:
        raise v1.BadMessage({"taskId": "id", "id": "pushNotificationConfigId"}.get(bad.field, bad.field), bad.problem) from None
    _check_ids(read.task_id, read.id)
    return read


def lift_push_config(config: Any) -> Any:
    """A 0.3 PushNotificationConfig as 1.0 JSON, with the first of its authentication schemes."""
    if not isinstance(config, dict):
        return config
    lifted = {name: config[name] for name in ("id", "url", "token") if config.get(name) is not None}
    authentication = config.get("authentication")
    if isinstance(authentication, dict) and "schemes" in authentication:
        schemes = authentication["schemes"]
        lifted["authentication"] = {"scheme": schemes[0] if isinstance(schemes, list) and schemes else None}
        if authentication.get("credentials") is not None:
            lifted["authentication"]["credentials"] = authentication["credentials"]
    elif authentication is not None:
        lifted["authentication"] = authentication
    return lifted


def push_config_json_0_3(config: PushConfig) -> dict[str, Any]:
    """A TaskPushNotificationConfig as 0.3 JSON."""
    inner: dict[str, Any] = {"id": config.id, "url": config.url}
    if not isinstance(config.authentication, UnsetType):
        inner["authentication"] = {"schemes": [config.authentication.scheme]}
    return {"taskId": config.task_id, "pushNotificationConfig": inner}


def _check_ids(task_id: str, config_id: str) -> None:
    v1.check_id(task_id, "taskId")
    v1.check_id(config_id, "id")
    if not task_id:
        raise v1.BadMessage("taskId", "is missing")
