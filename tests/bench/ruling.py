"""What a ruling costs by itself: verify, narrow and ask Cedar, with 50 policies and 1,000 entities, without a server."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from policies.authority import Authority, RulingRequest
from policies.callers import CallerResolver
from policies.cedar.engine import PolicyEngine
from policies.delegation.chain import Principal
from policies.delegation.grants import Grants
from policies.delegation.kills import Kills
from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.rulings import Grant, act_of_calling_tool
from policies.environment import RulingEnvironment
from policies.ids import new_id
from policies.keys.signing import SigningKeys
from policies.tokens.claims import DEVELOPMENT_ISSUER
from policies.tokens.verifier import TokenVerifier, mint_development_token
from tests.bench.figures import Ruling
from tests.bench.processes import BenchFailure

URL = "http://bench.test"
PEOPLE, TOOLS = 500, 499  # with the server and the role: 1,000 entities
POLICIES = 44  # beside three invariants and the role rule's
ROLES = {"sales": ["tool:crm.*", "agent:*", "prompt:crm.*"]}
WARM, COLD = 20_000, 500


class _NoRows:
    async def read(self, work: Callable[..., object]) -> object:
        raise AssertionError("a person's own call has no grant row")


def measure_ruling() -> Ruling:
    """Raises BenchFailure when a ruling is no Grant."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> Ruling:
    keys = SigningKeys.open(folder)
    _write_policies(folder / "policies")
    callers, authority = _authority(keys, folder / "policies")
    tokens = [mint_development_token(keys, Principal("default", DEVELOPMENT_ISSUER, f"user{number}"), URL) for number in range(PEOPLE)]
    requests = [RulingRequest(act_of_calling_tool("crm", f"tool{number}"), "default") for number in range(TOOLS)]
    cold = [await _time_ruling(callers, authority, tokens[number], requests[number % TOOLS]) for number in range(COLD)]
    warm = [(tokens[number % 50], requests[number % 20]) for number in range(100)]
    for token, request in warm:
        await _time_ruling(callers, authority, token, request)
    began = time.process_time()
    for number in range(WARM):
        token, request = warm[number % len(warm)]
        authority.rule(await callers.authenticate(token, (URL,)), request)
    return Ruling(cold_p50_ms=median(cold) * 1e3, warm_cpu_us=(time.process_time() - began) / WARM * 1e6)


async def _time_ruling(callers: CallerResolver, authority: Authority, token: str, request: RulingRequest) -> float:
    began = time.perf_counter()
    ruled = authority.rule(await callers.authenticate(token, (URL,)), request)
    taken = time.perf_counter() - began
    if not isinstance(ruled, Grant):
        raise BenchFailure(f"the ruling was {ruled.decision.reason_id}, not a Grant")
    return taken


def _authority(keys: SigningKeys, policies: Path) -> tuple[CallerResolver, Authority]:
    async def fetch(*_: object, **__: object) -> object:
        raise AssertionError("nothing is fetched for the development issuer")

    around = RulingEnvironment(
        roles_now=lambda _issuer, _subject, _vouched: ("sales",),
        ceiling_now=lambda _tenant, _agent: ALL_PERMISSIONS,
        role_permissions={role: Permissions.parse(texts) for role, texts in ROLES.items()},
        new_id=new_id,
        now=time.time,
        is_fresh=lambda: True,
        clearance_now=lambda _tenant, _agent: 3,
        kills=Kills(),
    )
    identity = TokenVerifier(URL, keys, [], fetch, development=True)  # type: ignore[arg-type]  # answers nothing
    grants = Grants(_NoRows(), time.time)  # type: ignore[arg-type]  # no rows
    return CallerResolver(identity, grants, around), Authority(PolicyEngine(ROLES, policies), around)


def _write_policies(folder: Path) -> None:
    folder.mkdir()
    lines = [
        f'@id("rule{number}") forbid(principal, action == Action::"callTool", resource == Tool::"crm.tool{number}")'
        f' when {{ principal.subject == "nobody{number}" && context.depth > 2 }};'
        for number in range(POLICIES)
    ]
    (folder / "bench.cedar").write_text("\n".join(lines))
