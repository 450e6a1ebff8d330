"""Names of tools on /mcp: `{server}_{tool}`, `{agent}` and `{agent}_{skill}`; at most 64 characters, the same in every process."""

import hashlib
import re
from collections.abc import Container, Iterable

NAME_MAX = 64
_ODD = re.compile(r"[^A-Za-z0-9_.-]")


def exposed(owner: str, inner: Iterable[str], separator: str) -> dict[str, str]:
    """Exposed name -> inner name, in the order given. A name that is too long, odd, or taken ends in a digest of the inner name.

    `owner` has neither `_` nor `.`, so no two owners ever expose the same name.
    """
    names: dict[str, str] = {}
    for name in inner:
        plain = f"{owner}{separator}{_ODD.sub('-', name)}"
        if len(plain) > NAME_MAX or plain in names or plain != f"{owner}{separator}{name}":
            plain = _digested(plain, name)
        names[plain] = name
    return names


def unlike(name: str, taken: Container[str]) -> str:
    """The name, or where another thing has it as an alias, one with a digest."""
    return _digested(name, name) if name in taken else name


def owner_of(name: str, separator: str) -> str:
    """The server or agent that an exposed name belongs to."""
    return name.split(separator, 1)[0]


def _digested(plain: str, name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: NAME_MAX - 9]}-{digest}"
