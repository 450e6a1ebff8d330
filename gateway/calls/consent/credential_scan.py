"""Finds texts that look like credentials in messages to tasks that wait for an authorization (A2A 1.0 s7.6.4)."""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import UnsetType

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import Message

SCANNED_MAX = 1 << 20  # characters of one text
_CREDENTIAL_PATTERN = re.compile(
    r"(?<![\w-])(?>[\w-]*?eyJ)[\w-]{8,}+\.[\w-]{8,}+\.[\w-]{8,}"  # a JWT, wherever in a word it begins
    r"|\b(?:Bearer|Basic)\s+[\w.~+/=-]{16,}"
    r"|\b(?:sk|pk|rk|ghp|gho|ghu|ghs|ghr|glpat|xox[abprs])[-_][\w-]{16,}"
    r"|\bgithub_pat_\w{20,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:password|passwd|secret|client_secret|api[_-]?key|access_token|refresh_token)\b[\"\']?\s*[:=]\s*[\"\']?[^\s\"\']{6,}",
    re.IGNORECASE,
)


def check_no_credential(message: Message) -> None:
    """Raises BadMessage if a message to a task that waits for an authorization contains what looks like a credential."""
    if any(_CREDENTIAL_PATTERN.search(text[:SCANNED_MAX]) for text in _texts_of(message)):
        raise BadMessage("message.parts", "has what looks like a credential, which agents never get in messages: sign in where it says")


def _texts_of(message: Message) -> Iterator[str]:
    for part in message.parts:
        for held in (part.text, part.data, part.url):
            if not isinstance(held, UnsetType):
                yield from _texts_in(held)
    if not isinstance(message.metadata, UnsetType):
        yield from _texts_in(message.metadata)


def _texts_in(value: Any) -> Iterator[str]:
    """Yields each text, preceded by the name of its member."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            if isinstance(member, str):
                yield f"{name}: {member}"
            else:
                yield from _texts_in(member)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_in(item)
