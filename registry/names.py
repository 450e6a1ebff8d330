"""Names of agents and servers: their form, and how one is derived from a card's title; and the error of a named member."""

import re
import unicodedata

NAME_MAX = 64
FRONT_DOOR = "interlock"  # the gateway's own agent, which routes each message to the agent that fits
RESERVED_NAMES = frozenset({"sandbox", "state", "subjects", "memory", "virtual", FRONT_DOOR})
_NAME = re.compile(r"[a-z0-9-]{1,64}")


class InvalidMember(Exception):
    """A member of a document or request is invalid. `field` is its path, `problem` says why; both are safe to show."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class BadName(Exception):
    """The text can't be the name of an agent or a server; the message says why."""


def check_name(name: str) -> str:
    """Returns the name if it is valid and not reserved. Raises BadName."""
    if not _NAME.fullmatch(name):
        raise BadName(f"name must be 1 to {NAME_MAX} characters of a-z, 0-9 and -")
    if name in RESERVED_NAMES:
        raise BadName(f"name {name} is reserved")
    return name


def derive_name(title: str) -> str:
    """`Sales Agent (EU)` -> `sales-agent-eu`. Raises BadName when nothing is left."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain)[:NAME_MAX].strip("-")
    if not name:
        raise BadName("name is required: none can be derived from the card's name")
    return check_name(name)
