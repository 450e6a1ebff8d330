"""Rehearsals: rulings on test cases, without a running gateway."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policies.authority import Authority, RulingRequest
from policies.callers import HypotheticalCaller
from policies.cedar.engine import PolicyEngine
from policies.delegation.history import SENSITIVITY_MAX
from policies.delegation.kills import Kills
from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.rulings import Decision
from policies.delegation.terms import APPROVAL_NEEDED, Terms
from policies.environment import RulingEnvironment
from policies.ids import new_id
from policies.what_if.cases import Case


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The decision on a case; `problems` names each difference from what the case expects."""

    case: Case
    decision: Decision
    problems: tuple[str, ...]

    @property
    def outcome(self) -> str:
        return outcome_of(self.decision)


def build_authority(engine: PolicyEngine, roles: Mapping[str, Sequence[str]]) -> Authority:
    """An authority over these policies, without agents, kills or a clearance below the highest."""
    permissions = {role: Permissions.parse(texts) for role, texts in roles.items()}
    around = RulingEnvironment(
        roles_now=lambda _issuer, _subject, vouched: tuple(vouched),
        ceiling_now=lambda _tenant, _agent: ALL_PERMISSIONS,
        role_permissions=permissions,
        new_id=new_id,
        now=time.time,
        is_fresh=lambda: True,
        clearance_now=lambda _tenant, _agent: SENSITIVITY_MAX,
        kills=Kills(),
    )
    return Authority(engine, around)


def rehearse(authority: Authority, cases: Iterable[Case]) -> list[CaseResult]:
    """Rules on each case by itself."""
    results = []
    for case in cases:
        request = RulingRequest(
            case.act, case.principal.tenant, case.arguments, terms=Terms(history=case.history, effect=case.effect, facts=case.facts)
        )
        decision = authority.rule_hypothetically(HypotheticalCaller(case.principal, case.scope, case.path), request)
        results.append(CaseResult(case, decision, tuple(_find_problems(case, decision))))
    return results


def outcome_of(decision: Decision) -> str:
    """The outcome of a decision: allow, deny or ask."""
    return "allow" if decision.allowed else "ask" if decision.reason_id == APPROVAL_NEEDED else "deny"


def _find_problems(case: Case, decision: Decision) -> Iterable[str]:
    if (got := outcome_of(decision)) != case.expect:
        yield f"expected {case.expect}, got {got}"
    if case.reason and decision.reason_id != case.reason:
        yield f"expected reason {case.reason}, got {decision.reason_id}"
    for name, wanted, found in (("policies", case.policies, decision.policies), ("missing", case.missing, decision.missing)):
        if wanted is not None and set(wanted) != set(found):
            yield f"expected {name} {', '.join(sorted(wanted)) or 'none'}, got {', '.join(sorted(found)) or 'none'}"
