"""Compares two cards of one agent, or two definitions of one server, and tells whether an operator has to review the difference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SHOWN_MAX = 200  # changes
TEXT_SHOWN = 2000  # characters of one value
ABSENT: tuple[Any, ...] = (None, "", [], {})  # equal to a reader of cards

# Members that neither steer a model nor redirect a call. All others need approval; descriptions too, since models follow them.
HARMLESS_PATHS = frozenset(
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
_UNORDERED_LISTS = ("tags", "inputModes", "outputModes", "defaultInputModes", "defaultOutputModes")  # lists whose order has no meaning


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; `before` or `after` is None where the member is absent."""

    path: str
    before: Any
    after: Any

    @property
    def is_harmless(self) -> bool:
        """Whether it only removes skills, tags or modes, or changes a member of HARMLESS_PATHS."""
        last = self.path.rpartition(".")[2]
        if self.path in HARMLESS_PATHS:
            return True
        if last in _UNORDERED_LISTS:
            return self.after is not None and set(map(str, self.after)) <= set(map(str, self.before or ()))
        return self.path.startswith("skills[") and self.path.endswith("]") and self.after is None

    def to_document(self) -> dict[str, Any]:
        return {"path": self.path, "before": _shorten(self.before), "after": _shorten(self.after)}


def compare_documents(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """The differences between two cards, or two definitions. Ignores signatures, which are verified separately."""
    return list(_compare_members({**before, "signatures": None}, {**after, "signatures": None}, ""))


def _compare(before: Any, after: Any, path: str) -> Iterator[Difference]:
    if before == after and type(before) is type(after):
        return
    if before in ABSENT and after in ABSENT and not isinstance(before, bool | int) and not isinstance(after, bool | int):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _compare_members(before, after, f"{path}.")
    elif path == "skills":
        yield from _compare_keyed_lists(_as_list(before), _as_list(after), path, "id")
    elif path.rpartition(".")[2] in _UNORDERED_LISTS and sorted(map(repr, _as_list(before))) == sorted(map(repr, _as_list(after))):
        return
    else:
        yield Difference(path, before, after)


def _compare_members(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[Difference]:
    for key in sorted(before.keys() | after.keys()):
        yield from _compare(before.get(key), after.get(key), f"{prefix}{key}")


def _compare_keyed_lists(before: list[Any], after: list[Any], path: str, key: str) -> Iterator[Difference]:
    """Compares lists of named entries, whose order has no meaning."""
    old, new = ({str(entry[key]): entry for entry in entries if isinstance(entry, dict) and key in entry} for entries in (before, after))
    for name in sorted(old.keys() | new.keys()):
        yield from _compare(old.get(name), new.get(name), f"{path}[{name}]")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _shorten(value: Any) -> Any:
    if isinstance(value, str) and len(value) > TEXT_SHOWN:
        return f"{value[:TEXT_SHOWN]}… ({len(value)} characters)"
    return value
