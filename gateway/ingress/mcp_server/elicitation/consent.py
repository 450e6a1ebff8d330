"""Requests a person's consent for a call by URL elicitation, in the form of either MCP era."""

from typing import Any

import msgspec
from msgspec import Raw

from adapters.contract import ConsentNeeded
from adapters.mcp_client.wire.messages import MISSING_CAPABILITY, URL_REQUIRED, McpRefused
from gateway.ingress.mcp_server.protocol.client_wishes import missing_capabilities
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope

ELICITATION_METHOD = "elicitation/create"
CONSENT_KEY = "connect"
URL_ELICITATION: dict[str, Any] = {"elicitation": {"url": {}}}
encode = msgspec.json.Encoder().encode


def request_consent(message: ClientMessage, consent: ConsentNeeded, request_state: str) -> bytes:
    """Returns the result that asks a client of 2026-07-28; `request_state` is a sealed state without server state.

    Raises BadEnvelope for a modern client without URL elicitation, whose error message has the URL. For a client of the legacy era it
    raises McpRefused with -32042, or ConsentNeeded when that client can't be asked.
    """
    question = {"mode": "url", "elicitationId": consent.id, "url": consent.url, "message": str(consent)}
    missing = missing_capabilities(message.capabilities, ELICITATION_METHOD, Raw(encode(question)))
    if message.is_modern and missing:
        raise BadEnvelope(MISSING_CAPABILITY, str(consent), {"requiredCapabilities": URL_ELICITATION})
    if missing:
        raise consent
    if not message.is_modern:
        raise McpRefused(URL_REQUIRED, "a consent", {"elicitations": [question]})
    requests = {CONSENT_KEY: {"method": ELICITATION_METHOD, "params": question}}
    return encode({"resultType": "input_required", "inputRequests": requests, "requestState": request_state})
