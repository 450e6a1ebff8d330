"""Names in `_meta` that only the gateway gives: what an MCP server says under them is left out, so that none passes for the gateway."""

import re
from typing import Final

import msgspec
from msgspec import Raw

OURS: Final = "dev.interlock/"
DEEP: Final = 12  # levels of a message; below these MCP has no `_meta`
_NAME: Final = b"dev.interlock"  # without the slash, which may be escaped
_ESCAPED: Final = re.compile(rb"\\u00(?:2[eEfF]|5[fF]|6[1345bBcCdDeEfF9]|7[246])")  # a letter of it or of `_meta`, which nobody need escape
_DATA: Final = frozenset(
    {"structuredContent", "inputSchema", "outputSchema", "requestedSchema", "arguments"}
)  # whose members mean nothing here
_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_items: Final = msgspec.json.Decoder(list[Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def without_ours(message: bytes, levels: int = DEEP) -> bytes:
    """A message of JSON-RPC; the same object where it has no such name. Raises msgspec's errors for what is no JSON.

    Cheap, since all that servers say comes by here: one character is looked for before several.
    """
    if (b"_" in message and _NAME in message) or (b"\\" in message and _ESCAPED.search(message)):
        return _clean(message, levels)
    return message


def _clean(text: bytes, levels: int) -> bytes:
    """An object or a list, read anew at each level so that a member that is said twice hides nothing; numbers and texts to the letter."""
    kind = text.lstrip()[:1]
    if not levels or kind not in (b"{", b"["):
        return text
    if kind == b"[":
        return _encode([Raw(without_ours(bytes(item), levels - 1)) for item in _items(text)])
    members = {name: value if name in _DATA else Raw(without_ours(bytes(value), levels - 1)) for name, value in _members(text).items()}
    meta = members.get("_meta")
    if meta is not None and bytes(meta)[:1] == b"{":
        members["_meta"] = Raw(_encode({name: value for name, value in _members(meta).items() if not name.startswith(OURS)}))
    return _encode(members)
