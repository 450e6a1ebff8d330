"""What callers may read of an MCP server: its errors without the inside of the server, its messages without the secrets of the call."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import McpRefused
from adapters.mcp_client.wire.peer import Listener, Listening, Peer
from adapters.redaction.error_text import WORDS_MAX, Sieve, tells, unwinds
from adapters.redaction.secrets import Scrubber

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


def scrub_peer(peer: Peer | None, scrubber: Scrubber) -> Peer | None:
    """A client that gets the server's messages masked."""
    return None if peer is None else _CleanPeer(peer, scrubber)


def scrub_listener(listener: Listener, scrubber: Scrubber) -> Listener:
    """A listener that gets the server's notifications masked."""
    return _CleanListener(listener, scrubber)


def scrub_fault(error: Exception, scrubber: Scrubber) -> None:
    """Masks the secrets in a fault, or in the JSON-RPC error with which a server refused."""
    scrubber.fault(error)
    if isinstance(error, McpRefused):
        error.detail = scrubber.text(error.detail)
        error.said = scrubber.text(error.said)
        error.data, error.server_data = _scrub_value(error.data, scrubber), _scrub_value(error.server_data, scrubber)


def _scrub_value(value: Any, scrubber: Scrubber) -> Any:
    return None if value is None else msgspec.json.decode(scrubber.bytes(msgspec.json.encode(value)))


class _CleanPeer:
    """Hears what a server says before it answers, without the secrets."""

    def __init__(self, inner: Peer, scrubber: Scrubber) -> None:
        self._inner = inner
        self._scrubber = scrubber

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._inner.capabilities

    async def notify(self, method: str, params: Raw) -> None:
        await self._inner.notify(method, Raw(self._scrubber.bytes(bytes(params))))

    async def ask(self, method: str, params: Raw) -> Raw:
        return await self._inner.ask(method, Raw(self._scrubber.bytes(bytes(params))))


class _CleanListener(_CleanPeer):
    def __init__(self, inner: Listener, scrubber: Scrubber) -> None:
        super().__init__(inner, scrubber)
        self._listener = inner

    async def acknowledged(self, granted: Listening) -> None:
        await self._listener.acknowledged(granted)


_peer: type[Peer] = _CleanPeer
_listener: type[Listener] = _CleanListener
