"""Names of tools on /mcp: `{server}_{tool}`, `{agent}` and `{agent}_{skill}`; at most 64 characters, the same in every process."""

import hashlib
import re
from collections.abc import Container, Iterable

NAME_MAX = 64
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.-]")


def public_names(owner: str, own_names: Iterable[str], separator: str) -> dict[str, str]:
    """Exposed name -> inner name, in the order given. A name that is too long, odd, or taken ends in a digest of the inner name.

    `owner` has neither `_` nor `.`, so no two owners ever expose the same name.
    """
    names: dict[str, str] = {}
    for name in own_names:
        plain = f"{owner}{separator}{_NOT_ALLOWED.sub('-', name)}"
        if len(plain) > NAME_MAX or plain in names or plain != f"{owner}{separator}{name}":
            plain = _with_digest(plain, name)
        names[plain] = name
    return names


def avoid_alias(name: str, aliases: Container[str]) -> str:
    """The name, or where another thing has it as an alias, one with a digest."""
    return _with_digest(name, name) if name in aliases else name


def entry_name_of(name: str, separator: str) -> str:
    """The server or agent that an exposed name belongs to."""
    return name.split(separator, 1)[0]


def _with_digest(public_name: str, own_name: str) -> str:
    digest = hashlib.sha256(own_name.encode()).hexdigest()[:8]
    return f"{public_name[: NAME_MAX - 9]}-{digest}"
