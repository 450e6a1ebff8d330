"""The notifications that a client wants during a request, and the capabilities that a question needs."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.mcp_client.wire.messages import INVALID_PARAMS, LEVEL_KEY, LOG_LEVELS
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope

PROGRESS, MESSAGE = "notifications/progress", "notifications/message"
TASK_STATUS = "notifications/tasks/status"
LEGACY_NOTIFICATIONS = frozenset({"notifications/elicitation/complete", TASK_STATUS})  # sent to clients of the legacy era only
CAPABILITY_OF_METHOD = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


class _NotificationParams(Struct):
    progressToken: str | int | None = None
    level: str = ""


class _QuestionParams(Struct):
    mode: str = "form"
    tools: Raw | UnsetType = UNSET


_decode_notification = msgspec.json.Decoder(_NotificationParams).decode
_decode_question = msgspec.json.Decoder(_QuestionParams).decode


class ClientWishes(Struct, frozen=True):
    """The wanted notifications.

    `token` is the progress token, or None. `level` is the lowest level of log messages: empty for all, None for none.
    """

    token: str | int | None
    level: str | None
    other_methods: frozenset[str] = frozenset()

    def wants(self, method: str, params: Raw) -> bool:
        """Returns whether the client wants this notification."""
        if method not in (PROGRESS, MESSAGE):
            return method in self.other_methods
        try:
            notification = _decode_notification(params)
        except msgspec.MsgspecError:
            return False
        if method == PROGRESS:
            return (
                self.token is not None and notification.progressToken == self.token and type(notification.progressToken) is type(self.token)
            )
        return self.level is not None and (
            not self.level or (notification.level in LOG_LEVELS and severity(notification.level) >= severity(self.level))
        )


def parse_wishes(params: Any, default_level: str | None) -> ClientWishes:
    """Reads a request's `_meta`. `default_level` is the session's level in the legacy era, else None. Raises BadEnvelope."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    also = LEGACY_NOTIFICATIONS if default_level is not None else frozenset()
    if not isinstance(meta, dict):
        return ClientWishes(None, default_level, also)
    token, level = meta.get("progressToken"), meta.get(LEVEL_KEY)
    if token is not None and (isinstance(token, bool) or not isinstance(token, str | int)):
        raise BadEnvelope(INVALID_PARAMS, "params._meta.progressToken must be a string or an integer")
    if level is not None:
        check_level(level)
    return ClientWishes(token, level or default_level, also)


def check_level(level: Any) -> str:
    """Returns a valid level of log messages. Raises BadEnvelope."""
    if not isinstance(level, str) or level not in LOG_LEVELS:
        raise BadEnvelope(INVALID_PARAMS, f"the level of log messages must be one of {', '.join(LOG_LEVELS)}")
    return level


def severity(level: str) -> int:
    return LOG_LEVELS.index(level)


def missing_capabilities(capabilities: Mapping[str, Any], method: str, params: Raw) -> Mapping[str, Any]:
    """Returns the capabilities that the client must declare to be asked this; empty when it has declared them."""
    name = CAPABILITY_OF_METHOD.get(method)
    if name is None:
        return {"experimental": {method[:64]: {}}}
    declared = capabilities.get(name)
    if not isinstance(declared, dict):
        return {name: {}}
    try:
        question = _decode_question(params)
    except msgspec.MsgspecError:
        question = _QuestionParams()
    if name == "elicitation" and question.mode == "url" and "url" not in declared:
        return {name: {"url": {}}}
    if name == "elicitation" and question.mode == "form" and declared and "form" not in declared:
        return {name: {"form": {}}}
    if name == "sampling" and question.tools is not UNSET and "tools" not in declared:
        return {name: {"tools": {}}}
    return {}
