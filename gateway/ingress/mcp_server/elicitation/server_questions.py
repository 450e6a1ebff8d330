"""Reads and checks the questions of a server's result (`inputRequests`) before a client sees them."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.eras import decode_checked
from adapters.mcp_client.wire.messages import MISSING_CAPABILITY
from gateway.ingress.mcp_server.protocol.client_wishes import missing_capabilities
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope

QUESTIONS_MAX = 16
NOT_VALID_TEXT = "The server's message is not valid"


class InputRequest(Struct):
    method: str
    params: Raw = Raw(b"{}")


_decode_questions = msgspec.json.Decoder(dict[str, InputRequest]).decode
_decode_text = msgspec.json.Decoder(str).decode


def questions_in(members: Mapping[str, Any]) -> dict[str, InputRequest]:
    """Returns the requests of an InputRequiredResult, which has requests or a requestState. Raises UpstreamFault."""
    found: dict[str, InputRequest] = decode_checked(members.get("inputRequests", Raw(b"{}")), _decode_questions)
    if len(found) > QUESTIONS_MAX or not (found or "requestState" in members):
        raise UpstreamFault(NOT_VALID_TEXT, f"{len(found)} input requests")
    if any(bytes(question.params)[:1] != b"{" for question in found.values()):
        raise UpstreamFault(NOT_VALID_TEXT, "the parameters of an input request are not an object")
    return found


def state_in(members: Mapping[str, Any]) -> str | None:
    """Returns the server's requestState, or None. Raises UpstreamFault."""
    return str(decode_checked(members["requestState"], _decode_text)) if "requestState" in members else None


def check_askable(capabilities: Mapping[str, Any], questions: Mapping[str, InputRequest]) -> None:
    """Raises BadEnvelope (-32021) when the client did not declare a capability that a question needs."""
    missing: dict[str, Any] = {}
    for question in questions.values():
        missing |= missing_capabilities(capabilities, question.method, question.params)
    if missing:
        raise BadEnvelope(MISSING_CAPABILITY, "the client lacks a capability that the server needs", {"requiredCapabilities": missing})
