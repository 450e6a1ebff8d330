"""The acts on the board, the permissions that they need (state:read:KEY and state:write:KEY), and what rules on them."""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from gateway.storage.batch import Batch
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant

T = TypeVar("T")

READ: Final = "readState"
WRITE: Final = "writeState"
ALL_KEYS: Final = "*"


class BoardAuthorizer(Protocol):
    """Rules on acts and records the rulings (gateway/server/composition/built_in/state.py)."""

    async def authorize(self, caller: Caller, request: RulingRequest) -> Grant:
        """Returns the recorded Grant. Raises CallRefused."""
        ...

    async def authorize_and_write(self, caller: Caller, request: RulingRequest, write: Callable[[Batch, Grant], T]) -> T:
        """Runs `write` in the commit that records the Grant, and returns its result. Raises CallRefused, and what `write` raises."""
        ...

    async def would_allow(self, caller: Caller, act: Act) -> bool:
        """Whether the act would be allowed now. Records nothing."""
        ...


def act_of_reading(key: str, verb: str = "") -> Act:
    """The act of reading the value of a key, or its history. state:read:customer/42 and state:read:customer/* permit customer/42/status."""
    return Act(READ, "Key", key, f"state:read:{key}", _parent_of(key), verb)


def act_of_writing(key: str, verb: str = "") -> Act:
    """The act of setting, patching or deleting the value of a key."""
    return Act(WRITE, "Key", key, f"state:write:{key}", _parent_of(key), verb)


def act_of_reading_below(prefix: str, verb: str) -> Act:
    """The act of reading all values below a prefix, at once or as they change. An empty prefix stands for all keys."""
    if not prefix:
        return Act(READ, "Key", ALL_KEYS, f"state:read:{ALL_KEYS}", ALL_KEYS, verb)
    return Act(READ, "Key", prefix, f"state:read:{prefix}/*", _parent_of(prefix), verb)


def _parent_of(key: str) -> str:
    return key.rpartition("/")[0] or key
