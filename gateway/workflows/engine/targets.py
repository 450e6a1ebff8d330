"""What the starter of a run may use at this moment: looked up for planners, and ruled on for plans before anything of them runs."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from gateway.calls.authorizer import CallAuthorizer, CallRefused, terms_of
from gateway.workflows.coordination.outcomes import Outcomes
from gateway.workflows.dsl.targets import split_tool
from gateway.workflows.engine.steps import RunIdentity, StepCalls
from gateway.workflows.interpreter.effects import Offer, PlannedCall, Rank, RightsLookUp, StepKey
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.chain import Hop
from policies.delegation.permissions import parse_ceiling
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_invoking_agent
from registry.cards.card import KNOWN_STATUSES, Family, Registration, RegistrationStatus
from registry.store import Registry, UnknownName

EJECTED: Final = "ejected"  # the state of an endpoint whose breaker is open
TEXT_MAX: Final = 2000  # characters of one description


class TargetRights(Struct, frozen=True):
    """What rules on a target, and how its calls fare. `could_allow` says whether any arguments could be allowed."""

    calls: StepCalls
    authorizer: CallAuthorizer
    could_allow: Callable[[Caller, Act], bool]
    call_state_of: Callable[[Registration], dict[str, Any]]


class StepTargets:
    """Answers questions about agents and tools with the rights of a run's starter, within the ceiling of its workflow."""

    def __init__(self, registry: Registry, rights: TargetRights) -> None:
        self._registry = registry
        self._rights = rights
        self.outcomes = Outcomes()

    async def answer(self, identity: RunIdentity, key: StepKey, question: RightsLookUp) -> Any:
        """Raises SignInNeeded and RightsEnded once the rights of the starter count no more."""
        caller = await self._rights.calls.caller(identity, key.pointer)
        match question:
            case Offer():
                return self._offers(caller, question)
            case Rank():
                return self._ranked(caller, question)
        return [reason for call in question.calls if (reason := await self._refusal(identity, caller, call))]

    def _ranked(self, caller: Caller, wanted: Rank) -> list[str]:
        """Agents that can be called come first; of these, those of a higher rank; of these, those that completed more of their steps."""
        found = [entry for name in wanted.agents if (entry := self._find(caller, name)) is not None and _has_skill(entry, wanted.skill)]
        return [entry.name for entry in sorted(found, key=self._order_of)]

    def _order_of(self, entry: Registration) -> tuple[bool, int, float]:
        endpoints = self._rights.call_state_of(entry)["endpoints"]
        is_out = entry.status is RegistrationStatus.DOWN or all(each["state"] == EJECTED for each in endpoints)
        return is_out, -entry.rank, -self.outcomes.share_of(entry.tenant, entry.name)

    def _offers(self, caller: Caller, wanted: Offer) -> dict[str, Any]:
        agents = [_shown_agent(entry) for name in wanted.agents if (entry := self._usable_agent(caller, name)) is not None]
        tools = [_shown_tool(entry, tool) for name in wanted.tools if (found := self._usable_tool(caller, name)) for entry, tool in [found]]
        return {"agents": agents, "tools": tools}

    def _usable_agent(self, caller: Caller, name: str) -> Registration | None:
        entry = self._find(caller, name)
        is_offered = entry is not None and entry.family is Family.AGENT and self._rights.could_allow(caller, act_of_invoking_agent(name))
        return entry if is_offered else None

    def _usable_tool(self, caller: Caller, name: str) -> tuple[Registration, str] | None:
        server, tool = split_tool(name) or ("", "")
        entry = self._find(caller, server)
        if entry is None or entry.family is not Family.SERVER or all(each.name != tool for each in entry.tools):
            return None
        act = act_of_calling_tool(server, tool)
        is_allowed = parse_ceiling(entry.ceiling).covers(act.permission) and self._rights.could_allow(caller, act)
        return (entry, tool) if is_allowed else None

    def _find(self, caller: Caller, name: str) -> Registration | None:
        try:
            found = self._registry.find(caller.principal.tenant, name)
        except UnknownName:
            return None
        return found if found.status in KNOWN_STATUSES else None

    async def _refusal(self, identity: RunIdentity, caller: Caller, call: PlannedCall) -> str:
        """Why a call would be refused now, or the empty text. A refusal is recorded. What a policy asks people about is not refused."""
        entry = self._find(caller, (split_tool(call.target) or ("", ""))[0] if call.is_tool else call.target)
        if entry is None or (entry.family is Family.SERVER) is not call.is_tool:
            return f"{call.path}: there is no `{call.target}` now"
        request = _ruling_request(identity, entry, call)
        is_open = call.is_tool and call.arguments is None  # policies may read what is not known yet
        if is_open and request.ceiling.covers(request.act.permission) and self._rights.could_allow(caller, request.act):
            return ""
        try:
            await self._rights.authorizer.rule_or_refuse(caller, request)
        except CallRefused as refused:
            decision = refused.ruling.decision
            return f"{call.path}: `{call.target}` is refused ({decision.reason_id}); interlock why {decision.id}"
        return ""


def _has_skill(entry: Registration, skill: str) -> bool:
    return not skill or (entry.card is not None and any(each.id == skill for each in entry.card.skills))


def _ruling_request(identity: RunIdentity, entry: Registration, call: PlannedCall) -> RulingRequest:
    """The request that the call itself will be ruled on by, as far as it is known."""
    ceiling, trace_id = parse_ceiling(entry.ceiling), identity.trace.trace_id
    if call.is_tool:
        act = act_of_calling_tool(*(split_tool(call.target) or ("", "")))
        terms, arguments = terms_of(entry, act), call.arguments
        return RulingRequest(act, entry.tenant, arguments, ceiling, task_id=identity.run.id, trace_id=trace_id, terms=terms)
    act = act_of_invoking_agent(entry.name, call.skill)
    hop = Hop(entry.name, ceiling)
    return RulingRequest(act, entry.tenant, callee=hop, task_id=identity.run.id, trace_id=trace_id, terms=terms_of(entry, act))


def _shown_agent(entry: Registration) -> dict[str, Any]:
    """An agent as planners see it: its skills with the schemas of their inputs."""
    card = entry.card
    skills: list[dict[str, Any]] = []
    for skill in card.skills if card else ():
        one = {"id": skill.id, "name": skill.name, "description": skill.description[:TEXT_MAX], "tags": list(skill.tags)[:20]}
        contract = entry.contracts.get(skill.id, entry.contracts.get("", {}))
        if "input" in contract:
            one["inputSchema"] = contract["input"]
        skills.append(one)
    return {"name": entry.name, "description": card.description[:TEXT_MAX] if card else "", "skills": skills}


def _shown_tool(entry: Registration, tool: str) -> dict[str, Any]:
    definition = next(each.definition for each in entry.tools if each.name == tool)
    shown = {"name": f"{entry.name}.{tool}", "description": str(definition.get("description", ""))[:TEXT_MAX]}
    return shown | {"inputSchema": definition.get("inputSchema", {})}
