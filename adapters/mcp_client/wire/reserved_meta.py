"""Removes reserved names in `_meta` from servers' messages, so that a server can't pose as the gateway."""

import re
from typing import Final

import msgspec
from msgspec import Raw

RESERVED_PREFIX: Final = "dev.interlock/"
DEPTH_MAX: Final = 12  # levels of a message; MCP has no `_meta` below them
PARTS_MAX: Final = 100_000  # members and items of one message that are examined
RESERVED_NAME: Final = b"dev.interlock"  # without the slash, which may be escaped
ESCAPED_LETTER: Final = re.compile(rb"\\u00(?:2[eEfF]|5[fF]|6[1345bBcCdDeEfF9]|7[246])")  # an escaped letter of it or of `_meta`
_DATA_MEMBERS: Final = frozenset(
    {"structuredContent", "inputSchema", "outputSchema", "requestedSchema", "arguments"}
)  # their members are not MCP's
_decode_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_items: Final = msgspec.json.Decoder(list[Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def without_reserved_meta(message: bytes) -> bytes:
    """The JSON-RPC message without reserved names; the same object if it has none.

    Raises msgspec's errors for invalid JSON and for too many members. Searches for one character first, since every message passes here.
    """
    if (b"_" in message and RESERVED_NAME in message) or (b"\\" in message and ESCAPED_LETTER.search(message)):
        return _MetaCleaner().clean(message, DEPTH_MAX)
    return message


class _MetaCleaner:
    """Removes reserved names from one message."""

    def __init__(self) -> None:
        self._parts_left = PARTS_MAX

    def clean(self, text: bytes, levels: int) -> bytes:
        """Decodes and encodes each level again, so that a duplicate member hides nothing; numbers and texts stay unchanged."""
        kind = text.lstrip()[:1]
        if not levels or kind not in (b"{", b"["):
            return text
        if kind == b"[":
            items = _decode_items(text)
            self._count_parts(len(items))
            return _encode([self._clean_part(item, levels) for item in items])
        decoded = _decode_members(text)
        self._count_parts(len(decoded))
        members = {name: value if name in _DATA_MEMBERS else self._clean_part(value, levels) for name, value in decoded.items()}
        meta = members.get("_meta")
        if meta is not None and bytes(meta)[:1] == b"{":
            members["_meta"] = Raw(
                _encode({name: value for name, value in _decode_members(meta).items() if not name.startswith(RESERVED_PREFIX)})
            )
        return _encode(members)

    def _clean_part(self, part: Raw, levels: int) -> Raw:
        text = bytes(part)
        if (b"_" in text and RESERVED_NAME in text) or (b"\\" in text and ESCAPED_LETTER.search(text)):
            return Raw(self.clean(text, levels - 1))
        return part

    def _count_parts(self, parts: int) -> None:
        """Counts examined parts, which bounds the time that the event loop is blocked. Raises ValidationError above PARTS_MAX."""
        self._parts_left -= parts
        if self._parts_left < 0:
            raise msgspec.ValidationError(f"more than {PARTS_MAX} members and items beside a name of the gateway's")
