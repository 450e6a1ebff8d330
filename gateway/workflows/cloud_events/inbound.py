"""Events as HTTP requests carry them: the three modes of CloudEvents 1.0, and webhooks of other systems."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import jsonschema_rs

from gateway.events.own_types import OWN_NAME, matches_type
from gateway.events.sources import SourceRule
from gateway.events.standard_webhooks import SignedRequest
from gateway.events.templates import ValueMissing, render_text
from gateway.workflows.cloud_events.envelope import TEXT_MAX, check_type, read_event, read_events
from gateway.workflows.problems import BadEvent, EventSchemaBroken, EventTypeNotAllowed
from policies.strict_json import BadJson, parse

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
PREFIX: Final = "ce-"
ORIGIN: Final = "sentsource"  # extension attribute: the `source` that the system itself named
ERRORS_READ: Final = 20  # of data that does not fit its schema
_DATA_NAMES: Final = ("data", "data_base64", "datacontenttype")  # what headers never carry by these names (binary mode, s3.1.3)


def media_type_of(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether a request is in binary mode: its headers are the attributes, and its body is the data."""
    return not media_type_of(headers).startswith("application/cloudevents") and f"{PREFIX}specversion" in headers


def read_request(headers: Mapping[str, str], body: bytes, document: Any) -> list[dict[str, Any]]:
    """The events of a request in any mode. `document` is the JSON of the body, which a binary one may not have. Raises BadEvent."""
    if is_binary(headers):
        return [read_event(_binary_event(headers, body))]
    media_type = media_type_of(headers)
    if media_type == BATCH and not isinstance(document, list):
        raise BadEvent(f"is no JSON array, which {BATCH} is")
    if media_type == STRUCTURED and isinstance(document, list):
        raise BadEvent(f"is a JSON array; send a batch as {BATCH}")
    return read_events(document)


def _binary_event(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The event of a request in binary mode (HTTP protocol binding 1.0.2, s3.1). Raises BadEvent."""
    event: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith(PREFIX):
            attribute = name.removeprefix(PREFIX)
            if attribute in _DATA_NAMES:
                raise BadEvent(f"has the header `{name[:80]}`, and its data is the body, whose type is Content-Type")
            event[attribute] = _decode_value(name, value)
    media_type, declared = media_type_of(headers), headers.get("content-type", "")
    if declared:
        event["datacontenttype"] = declared[:TEXT_MAX]
    if body:
        event |= _data_of(media_type, body)
    return event


def _decode_value(name: str, value: str) -> str:
    """The text of a header: percent-encoded UTF-8, in quotes or not (s3.1.3.2). Raises BadEvent."""
    text = value.strip()
    if len(text) > 3 * TEXT_MAX:
        raise BadEvent(f"`{name[:80]}` has more than {TEXT_MAX} characters")
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise BadEvent(f"`{name[:80]}` is no percent-encoded UTF-8") from error


def _data_of(media_type: str, body: bytes) -> dict[str, Any]:
    """The members for a body: JSON as its value, texts as texts, everything else as base64 (JSON format 1.0.2, s3.1)."""
    if not media_type or media_type == "application/json" or media_type.endswith("+json"):
        try:
            return {"data": parse(body)}
        except BadJson as error:
            raise BadEvent(f"has a body that is no JSON: {error}") from error
    if media_type.startswith("text/"):
        try:
            return {"data": body.decode()}
        except UnicodeDecodeError:
            pass
    return {"data_base64": base64.b64encode(body).decode()}


class SourceSchemaRefused(Exception):
    """A schema of the settings can't be used; the message says why."""


def build_validator(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """A validator that fetches nothing, and whose patterns take linear time. Raises SourceSchemaRefused."""
    if foreign := _foreign_reference(schema):
        raise SourceSchemaRefused(f"refers to {foreign[:200]}, which is never fetched")
    try:
        return jsonschema_rs.validator_for(dict(schema), pattern_options=jsonschema_rs.RegexOptions())
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise SourceSchemaRefused(f"is no JSON Schema: {str(error).partition(chr(10))[0][:200]}") from error


def _foreign_reference(schema: Any) -> str:
    """A `$ref` that leads out of the schema, or an empty text."""
    members = schema.items() if isinstance(schema, Mapping) else enumerate(schema) if isinstance(schema, list) else ()
    for name, member in members:
        if name in ("$ref", "$dynamicRef") and isinstance(member, str) and not member.startswith("#"):
            return member
        if found := _foreign_reference(member):
            return found
    return ""


class SourceReader:
    """Makes events of the verified requests of sources. Only their signed bodies count, not their headers."""

    def __init__(self) -> None:
        self._validators: dict[tuple[str, str], jsonschema_rs.Validator] = {}

    def read(self, rule: SourceRule, signed: SignedRequest, headers: Mapping[str, str], document: Any) -> dict[str, Any]:
        """The event that a request is. Raises BadEvent, EventTypeNotAllowed and EventSchemaBroken."""
        if not isinstance(document, dict):
            raise BadEvent("is no JSON object")
        is_event = media_type_of(headers) == STRUCTURED or "specversion" in document
        event = _own_event(document) if is_event else _event_of_payload(rule, document)
        event |= {"id": signed.id, "source": rule.uri}
        _check_allowed(rule, event)
        self._check_data(rule, event)
        if rule.subject:
            try:
                event["subject"] = render_text(rule.subject, event)
            except ValueMissing as missing:
                raise BadEvent(f"has no subject as the settings of the source make it: {missing}") from missing
        return read_event(event)

    def _check_data(self, rule: SourceRule, event: Mapping[str, Any]) -> None:
        if rule.schema is None:
            return
        key = (rule.tenant, rule.name)
        if key not in self._validators:
            self._validators[key] = build_validator(rule.schema)
        if errors := [*islice(self._validators[key].iter_errors(event.get("data")), ERRORS_READ)]:
            path = "".join(f"/{step}" for step in errors[0].instance_path)
            raise EventSchemaBroken(f"the data does not fit the schema of the source at {path[:300] or '/'}: {_problem_of(errors)}")


def _problem_of(errors: Sequence[jsonschema_rs.ValidationError]) -> str:
    """What is wrong at the place of the first error: the names of missing members, of unexpected ones, or else the rule."""
    found = [error.kind.as_dict() for error in errors if error.instance_path == errors[0].instance_path]
    rule = str(next(reversed(errors[0].schema_path), "type"))
    if rule == "required":
        return f"it lacks {_quoted(facts['property'] for facts in found if 'property' in facts)}"
    if rule == "additionalProperties":
        return f"it must not have {_quoted(found[0].get('unexpected', ()))}"
    return f"it breaks `{rule[:100]}`"


def _quoted(names: Iterable[object]) -> str:
    return ", ".join(f"`{str(name)[:80]}`" for name in names)[:300]


def _own_event(document: Mapping[str, Any]) -> dict[str, Any]:
    """The CloudEvent that a source sends itself. Its `source` is kept as an attribute, since only the gateway names sources of webhooks."""
    event = read_event(document)
    for name in event:
        if name.startswith(OWN_NAME) or name == ORIGIN:
            raise BadEvent(f"`{name}` is an attribute that only the gateway sets")
    return {**event, ORIGIN: event["source"]}


def _event_of_payload(rule: SourceRule, document: Mapping[str, Any]) -> dict[str, Any]:
    """The event of a webhook with the payload of Standard Webhooks: its `type`, `timestamp` and `data`, or all of it as data."""
    kind = document.get("type", rule.types[0] if len(rule.types) == 1 and not rule.types[0].endswith("*") else None)
    if not isinstance(kind, str):
        raise BadEvent("names no `type`, and the settings of the source have more than one")
    data = document.get("data", document)
    event = {"specversion": "1.0", "type": kind, "id": "-", "source": "-", "datacontenttype": "application/json", "data": data}
    sent_at = document.get("timestamp")
    return read_event({**event, "time": sent_at} if isinstance(sent_at, str) and "T" in sent_at else event)


def _check_allowed(rule: SourceRule, event: Mapping[str, Any]) -> None:
    check_type(event["type"])
    if not any(matches_type(pattern, event["type"]) for pattern in rule.types):
        raise EventTypeNotAllowed(f"the source {rule.name} may not send events of the type {event['type']}")
