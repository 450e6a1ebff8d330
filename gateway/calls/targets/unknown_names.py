"""Denials of acts on unknown names, which a caller cannot tell from denials of hidden ones.

Both take the same ruling, the same commit and the same answer. If only one of them waited for the database, the response time would
tell them apart.
"""

from msgspec.structs import replace

from adapters.task import Message
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.limits.meters import CallLimits, LimitReached, PayloadTooLarge, release
from gateway.calls.targets.callees import Callees, act_on
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Decision, Denial, act_of_calling_tool, act_of_invoking_agent
from registry.cards.card import Family
from registry.store import UnknownName

NAME_MAX = 200  # characters of an unknown name that are ruled on and recorded
REASON_ID = "unknown"
NO_ACT = act_of_calling_tool("", "")  # counts only on the limits of the caller, since there is no callee


class UnknownNameDenied(UnknownName):
    """A name that the caller may not know of, and whose denial is in the audit already."""


class UnknownNameDenials:
    """Records denials of acts on unknown and hidden names."""

    def __init__(self, callees: Callees, authorizer: CallAuthorizer, limits: CallLimits) -> None:
        self._callees = callees
        self._authorizer = authorizer
        self._limits = limits

    async def check_name(self, unknown: UnknownName, caller: Caller, agent: str, message: Message, trace_id: str) -> None:
        """Records the denial of a message to an agent that does not exist or is hidden from the caller, and raises UnknownNameDenied.

        Returns if the agent exists and the caller may know of it.
        """
        try:
            act, exists = act_on(self._callees.find_registered(caller, agent, Family.AGENT)), True
        except UnknownName:
            act, exists = act_of_invoking_agent(agent), False
        if await self.deny(caller, act, message, trace_id, is_registered=exists):
            raise UnknownNameDenied(agent) from unknown

    async def check_limit(self, refused: LimitReached | PayloadTooLarge, caller: Caller, act: Act, message: Message, trace_id: str) -> None:
        """Hides a refusal by a limit if the caller may not know of the agent or server.

        Records the denial and raises UnknownNameDenied in that case. Returns if the caller may know of the agent or server.
        """
        if await self.deny(caller, act, message, trace_id, is_registered=True):
            raise UnknownNameDenied(act.parent) from refused

    async def deny(self, caller: Caller, act: Act, payload: bytes | Message, trace_id: str, *, is_registered: bool = False) -> bool:
        """Records the denial of an act on a name that is not registered, or registered but hidden from the caller.

        Returns False if the caller may know of the registered callee. `payload` is the body whose size counts. Raises LimitReached,
        PayloadTooLarge and WriteFailed, like an act on a hidden callee.
        """
        if not is_registered:
            release(self._limits.acquire(caller, NO_ACT, payload))
        named = replace(act, resource=act.resource[:NAME_MAX], permission=act.permission[:NAME_MAX], parent=act.parent[:NAME_MAX])
        _, ruling = await self._authorizer.rule_only(caller, RulingRequest(named, caller.principal.tenant, trace_id=trace_id))
        if is_registered and not (isinstance(ruling, Denial) and ruling.is_hidden):
            return False
        if is_registered:
            release(self._limits.acquire(caller, NO_ACT, payload))
        denial = ruling if is_registered and isinstance(ruling, Denial) else Denial(_unknown_decision(ruling.decision), is_hidden=True)
        await self._authorizer.record_refusal(caller, denial)
        return True


def _unknown_decision(decision: Decision) -> Decision:
    """Returns the decision as a denial: the caller's permissions do not matter where there is no callee."""
    return replace(decision, allowed=False, reason_id=REASON_ID, policies=(), missing=(), approval="", approvers=())
