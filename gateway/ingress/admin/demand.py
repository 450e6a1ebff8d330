"""Authorization of acts whose refusal is explained, since their existence is public."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from gateway.calls.authorizer import CallRefused
from policies.callers import Caller
from policies.delegation.rulings import Act, Denial

T = TypeVar("T")


async def require_permission(caller: Caller, authorize: Callable[[Caller, Act], Awaitable[T]], act: Act) -> T:
    """Returns the result of `authorize`. Raises CallRefused that is not hidden, so that the caller reads the reason."""
    try:
        return await authorize(caller, act)
    except CallRefused as refused:
        if isinstance(refused.ruling, Denial):
            raise CallRefused(replace(refused.ruling, is_hidden=False)) from refused
        raise
