"""Fair shares of sessions and processes: one person's many sessions do not evict those of others."""

from collections.abc import Sequence
from typing import Final

ANY_OWNER: Final = ""


def owner_to_evict(owners: Sequence[str], owner: str, size: int, share_multiple: int = 1) -> str | None:
    """The owner of the idle session to evict for a new one of `owner`, or None if there is room.

    That is `owner` if they have `share_multiple` times as many as are free, ANY_OWNER if none is free. `owners` has the owner of each
    existing session; `size` is the maximum.
    """
    own_count, free = owners.count(owner), size - len(owners)
    if own_count and own_count >= free * share_multiple:
        return owner
    return ANY_OWNER if free <= 0 else None
