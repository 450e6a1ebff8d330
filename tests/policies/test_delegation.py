"""Whatever becomes of a chain, no hop of it may more than the one before."""

import random
from typing import Any

from policies.delegation import DEPTH_MAX, CannotNarrow, Delegation
from policies.permissions import ALL, Permissions
from policies.principal import Principal

CHAINS = 100_000
ALICE = Principal("acme", "https://idp.test", "alice")
AGENTS = ("a", "b", "c", "d", "e", "f")
CONCRETE = tuple(
    f"{family}{rest}"
    for family, rests in {
        "tool:": ("crm.read", "crm.delete", "crm2.read", "mail.send", "mail.read"),
        "agent:": ("a", "b", "sales/quote", "sales"),
        "state:": ("read:x", "read:x/y", "write:x"),
        "registry:": ("write",),
    }.items()
    for rest in rests
)
PATTERNS = ("*", "tool:*", "tool:crm.*", "tool:mail.*", "agent:*", "agent:sales/*", "state:*", "state:read:*", *CONCRETE)


def reach(permissions: Permissions) -> frozenset[str]:
    """Each thing that could be done, one by one: what `covers` says of it, and nothing that is cleverer."""
    return frozenset(text for text in CONCRETE if permissions.covers(text))


def test_of_100_000_random_chains_none_widens() -> None:  # attack DLG-03, DLG-05
    chance = random.Random(20261121)
    pool: list[tuple[Permissions, frozenset[str]]] = [(ALL, frozenset(CONCRETE)), (Permissions(frozenset()), frozenset())]
    for _ in range(400):
        drawn = Permissions.of(chance.sample(PATTERNS, chance.randint(1, 4)))
        pool.append((drawn, reach(drawn)))
    refused = {"loop": 0, "too-deep": 0, "scope-exceeds-held": 0}
    hops = 0
    for _ in range(CHAINS):
        scope, able = chance.choice(pool)
        chain = Delegation(ALICE, scope, chance.uniform(0, 1000))
        for _ in range(chance.randint(1, 6)):
            before, able_before = chain, able
            agent, (ceiling, highest), (asked, wanted) = chance.choice(AGENTS), chance.choice(pool), chance.choice(pool)
            try:
                chain = chain.narrow(agent, ceiling, asked, chance.uniform(0, 2000))
                able = able & highest & wanted
                if chance.random() < 0.3:
                    less, fewer = chance.choice(pool)
                    chain, able = chain.scoped(less), able & fewer
            except CannotNarrow as refusal:
                refused[refusal.reason_id] += 1
                if chain is before:
                    assert refusal.reason_id != "loop" or any(hop.agent == agent for hop in before.path)
                    continue
            hops += 1
            check(before, chain, agent)
            assert able <= able_before
        if chance.random() < 0.2:  # costly: one by one, and rarely needed, since `held` is checked by patterns at each hop
            assert reach(chain.held()) == able
    assert hops > CHAINS and all(refused.values()), (hops, refused)


def check(before: Delegation, after: Delegation, agent: str) -> None:
    assert after.held().within(before.held()) and after.scope.within(before.scope)
    assert after.not_after <= before.not_after
    assert [hop.agent for hop in after.path] == [*(hop.agent for hop in before.path), agent]
    assert len(after.path) <= DEPTH_MAX and len({hop.agent for hop in after.path}) == len(after.path)
    assert kept(after) == kept(before)


def kept(delegation: Delegation) -> tuple[Any, ...]:
    """What no hop may change."""
    return delegation.principal, delegation.txn, delegation.task_id, delegation.depth_max
