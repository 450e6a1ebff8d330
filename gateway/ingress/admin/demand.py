"""Acts whose refusal is explained, since that there is such a thing is no secret."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from gateway.calls.authorizer import Refused
from policies.callers import Caller
from policies.delegation.rulings import Act, Denial

T = TypeVar("T")


async def demand(caller: Caller, allowed: Callable[[Caller, Act], Awaitable[T]], act: Act) -> T:
    """What `allowed` gives. Raises Refused, with the reason in it."""
    try:
        return await allowed(caller, act)
    except Refused as refused:
        if isinstance(refused.ruling, Denial):
            raise Refused(replace(refused.ruling, hidden=False)) from refused
        raise
