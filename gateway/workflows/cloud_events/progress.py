"""How far a listening step has come, so that each event is looked at once, in whichever process the run goes on."""

from typing import Any

from msgspec import Struct, field


class ListenProgress(Struct, omit_defaults=True):
    """What the events so far have settled. `found`: the filters of `all` that had their event, by their index."""

    found: list[int] = field(default_factory=list)
    correlated: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the index of a filter: values that are expected from now on
    until: "ListenProgress | None" = None


class Taken(Struct, frozen=True):
    """What an event was to a listening step: `is_consumed` where it is part of the result, `is_last` where the listening ends with it."""

    is_consumed: bool = False
    is_last: bool = False


NOT_TAKEN = Taken()
