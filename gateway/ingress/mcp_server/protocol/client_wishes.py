"""What a client wants to hear while its request is under way, and which of its capabilities a question needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.mcp_client.wire.messages import INVALID_PARAMS, LEVEL_KEY, LEVELS
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope

PROGRESS, MESSAGE = "notifications/progress", "notifications/message"
STATUS = "notifications/tasks/status"
OLDER = frozenset({"notifications/elicitation/complete", STATUS})  # said in the initialize era alone
ASKS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


class _Told(Struct):
    progressToken: str | int | None = None
    level: str = ""


class _Question(Struct):
    mode: str = "form"
    tools: Raw | UnsetType = UNSET


_told = msgspec.json.Decoder(_Told).decode
_question = msgspec.json.Decoder(_Question).decode


@dataclass(frozen=True, slots=True)
class Wanted:
    """`token` of progress, or None. `level` of log messages: empty is all of them, None none."""

    token: str | int | None
    level: str | None
    also: frozenset[str] = frozenset()

    def takes(self, method: str, params: Raw) -> bool:
        """Whether a notification of this request is for the client."""
        if method not in (PROGRESS, MESSAGE):
            return method in self.also
        try:
            told = _told(params)
        except msgspec.MsgspecError:
            return False
        if method == PROGRESS:
            return self.token is not None and told.progressToken == self.token and type(told.progressToken) is type(self.token)
        return self.level is not None and (not self.level or (told.level in LEVELS and severity(told.level) >= severity(self.level)))


def wanted(params: Any, level: str | None) -> Wanted:
    """By a request's `_meta`; `level` is what holds where that says nothing, in the initialize era. Raises BadEnvelope."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    also = OLDER if level is not None else frozenset()
    if not isinstance(meta, dict):
        return Wanted(None, level, also)
    token, asked = meta.get("progressToken"), meta.get(LEVEL_KEY)
    if token is not None and (isinstance(token, bool) or not isinstance(token, str | int)):
        raise BadEnvelope(INVALID_PARAMS, "params._meta.progressToken must be a string or an integer")
    if asked is not None:
        check_level(asked)
    return Wanted(token, asked or level, also)


def check_level(level: Any) -> str:
    """Raises BadEnvelope."""
    if not isinstance(level, str) or level not in LEVELS:
        raise BadEnvelope(INVALID_PARAMS, f"the level of log messages is one of {', '.join(LEVELS)}")
    return level


def severity(level: str) -> int:
    return LEVELS.index(level)


def lacking(capabilities: Mapping[str, Any], method: str, params: Raw) -> Mapping[str, Any]:
    """What a client would have to declare, beyond what it did, to be asked this; empty when it may be asked."""
    name = ASKS.get(method)
    if name is None:
        return {"experimental": {method[:64]: {}}}
    declared = capabilities.get(name)
    if not isinstance(declared, dict):
        return {name: {}}
    try:
        question = _question(params)
    except msgspec.MsgspecError:
        question = _Question()
    if name == "elicitation" and question.mode == "url" and "url" not in declared:
        return {name: {"url": {}}}
    if name == "elicitation" and question.mode == "form" and declared and "form" not in declared:
        return {name: {"form": {}}}
    if name == "sampling" and question.tools is not UNSET and "tools" not in declared:
        return {name: {"tools": {}}}
    return {}
