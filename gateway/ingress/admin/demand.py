"""Acts whose refusal is explained, since that there is such a thing is no secret."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from gateway.calls.authorizer import CallRefused
from policies.callers import Caller
from policies.delegation.rulings import Act, Denial

T = TypeVar("T")


async def require_permission(caller: Caller, authorize: Callable[[Caller, Act], Awaitable[T]], act: Act) -> T:
    """What `allowed` gives. Raises Refused, with the reason in it."""
    try:
        return await authorize(caller, act)
    except CallRefused as refused:
        if isinstance(refused.ruling, Denial):
            raise CallRefused(replace(refused.ruling, is_hidden=False)) from refused
        raise
