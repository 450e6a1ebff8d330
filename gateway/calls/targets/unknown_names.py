"""Acts on what is not there: denied as those on what the caller may not know of, after the same ruling and in a commit of their own.

Both get the same answer. If only one of them waited for the database, the time until the answer would tell them apart.
"""

from msgspec.structs import replace

from adapters.task import Message
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.limits.limits import CallLimits, LimitReached, PayloadTooLarge, release
from gateway.calls.targets.callees import Callees, act_on
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Decision, Denial, act_of_calling_tool, act_of_invoking_agent
from registry.cards.card import Family
from registry.store import UnknownName

NAME_MAX = 200  # characters of a stranger's name that are ruled on and kept
REASON_ID = "unknown"
NO_ACT = act_of_calling_tool("", "")  # what an unknown name takes of limits: of a person's or an agent's own, and of nothing that is called


class UnknownNameDenied(UnknownName):
    """An unknown name whose denial is kept."""


class UnknownNameDenials:
    """Keeps their denials."""

    def __init__(self, callees: Callees, authorizer: CallAuthorizer, limits: CallLimits) -> None:
        self._callees = callees
        self._authorizer = authorizer
        self._limits = limits

    async def check_name(self, unknown: UnknownName, caller: Caller, agent: str, message: Message, trace_id: str) -> None:
        """Keeps the denial of a message whose agent does not exist, or may not be known of by the caller. Then raises Unseen."""
        try:
            act, exists = act_on(self._callees.find_registered(caller, agent, Family.AGENT)), True
        except UnknownName:
            act, exists = act_of_invoking_agent(agent), False
        if await self.deny(caller, act, message, trace_id, is_registered=exists):
            raise UnknownNameDenied(agent) from unknown

    async def check_limit(self, refused: LimitReached | PayloadTooLarge, caller: Caller, act: Act, message: Message, trace_id: str) -> None:
        """Hides that a limit refused an act on a registered agent or server that the caller may not know of.

        Raises Unseen in that case, after it kept the denial. It returns where the caller may know of the agent or server.
        """
        if await self.deny(caller, act, message, trace_id, is_registered=True):
            raise UnknownNameDenied(act.parent) from refused

    async def deny(self, caller: Caller, act: Act, payload: bytes | Message, trace_id: str, *, is_registered: bool = False) -> bool:
        """Keeps the denial of an act on what is not there; where it `exists`, only if the caller may not know of it. Whether it was kept.

        `sent`: what the request takes along. Raises LimitReached, PayloadTooLarge and NotKept, as an act on something hidden does.
        """
        if not is_registered:
            release(self._limits.acquire(caller, NO_ACT, payload))
        named = replace(act, resource=act.resource[:NAME_MAX], permission=act.permission[:NAME_MAX], parent=act.parent[:NAME_MAX])
        _, ruling = await self._authorizer.rule_with_history(caller, RulingRequest(named, caller.principal.tenant, trace_id=trace_id))
        if is_registered and not (isinstance(ruling, Denial) and ruling.is_hidden):
            return False
        if is_registered:
            release(self._limits.acquire(caller, NO_ACT, payload))
        denial = ruling if is_registered and isinstance(ruling, Denial) else Denial(_unknown_decision(ruling.decision), is_hidden=True)
        await self._authorizer.record_refusal(caller, denial)
        return True


def _unknown_decision(decision: Decision) -> Decision:
    """Whatever the caller may do: there is nothing to do it to."""
    return replace(decision, allowed=False, reason_id=REASON_ID, policies=(), missing=(), approval="", approvers=())
