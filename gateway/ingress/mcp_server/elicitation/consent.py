"""A person's consent that a call needs first, as clients of either era ask for it: elicitation by URL."""

from typing import Any

import msgspec
from msgspec import Raw

from adapters.contract import ConsentNeeded
from adapters.mcp_client.wire.messages import MISSING_CAPABILITY, URL_REQUIRED, McpRefused
from gateway.ingress.mcp_server.protocol.client_wishes import lacking
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope

METHOD = "elicitation/create"
KEY = "connect"
NEEDED: dict[str, Any] = {"elicitation": {"url": {}}}
encode = msgspec.json.Encoder().encode


def asking(asked: Asked, needed: ConsentNeeded, state: str) -> bytes:
    """The result that asks, for a client of 2026-07-28; `state` is a sealed requestState that stands for nothing of the server's.

    Raises BadEnvelope for a client that can't be asked, whose person finds the address in the message, and McpRefused with -32042 or
    ConsentNeeded itself for one of the initialize era.
    """
    question = {"mode": "url", "elicitationId": needed.id, "url": needed.url, "message": str(needed)}
    missing = lacking(asked.capabilities, METHOD, Raw(encode(question)))
    if asked.modern and missing:
        raise BadEnvelope(MISSING_CAPABILITY, str(needed), {"requiredCapabilities": NEEDED})
    if missing:
        raise needed
    if not asked.modern:
        raise McpRefused(URL_REQUIRED, "a consent", {"elicitations": [question]})
    requests = {KEY: {"method": METHOD, "params": question}}
    return encode({"resultType": "input_required", "inputRequests": requests, "requestState": state})
