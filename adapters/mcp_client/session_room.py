"""Room for one more session or process of a person, in fair shares: nobody's flood of sessions ends those of others."""

from collections.abc import Sequence
from typing import Final

ANY_OWNER: Final = ""


def owner_to_evict(owners: Sequence[str], owner: str, size: int, share_multiple: int = 1) -> str | None:
    """Whose idle session makes room for one more of `owner`: their own when they have `times` as many as are free; None: nobody's.

    `owners` has the owner of each session there is, `size` is how many there may be.
    """
    mine, free = owners.count(owner), size - len(owners)
    if mine and mine >= free * share_multiple:
        return owner
    return ANY_OWNER if free <= 0 else None
