"""What a server asks by a result (`inputRequests`), checked before anybody is shown it."""

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
    """Those of an InputRequiredResult, which has some or a state to come back with. Raises UpstreamFault."""
    found: dict[str, InputRequest] = decode_checked(members.get("inputRequests", Raw(b"{}")), _decode_questions)
    if len(found) > QUESTIONS_MAX or not (found or "requestState" in members):
        raise UpstreamFault(NOT_VALID_TEXT, f"{len(found)} input requests")
    if any(bytes(question.params)[:1] != b"{" for question in found.values()):
        raise UpstreamFault(NOT_VALID_TEXT, "the parameters of an input request are no object")
    return found


def state_in(members: Mapping[str, Any]) -> str | None:
    """What the server wants to have back, if anything. Raises UpstreamFault."""
    return str(decode_checked(members["requestState"], _decode_text)) if "requestState" in members else None


def check_askable(capabilities: Mapping[str, Any], questions: Mapping[str, InputRequest]) -> None:
    """Raises BadEnvelope (-32021): nobody is asked what their client did not declare."""
    missing: dict[str, Any] = {}
    for question in questions.values():
        missing |= missing_capabilities(capabilities, question.method, question.params)
    if missing:
        raise BadEnvelope(MISSING_CAPABILITY, "the server asks what the client did not declare", {"requiredCapabilities": missing})
