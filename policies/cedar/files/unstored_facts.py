"""Warnings about policies that read facts which the board does not have, because a tool of a server holds the values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from policies.cedar.fact_paths import FactReading, fact_readings

ANY: Final = "*"
FOLDERS: Final[Mapping[str, str]] = {"holds": "holds", "opt-outs": "opt_outs"}  # below KIND/ID/ -> the fact
SCALARS: Final = ("values", "numbers")
Place = tuple[str, int]  # file and line


def unstored_fact_warnings(
    policies: Mapping[str, Mapping[str, Any]], places: Mapping[str, Place], backed: Mapping[str, str]
) -> Iterator[str]:
    """A sentence for each fact that a policy reads and that is held by a server. `backed`: the server of each such prefix of keys."""
    for key, policy in policies.items():
        file, line = places[key]
        for reading in fact_readings(policy):
            for prefix, server in backed.items():
                if _is_held(reading, prefix.split("/")):
                    yield f"{file}:{line}: {policy['annotations']['id']}: {_describe(reading, prefix, server)}"


def _is_held(reading: FactReading, prefix: Sequence[str]) -> bool:
    """Whether a key below KIND/ID/ that makes this fact is covered by the prefix."""
    name = reading.name or ANY
    keys = [[name]] if reading.kind in SCALARS else [[folder, name] for folder, kind in FOLDERS.items() if kind == reading.kind]
    return any(_covers(prefix[2:], key) for key in keys)


def _covers(prefix: Sequence[str], key: Sequence[str]) -> bool:
    return len(prefix) <= len(key) and all(ANY in (mine, theirs) or mine == theirs for mine, theirs in zip(prefix, key, strict=False))


def _describe(reading: FactReading, prefix: str, server: str) -> str:
    fact = f"context.facts.{reading.kind}" + (f" {reading.name!r}" if reading.name else "")
    held = f"values of {prefix} are held by the server {server}, so rules never see them"
    return f"reads {fact}, and {held}; keep what rules read on the board"
