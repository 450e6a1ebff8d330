"""What changed between two cards of one agent, or two definitions of one server, and whether somebody has to look at it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SHOWN_MAX = 200  # changes
TEXT_SHOWN = 2000  # characters of one value
ABSENT: tuple[Any, ...] = (None, "", [], {})  # all the same to a reader of cards

# What neither steers a model nor moves a call. Everything else waits for an operator: descriptions too, since models follow them.
HARMLESS = frozenset(
    {
        "version",
        "iconUrl",
        "documentationUrl",
        "capabilities.streaming",
        "capabilities.pushNotifications",
        "capabilities.stateTransitionHistory",
        "capabilities.extendedAgentCard",
        "supportsAuthenticatedExtendedCard",
    }
)
_SETS = ("tags", "inputModes", "outputModes", "defaultInputModes", "defaultOutputModes")  # lists whose order says nothing


@dataclass(frozen=True, slots=True)
class Change:
    """`before` or `after` is None where the member is absent."""

    path: str
    before: Any
    after: Any

    @property
    def harmless(self) -> bool:
        """It only takes skills, tags or modes away, or touches what steers nothing."""
        last = self.path.rpartition(".")[2]
        if self.path in HARMLESS:
            return True
        if last in _SETS:
            return self.after is not None and set(map(str, self.after)) <= set(map(str, self.before or ()))
        return self.path.startswith("skills[") and self.path.endswith("]") and self.after is None

    def shown(self) -> dict[str, Any]:
        return {"path": self.path, "before": _cut(self.before), "after": _cut(self.after)}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Of two cards, or two definitions. Signatures are left out: whether they hold is another question."""
    return list(_members({**before, "signatures": None}, {**after, "signatures": None}, ""))


def _compared(before: Any, after: Any, path: str) -> Iterator[Change]:
    if before == after and type(before) is type(after):
        return
    if before in ABSENT and after in ABSENT and not isinstance(before, bool | int) and not isinstance(after, bool | int):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _members(before, after, f"{path}.")
    elif path == "skills":
        yield from _keyed(_list(before), _list(after), path, "id")
    elif path.rpartition(".")[2] in _SETS and sorted(map(repr, _list(before))) == sorted(map(repr, _list(after))):
        return
    else:
        yield Change(path, before, after)


def _members(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys()):
        yield from _compared(before.get(key), after.get(key), f"{prefix}{key}")


def _keyed(before: list[Any], after: list[Any], path: str, key: str) -> Iterator[Change]:
    """Lists whose entries have a name: their order says nothing."""
    old, new = ({str(entry[key]): entry for entry in entries if isinstance(entry, dict) and key in entry} for entries in (before, after))
    for name in sorted(old.keys() | new.keys()):
        yield from _compared(old.get(name), new.get(name), f"{path}[{name}]")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > TEXT_SHOWN:
        return f"{value[:TEXT_SHOWN]}… ({len(value)} characters)"
    return value
