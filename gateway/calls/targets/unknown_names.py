"""Acts on what is not there: denied as those on what the caller may not know of, after the same ruling and in a commit of their own.

Both get the same answer. If only one of them waited for the database, the time until the answer would tell them apart.
"""

from msgspec.structs import replace

from adapters.task import Message
from gateway.calls.authorizer import Ledger
from gateway.calls.limits.limits import LimitReached, Limits, PayloadTooLarge, leave
from gateway.calls.targets.callees import Callees, act_on
from policies.authority import Request
from policies.callers import Caller
from policies.delegation.rulings import Act, Decision, Denial, calling, invoking
from registry.cards.card import Family
from registry.store import UnknownName

NAME_MAX = 200  # characters of a stranger's name that are ruled on and kept
REASON = "unknown"
NOTHING = calling("", "")  # what an unknown name takes of limits: of a person's or an agent's own, and of nothing that is called


class Unseen(UnknownName):
    """An unknown name whose denial is kept."""


class UnknownNames:
    """Keeps their denials."""

    def __init__(self, callees: Callees, ledger: Ledger, limits: Limits) -> None:
        self._callees = callees
        self._ledger = ledger
        self._limits = limits

    async def check_name(self, unknown: UnknownName, caller: Caller, agent: str, message: Message, trace_id: str) -> None:
        """Keeps the denial of a message whose agent does not exist, or may not be known of by the caller. Then raises Unseen."""
        try:
            act, exists = act_on(self._callees.entry(caller, agent, Family.AGENT)), True
        except UnknownName:
            act, exists = invoking(agent), False
        if await self.deny(caller, act, message, trace_id, exists=exists):
            raise Unseen(agent) from unknown

    async def check_limit(self, refused: LimitReached | PayloadTooLarge, caller: Caller, act: Act, message: Message, trace_id: str) -> None:
        """Hides that a limit refused an act on a registered agent or server that the caller may not know of.

        Raises Unseen in that case, after it kept the denial. It returns where the caller may know of the agent or server.
        """
        if await self.deny(caller, act, message, trace_id, exists=True):
            raise Unseen(act.parent) from refused

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
