"""Which person's requests carry which bearer token or cookie of the console, known without reading the token."""

from collections.abc import Callable
from typing import Final

from policies.cache import BoundedCache

TOKENS_MAX: Final = 20_000
KEPT_SECONDS: Final = 3600.0


class TokenOwners:
    """The owners of tokens and cookies that were verified or issued in the last hour. It authorizes nothing: it only divides work fairly.

    Keys are hashes with a secret of the process, so that the tokens themselves aren't kept.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` counts seconds."""
        self._owners: BoundedCache[int, str] = BoundedCache(TOKENS_MAX, clock)

    def remember(self, token: str, owner: str) -> None:
        """`owner` is tenant|issuer|subject."""
        self._owners.put(hash(token), owner, KEPT_SECONDS)

    def find(self, token: str) -> str:
        """Returns the owner of a token; "" for an unknown one."""
        return self._owners.get(hash(token)) or ""
