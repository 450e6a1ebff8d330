"""A2A 0.3: its members in a published card, and the bytes over which the official SDK of 0.3 verifies a signature."""

import json
from collections.abc import Mapping
from typing import Any, Final

VERSION: Final = "0.3.0"
TRANSPORT: Final = "JSONRPC"  # of `url`
_SHARED: Final = (
    "name",
    "description",
    "version",
    "defaultInputModes",
    "defaultOutputModes",
    "skills",
    "provider",
)  # members of both versions
_OLDER: Final = ("url", "additionalInterfaces", "supportsAuthenticatedExtendedCard", "security")
_CAPABILITIES: Final = ("streaming", "pushNotifications", "extensions")


def older(card: Mapping[str, Any], extended: bool = True) -> dict[str, Any]:
    """The members of a published card that only 0.3 has (s5.5), or has in another form."""
    offered, required = card["supportedInterfaces"], card["securityRequirements"]
    return {
        "protocolVersion": VERSION,
        "url": offered[0]["url"],
        "preferredTransport": offered[0]["protocolBinding"],
        "additionalInterfaces": [{"url": each["url"], "transport": each["protocolBinding"]} for each in offered],
        "supportsAuthenticatedExtendedCard": extended,
        "securitySchemes": {name: {**scheme, "type": "http", "scheme": "Bearer"} for name, scheme in card["securitySchemes"].items()},
        "security": [{name: scopes["list"] for name, scopes in each["schemes"].items()} for each in required],
    }


def older_form(card: Mapping[str, Any]) -> bytes:
    """The canonical form that the official Python SDK of 0.3 makes of a card with the members of `older`.

    The SDK reads the members that 0.3 knows, omits empty values and the defaults of 0.3, and writes ASCII JSON with sorted names. The
    defaults in
    published cards are `protocolVersion`, `preferredTransport` and the `type` of security schemes.
    """
    read = {name: card[name] for name in (*_SHARED, *_OLDER) if name in card}
    read["capabilities"] = {name: card["capabilities"][name] for name in _CAPABILITIES if name in card["capabilities"]}
    read["securitySchemes"] = {name: {"scheme": scheme["scheme"]} for name, scheme in card["securitySchemes"].items()}
    if card["preferredTransport"] != TRANSPORT:
        read["preferredTransport"] = card["preferredTransport"]
    return json.dumps(without_empty(read), separators=(",", ":"), sort_keys=True).encode()


def without_empty(value: Any) -> Any:
    """The value without empty texts, lists and objects at any depth; None for an empty value."""
    if isinstance(value, dict):
        members = {key: member for key, entry in value.items() if (member := without_empty(entry)) is not None}
        return members or None
    if isinstance(value, list):
        return [entry for one in value if (entry := without_empty(one)) is not None] or None
    return None if value == "" else value
