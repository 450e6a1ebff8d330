"""The structured JSON form of CloudEvents 1.0, read and bounded."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from gateway.events.own_types import OWN_NAME, is_reserved
from gateway.events.rules import HOPS as HOPS
from gateway.workflows.problems import BadEvent
from policies.delegation.rulings import Act

Event = Mapping[str, Any]
EVENT_MAX: Final = 64 << 10  # bytes of one event, the size that CloudEvents 1.0 asks every intermediary to forward
BATCH_MAX: Final = 100  # events of one request
TEXT_MAX: Final = 1024  # characters of an attribute
RESERVED_SOURCE: Final = "urn:interlock:"  # only the gateway names its own sources
EVENT_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,199}")
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]{1,64}")
_REQUIRED: Final = ("id", "source", "specversion", "type")
_TEXTS: Final = (*_REQUIRED, "datacontenttype", "dataschema", "subject", "time")
_encode = msgspec.json.Encoder().encode


def act_of_sending(kind: str) -> Act:
    """Sending an event of a type writes the shared state `events/TYPE`."""
    return _act("writeState", "state:write:", kind)


def act_of_receiving(kind: str) -> Act:
    """Receiving events of a type, or with the empty text events of every type."""
    return _act("readState", "state:read:", kind or "*")


def _act(action: str, prefix: str, kind: str) -> Act:
    name = f"events/{kind}"
    return Act(action, "Key", name, prefix + name, name)


def encode_event(event: Event) -> str:
    """The JSON text of an event. Raises BadEvent for one that is too large."""
    encoded = _encode(event)
    if len(encoded) > EVENT_MAX:
        raise BadEvent(f"has {len(encoded)} bytes, more than {EVENT_MAX}")
    return encoded.decode()


def read_events(value: Any) -> list[dict[str, Any]]:
    """The events of a request: one as an object, or a batch as an array. Raises BadEvent."""
    if not isinstance(value, list):
        return [read_event(value)]
    if not 0 < len(value) <= BATCH_MAX:
        raise BadEvent(f"a batch has 1 to {BATCH_MAX} events, this one has {len(value)}")
    found = []
    for index, each in enumerate(value):
        try:
            found.append(read_event(each))
        except BadEvent as error:
            raise BadEvent(f"[{index}]: {error}") from error
    return found


def read_event(value: Any) -> dict[str, Any]:
    """An event as a sender wrote it, without the members that are null. Raises BadEvent."""
    if not isinstance(value, dict):
        raise BadEvent("is no JSON object of the structured form of CloudEvents 1.0")
    event = {name: member for name, member in value.items() if member is not None or name == "data"}
    if missing := [name for name in _REQUIRED if name not in event]:
        raise BadEvent(f"lacks the attribute `{missing[0]}`")
    _check_attributes(event)
    if event["specversion"] != "1.0":
        raise BadEvent("`specversion` is not 1.0")
    if not EVENT_TYPE.fullmatch(event["type"]):
        raise BadEvent("`type` is no name of at most 200 letters, digits and . _ / : -")
    _check_data(event)
    encode_event(event)
    return event


def check_sender(event: Event) -> None:
    """Raises BadEvent where an event from outside claims a source, a type or an attribute of the gateway's own."""
    for name in event:
        if name.startswith(OWN_NAME):
            raise BadEvent(f"`{name}` is an attribute that only the gateway sets")
    if str(event["source"]).strip().lower().startswith(RESERVED_SOURCE):
        raise BadEvent(f"`source` begins with {RESERVED_SOURCE}, which only the gateway's own events have")
    check_type(event["type"])


def check_type(kind: str) -> None:
    """Raises BadEvent for a type that only the gateway's own events have."""
    if is_reserved(kind):
        raise BadEvent(f"`type` begins with {OWN_NAME}, which only the gateway's own events have")


def _check_attributes(event: Event) -> None:
    for name, value in event.items():
        if name in ("data", "data_base64"):
            continue
        if not _ATTRIBUTE.fullmatch(name):
            raise BadEvent("has an attribute whose name is not of lower-case letters and digits")
        if not isinstance(value, str | bool | int):
            raise BadEvent(f"`{name}` is neither a text nor an integer nor a boolean")
        if name in _TEXTS and (not isinstance(value, str) or not value):
            raise BadEvent(f"`{name}` is no text, or an empty one")
        if isinstance(value, str) and len(value) > TEXT_MAX:
            raise BadEvent(f"`{name}` has more than {TEXT_MAX} characters")
        if isinstance(value, str) and "\0" in value:  # PostgreSQL stores no NUL in text
            raise BadEvent(f"`{name}` has a NUL character")
    if "time" in event:
        _check_time(event["time"])


def _check_time(text: str) -> None:
    try:
        is_moment = datetime.fromisoformat(text).tzinfo is not None and "T" in text.upper()
    except ValueError:
        is_moment = False
    if not is_moment:
        raise BadEvent("`time` is no moment of RFC 3339, such as 2026-01-31T12:00:00Z")


def _check_data(event: Event) -> None:
    encoded = event.get("data_base64")
    if encoded is None:
        return
    if "data" in event:
        raise BadEvent("has both `data` and `data_base64`")
    try:
        base64.b64decode(encoded if isinstance(encoded, str) else "!", validate=True)
    except binascii.Error as error:
        raise BadEvent("`data_base64` is not base64") from error
