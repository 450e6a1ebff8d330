"""Lists as they were made last for each caller, until anything that they follow from may have changed."""

from collections.abc import Callable, Sequence

from msgspec import Raw

from gateway.mcp_server.offers import Offers
from policies.authority import Caller

KEPT = 2048  # lists; each holds references to definitions that all lists share
Key = tuple[str, str, str]
Entries = Sequence[Raw]


class Lists:
    """`fresh`: whether this process knows what others changed; if not, nothing that is kept may be believed."""

    def __init__(self, offers: Offers, fresh: Callable[[], bool]) -> None:
        self._offers = offers
        self._fresh = fresh
        self._kept: dict[Key, tuple[tuple[int, int], float, Entries]] = {}

    def of(self, caller: Caller, kind: str, place: str, make: Callable[[], Entries]) -> Entries:
        """The entries of one list, encoded; `make` makes them where they have to be made."""
        key, stamp = (kind, place, caller.key), self._offers.stamp
        kept = self._kept.get(key) if self._fresh() else None
        if kept is not None and kept[0] == stamp and kept[1] == caller.expires:
            return kept[2]
        made = make()
        self._kept.pop(key, None)
        if len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (stamp, caller.expires, made)
        return made
