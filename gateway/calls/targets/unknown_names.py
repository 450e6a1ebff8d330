"""Acts on what is not there: denied as those on what the caller may not know of, after the same ruling and in a commit of their own.

Both get the same answer. If only one of them waited for the database, the time until the answer would tell them apart.
"""

from msgspec.structs import replace

from adapters.task import Message
from gateway.calls.authorizer import Ledger
from gateway.calls.limits.limits import Limits, leave
from policies.authority import Request
from policies.callers import Caller
from policies.delegation.rulings import Act, Decision, Denial, calling, invoking
from registry.cards.card import Status
from registry.store import Registry, UnknownName

NAME_MAX = 200  # characters of a stranger's name that are ruled on and kept
REASON = "unknown"
NOTHING = calling("", "")  # what an unknown name takes of limits: of a person's or an agent's own, and of nothing that is called


class Unseen(UnknownName):
    """An unknown name whose denial is kept."""


class UnknownNames:
    """Keeps their denials."""

    def __init__(self, registry: Registry, ledger: Ledger, limits: Limits) -> None:
        self._registry = registry
        self._ledger = ledger
        self._limits = limits

    async def check(self, error: Exception, caller: Caller, agent: str, message: Message, trace_id: str) -> None:
        """After a message to an agent was refused by `error`: as unknown, or by a limit, which tells nothing of what may not be known of.

        Raises Unseen, once the denial is kept, where there is no such agent or the caller may not know of it.
        """
        act = invoking(agent)
        there = self._is_there(caller.principal.tenant, agent)
        if await self.deny(caller, act, message, trace_id, exists=there):
            raise Unseen(agent) from error

    def _is_there(self, tenant: str, name: str) -> bool:
        try:
            return self._registry.find(tenant, name).status is Status.ACTIVE
        except UnknownName:
            return False

    async def deny(self, caller: Caller, act: Act, sent: bytes | Message, trace_id: str, *, exists: bool = False) -> bool:
        """Keeps the denial of an act on what is not there; where it `exists`, only if the caller may not know of it. Whether it was kept.

        `sent`: what the request takes along. Raises LimitReached, PayloadTooLarge and NotKept, as an act on something hidden does.
        """
        if not exists:
            leave(self._limits.enter(caller, NOTHING, sent))
        named = replace(act, resource=act.resource[:NAME_MAX], permission=act.permission[:NAME_MAX], parent=act.parent[:NAME_MAX])
        _, ruling = await self._ledger.ruled(caller, Request(named, caller.principal.tenant, trace_id=trace_id))
        if exists and not (isinstance(ruling, Denial) and ruling.hidden):
            return False
        if exists:
            leave(self._limits.enter(caller, NOTHING, sent))
        denial = ruling if exists and isinstance(ruling, Denial) else Denial(_unknown(ruling.decision), hidden=True)
        await self._ledger.refusal(caller, denial)
        return True


def _unknown(decision: Decision) -> Decision:
    """Whatever the caller may do: there is nothing to do it to."""
    return replace(decision, allowed=False, reason_id=REASON, policies=(), missing=(), approval="", approvers=())
