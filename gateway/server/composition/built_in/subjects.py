"""Builds what callers do with subjects: claims, the view of one, and the built-in server `subjects`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from adapters.tool_servers import BuiltInServer
from gateway.audit.decisions import READ_AUDIT
from gateway.events.recorder import EventRecorder
from gateway.ingress.admin.demand import require_permission
from gateway.server.composition.built_in.servers import BuiltInOffer
from gateway.server.composition.built_in.state import is_state_offered
from gateway.server.settings import Settings
from gateway.state.board.permissions import BoardAuthorizer
from gateway.state.claims.operations import ClaimOperations, ClaimRulings
from gateway.state.claims.store import SubjectClaims
from gateway.state.effects.looks import FindPlans, SubjectLooks
from gateway.state.effects.store import SubjectEffects
from gateway.state.subjects.clock import SubjectClock
from policies.authority import Authority, RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from policies.ids import new_id, now_us
from registry.cards.built_in import build_built_in_registration
from registry.cards.card import BUILT_IN_KIND

SUBJECTS: Final = "subjects"


@dataclass(frozen=True, slots=True)
class Subjects:
    """Claims on subjects, and looks at them."""

    claims: SubjectClaims
    claim_operations: ClaimOperations
    looks: SubjectLooks

    def build_tools(self) -> BuiltInServer:
        """The server `subjects`."""
        from gateway.ingress.built_in.claim_tools import ClaimTools

        return ClaimTools(self.claim_operations, self.looks.show).build_server()


def build_subjects(
    effects: SubjectEffects,
    rulings: BoardAuthorizer,
    authority: Authority,
    recorder: EventRecorder,
    find_plans: FindPlans,
) -> Subjects:
    """Builds them for one process. A refusal is explained, since the caller names the subject."""

    async def authorize(caller: Caller, act: Act) -> Grant:
        return await rulings.authorize(caller, RulingRequest(act, caller.principal.tenant))

    async def explain_refusal(caller: Caller, act: Act) -> Grant:
        return await require_permission(caller, authorize, act)

    database, could_allow = effects.database, authority.could_allow
    claims = SubjectClaims(database, SubjectClock(now_us), new_id, recorder=recorder, waiters=effects.claim_waiters)
    operations = ClaimOperations(claims, ClaimRulings(explain_refusal, could_allow))
    looks = SubjectLooks(
        database, claims.clock, explain_refusal, partial(_may_read_audit, could_allow), rulings=rulings, find_plans=find_plans
    )
    return Subjects(claims, operations, looks)


def _may_read_audit(could_allow: Callable[[Caller, Act], bool], caller: Caller) -> bool:
    return could_allow(caller, READ_AUDIT)


def offer_claims(settings: Settings, build: Callable[[], BuiltInServer]) -> tuple[BuiltInOffer, ...]:
    """The server `subjects`, which is offered where the board is."""
    if not is_state_offered(settings):
        return ()
    from gateway.ingress.built_in.claim_definitions import DEFINITIONS, TEMPLATES

    return (BuiltInOffer(build_built_in_registration(SUBJECTS, BUILT_IN_KIND, DEFINITIONS, TEMPLATES), build),)
