"""JSON-RPC errors of MCP servers as clients may read them: the server's words and code, without the inside of the server."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from adapters.mcp_client.wire.messages import McpRefused
from adapters.redaction.error_text import WORDS_MAX, Sieve, tells, unwinds

DATA_MAX: Final = 4 << 10  # bytes of JSON
WITHHELD: Final = "[withheld]"
RESERVED: Final = frozenset({"reason_id", "decision_id", "approval", "requiredCapabilities", "elicitations", "uri", "retryAfter"})
_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s")


def reveal(refused: McpRefused, address: str) -> None:
    """Gives a refusal the server's own words and data as far as they are plain. `address`: the server's URL, whose host is not told."""
    words = redacted(refused.said, address)
    if words:
        refused.public = words
    if refused.data is None and refused.server_data is not None:
        refused.data = plain_data(refused.server_data, address)


def redacted(words: str, address: str = "") -> str:
    """The text with a mark in place of each sentence that tells of files, code, hosts, databases or secrets; empty where none is left."""
    text = "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in words[:WORDS_MAX]).strip()
    if not text or not tells(text, address):
        return text
    if unwinds(text):
        return ""
    kept = [[WITHHELD if tells(sentence, address) else sentence for sentence in _SENTENCE.split(line)] for line in text.split("\n")]
    if not any(sentence.strip() and sentence != WITHHELD for line in kept for sentence in line):
        return ""
    shown = "\n".join(" ".join(_without_repeats(line)) for line in kept)
    return "" if tells(shown, address) else shown


def plain_data(data: Any, address: str = "") -> Any:
    """The error's `data`, all of it or nothing, without members that only the gateway gives."""
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name not in RESERVED}
    if data in (None, {}, [], "") or len(msgspec.json.encode(data)) > DATA_MAX:
        return None
    return data if isinstance(Sieve(address).metadata({"data": data}), dict) else None


def _without_repeats(sentences: list[str]) -> Iterator[str]:
    """One mark for several sentences in a row that are withheld."""
    before = ""
    for sentence in sentences:
        if not (sentence == before == WITHHELD):
            yield sentence
        before = sentence
