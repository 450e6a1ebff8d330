"""Redacts an MCP server's texts for callers: errors without internals, messages without the secrets of the call."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import McpRefused
from adapters.mcp_client.wire.peer import ListenFilter, McpListener, McpPeer
from adapters.mcp_client.wire.reserved_meta import RESERVED_PREFIX
from adapters.redaction.error_text import TEXT_MAX, ErrorTextFilter, has_stack_trace, reveals_internals
from adapters.redaction.secrets import SecretRedactor

DATA_MAX: Final = 4 << 10  # bytes of JSON
WITHHELD_MARK: Final = "[withheld]"
RESERVED_MEMBERS: Final = frozenset({"reason_id", "decision_id", "approval", "requiredCapabilities", "elicitations", "uri", "retryAfter"})
_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s")


def add_server_words(refused: McpRefused, server_url: str) -> None:
    """Adds the server's own message and data to a refusal, as far as they are safe. `server_url`: its host is redacted."""
    words = redact_text(refused.server_message, server_url)
    if words:
        refused.public = words
    if refused.data is None and refused.server_data is not None:
        refused.data = showable_data(refused.server_data, server_url)


def redact_text(message: str, server_url: str = "") -> str:
    """The text with a mark in place of each sentence about files, code, hosts, databases or secrets; empty where none is left."""
    text = "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in message[:TEXT_MAX]).strip()
    if not text or not reveals_internals(text, server_url):
        return text
    if has_stack_trace(text):
        return ""
    lines = [
        [WITHHELD_MARK if reveals_internals(sentence, server_url) else sentence for sentence in _SENTENCE.split(line)]
        for line in text.split("\n")
    ]
    if not any(sentence.strip() and sentence != WITHHELD_MARK for line in lines for sentence in line):
        return ""
    shown = "\n".join(" ".join(_without_repeated_marks(line)) for line in lines)
    return "" if reveals_internals(shown, server_url) else shown


def showable_data(data: Any, server_url: str = "") -> Any:
    """The error's `data` without reserved members; None if any of it is unsafe or it is too large."""
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name not in RESERVED_MEMBERS and not name.startswith(RESERVED_PREFIX)}
    if data in (None, {}, [], "") or len(msgspec.json.encode(data)) > DATA_MAX:
        return None
    return data if isinstance(ErrorTextFilter(server_url).filter_metadata({"data": data}), dict) else None


def _without_repeated_marks(sentences: list[str]) -> Iterator[str]:
    """Yields the sentences, with one mark for several consecutive ones."""
    previous = ""
    for sentence in sentences:
        if not (sentence == previous == WITHHELD_MARK):
            yield sentence
        previous = sentence


def scrub_peer(peer: McpPeer | None, scrubber: SecretRedactor) -> McpPeer | None:
    """A client that gets the server's messages with secrets masked."""
    return None if peer is None else _RedactingPeer(peer, scrubber)


def scrub_listener(listener: McpListener, scrubber: SecretRedactor) -> McpListener:
    """A listener that gets the server's notifications with secrets masked."""
    return _RedactingListener(listener, scrubber)


def scrub_fault(error: Exception, scrubber: SecretRedactor) -> None:
    """Masks the secrets in a fault, or in a server's JSON-RPC error."""
    scrubber.redact_fault(error)
    if isinstance(error, McpRefused):
        error.detail = scrubber.redact_text(error.detail)
        error.server_message = scrubber.redact_text(error.server_message)
        error.data, error.server_data = _scrub_value(error.data, scrubber), _scrub_value(error.server_data, scrubber)


def _scrub_value(value: Any, scrubber: SecretRedactor) -> Any:
    return None if value is None else msgspec.json.decode(scrubber.redact_bytes(msgspec.json.encode(value)))


class _RedactingPeer:
    """A peer that gets a server's messages with secrets masked."""

    def __init__(self, inner: McpPeer, scrubber: SecretRedactor) -> None:
        self._inner = inner
        self._scrubber = scrubber

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._inner.capabilities

    async def notify(self, method: str, params: Raw) -> None:
        await self._inner.notify(method, Raw(self._scrubber.redact_bytes(bytes(params))))

    async def ask(self, method: str, params: Raw) -> Raw:
        return await self._inner.ask(method, Raw(self._scrubber.redact_bytes(bytes(params))))


class _RedactingListener(_RedactingPeer):
    def __init__(self, inner: McpListener, scrubber: SecretRedactor) -> None:
        super().__init__(inner, scrubber)
        self._listener = inner

    async def on_acknowledged(self, granted: ListenFilter) -> None:
        await self._listener.on_acknowledged(granted)


_peer: type[McpPeer] = _RedactingPeer
_listener: type[McpListener] = _RedactingListener
