"""Edits of a value: a new value, or a JSON Merge Patch (RFC 7396), which is bounded in depth and members."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from gateway.state.board.problems import BoardValueTooLarge

DEPTH_MAX: Final = 32
MEMBERS_MAX: Final = 10_000  # of the patch, counted at all depths


class Edit(Struct, frozen=True):
    """A new value, or with `is_patch` a merge patch of the value of now."""

    content: Any
    is_patch: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """The edit as the arguments of its act, whose digest the decision has."""
        return {"patch" if self.is_patch else "value": self.content}

    def apply(self, current: Any) -> Any:
        """The value after the edit; `current` is None without one. Raises BoardValueTooLarge."""
        return apply_patch(current, self.content) if self.is_patch else self.content


def apply_patch(target: Any, patch: Any) -> Any:
    """The value that a patch makes of `target`, None for no value. Neither is changed. Raises BoardValueTooLarge."""
    _check_bounds(patch)
    return _merge(target, patch)


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, member in patch.items():
        if member is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), member)
    return merged


def _check_bounds(patch: Any) -> None:
    level, depth, count = [patch], 0, 0
    while level:
        objects = [each for each in level if isinstance(each, Mapping)]
        level = [member for each in objects for member in each.values()]
        depth, count = depth + bool(objects), count + len(level)
        if depth > DEPTH_MAX or count > MEMBERS_MAX:
            raise BoardValueTooLarge(f"A merge patch has at most {DEPTH_MAX} levels of objects and {MEMBERS_MAX} members.")
