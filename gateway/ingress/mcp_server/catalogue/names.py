"""Names of tools on /mcp: `{server}_{tool}`, `{agent}` and `{agent}_{skill}`, at most 64 characters, equal in every process."""

import hashlib
import re
from collections.abc import Container, Iterable

NAME_MAX = 64
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.-]")


def public_names(owner: str, own_names: Iterable[str], separator: str) -> dict[str, str]:
    """Returns own names by public name, in the order given.

    A name that is too long, has other characters or is taken ends in a digest of the own name. `owner` has neither `_` nor `.`, so two
    owners never have the same public name.
    """
    names: dict[str, str] = {}
    for name in own_names:
        plain = f"{owner}{separator}{_NOT_ALLOWED.sub('-', name)}"
        if len(plain) > NAME_MAX or plain in names or plain != f"{owner}{separator}{name}":
            plain = _with_digest(plain, name)
        names[plain] = name
    return names


def avoid_alias(name: str, aliases: Container[str]) -> str:
    """Returns the name, with a digest when another tool has it as an alias."""
    return _with_digest(name, name) if name in aliases else name


def entry_name_of(name: str, separator: str) -> str:
    """Returns the server or agent that a public name belongs to."""
    return name.split(separator, 1)[0]


def _with_digest(public_name: str, own_name: str) -> str:
    digest = hashlib.sha256(own_name.encode()).hexdigest()[:8]
    return f"{public_name[: NAME_MAX - 9]}-{digest}"
