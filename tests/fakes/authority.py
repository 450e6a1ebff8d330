"""An authority over policies of a test's own, among people, agents and grants that are what the test says they are."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from policies.authority import Authority, RulingRequest
from policies.callers import Caller, CallerResolver, HypotheticalCaller, hypothetical_caller
from policies.cedar.engine import CedarQuestion, PolicyEngine
from policies.cedar.question import Verdict
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.grants import GrantEnded
from policies.delegation.history import SENSITIVITY_MAX
from policies.delegation.kills import Kills
from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.rulings import Denial, Grant, act_of_calling_tool
from policies.environment import RulingEnvironment
from policies.tokens.claims import Claims
from policies.tokens.verifier import TokenRefused
from tests.fakes.clock import Clock
from tests.fakes.rows import Rows

IDP = "https://idp.test"
ROLES: Mapping[str, Sequence[str]] = {
    "sales": ["tool:crm.*", "agent:*"],
    "reader": ["tool:crm.read"],
    "admin": ["*"],
}
ALICE = Principal("acme", IDP, "alice", ("sales",))
READ, REFUND, MAIL = act_of_calling_tool("crm", "read"), act_of_calling_tool("crm", "refund"), act_of_calling_tool("mail", "send")
NORA = Principal("acme", ALICE.issuer, "nora", ("nobody",))
RICK = Principal("acme", ALICE.issuer, "rick", ("reader",))
ADA = Principal("acme", ALICE.issuer, "ada", ("admin",))
TOOL = 'action == Action::"callTool"'
LARGE = f'@id("large") forbid(principal, {TOOL}, resource == Tool::"crm.refund") when {{ context.input.amount > 500 }};'
ASKING = LARGE.replace("forbid", '@ask("sure?") @approvals("2") @expires("30m") forbid')
ONCE = f'@id("once") forbid(principal, {TOOL}, resource == Tool::"crm.refund") when {{ context.history.repeats > 0 }};'
TOTAL = (
    f'@id("most") @total("amount") forbid(principal, {TOOL}, resource == Tool::"crm.refund")'
    " when { context.history.totals.amount + context.input.amount > 1000 };"
)


class CountingEngine(PolicyEngine):
    """Counts what it decides."""

    decided = 0

    def decide(self, question: CedarQuestion) -> Verdict:
        self.decided += 1
        return super().decide(question)


class Scene:
    """What surrounds an authority, all of which a test may change; ids count."""

    def __init__(self, folder: Path, policies: str = "", task_ttl: float = 0.0) -> None:
        self.folder = folder
        (folder / "ours.cedar").write_text(policies)
        self.clock = Clock()
        self.rows = Rows()
        self.kills = Kills(self.rows)
        self.fresh = True
        self.roles: dict[str, tuple[str, ...]] = {}  # by subject; what is not here is as it was vouched for
        self.ceilings: dict[tuple[str, str], Permissions | None] = {}
        self.clearances: dict[tuple[str, str], int] = {}
        self.ids: Counter[str] = Counter()
        self.claims: dict[str, Claims] = {}  # by token
        self.grants: dict[tuple[str, str], Delegation] = {}
        self.forgotten: list[tuple[str, str]] = []
        self.engine = CountingEngine(ROLES, folder)
        around = RulingEnvironment(
            roles_now=lambda _issuer, subject, vouched: self.roles.get(subject, tuple(vouched)),
            ceiling_now=lambda tenant, agent: self.ceilings.get((tenant, agent), ALL_PERMISSIONS),
            role_permissions={role: Permissions.parse(texts) for role, texts in ROLES.items()},
            new_id=self._new_id,
            now=self.clock,
            is_fresh=lambda: self.fresh,
            clearance_now=lambda tenant, agent: self.clearances.get((tenant, agent), SENSITIVITY_MAX),
            kills=self.kills,
            task_ttl=task_ttl,
        )
        self.callers = CallerResolver(self, self, around)
        self.authority = Authority(self.engine, around)

    def find_cached(self, token: str, audiences: Collection[str]) -> Claims | None:
        """Tokens that end with a + were verified before."""
        return self.claims[token] if token.endswith("+") else None

    async def verify(self, token: str, audiences: Collection[str]) -> Claims:
        if token not in self.claims or token.endswith("+") or self.claims[token].audience not in audiences:
            raise TokenRefused("unknown")
        return self.claims[token]

    async def find(self, tenant: str, grant_id: str) -> Delegation:
        if (tenant, grant_id) not in self.grants:
            raise GrantEnded
        return self.grants[tenant, grant_id]

    def invalidate(self, tenant: str = "", grant_id: str = "") -> None:
        self.forgotten.append((tenant, grant_id))

    def caller(self, *path: Hop, who: Principal = ALICE, scope: Permissions = ALL_PERMISSIONS, life: float = 60.0) -> Caller:
        """A person, or the last agent of `path`, in task t0 of grant g0 and errand x0."""
        expires = self.clock.now + life
        found = hypothetical_caller(HypotheticalCaller(who, scope, path))
        delegation = Delegation(who, scope, expires, path).with_ids("g0", "t0", "x0") if path else Delegation(who, scope, expires)
        return Caller(who, delegation, "", "", expires, found.ruling_key)

    def _new_id(self, prefix: str) -> str:
        self.ids[prefix] += 1
        return f"{prefix}_{self.ids[prefix]}"


def crm(*permissions: str) -> Permissions:
    return Permissions.parse(permissions)


def refund(amount: int, **more: Any) -> RulingRequest:
    return RulingRequest(REFUND, "acme", {"amount": amount}, **more)


def denied(scene: Scene, caller: Caller, request: RulingRequest) -> Denial:
    ruling = scene.authority.rule(caller, request)
    assert isinstance(ruling, Denial) and not ruling.decision.allowed
    return ruling


def granted(scene: Scene, caller: Caller, request: RulingRequest) -> Grant:
    ruling = scene.authority.rule(caller, request)
    assert isinstance(ruling, Grant) and ruling.decision.allowed
    return ruling
