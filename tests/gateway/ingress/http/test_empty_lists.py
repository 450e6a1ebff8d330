"""The reason for an empty list is found without ruling on more than is needed, and leaves the event loop free."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.calls.limits.slices import SLICE
from gateway.ingress.http.empty_lists import ROLES_MISSING, SCOPE_MISSING, EmptyListReasons
from policies.callers import Caller
from tests.fakes.house import ROLES, House, open_house


async def narrowed(home: House) -> Caller:
    return await home.gateway.rulings.caller_resolver.authenticate(
        home.token("mel", scope="call:nothing/*"), (home.gateway.settings.public_url,)
    )


@pytest.mark.parametrize(("permitted", "ruled_on"), [(0, 1), (2 * SLICE, 2 * SLICE + 1), (None, 3 * SLICE)])
async def test_candidates_are_ruled_on_in_slices_until_one_is_permitted(home: House, permitted: int | None, ruled_on: int) -> None:
    caller, seen, ruled = await narrowed(home), set[int](), 0

    def candidates(_: Caller) -> Iterator[object | None]:
        nonlocal ruled
        for number in range(3 * SLICE):
            ruled += 1
            yield object() if number == permitted else None

    async def watch() -> None:
        while not asking.done():
            seen.add(ruled)
            await asyncio.sleep(0)

    lists = EmptyListReasons(ROLES.keys, lambda *_: None)
    asking = asyncio.create_task(lists.find_reason(caller, "/mcp", candidates))
    await watch()
    reason = await asking
    assert (reason or {}).get("reason_id") == (None if permitted is None else SCOPE_MISSING)
    assert ruled == ruled_on
    assert all(after - before <= SLICE for before, after in pairwise(sorted(seen | {ruled})))  # less where the time of a slice was over


async def test_who_may_by_a_policy_alone_is_told_of_scopes_and_not_of_roles(home: House) -> None:
    lists = EmptyListReasons(tuple, lambda *_: None)  # the settings define none of the person's roles
    caller = await narrowed(home)
    for permitted, reason_id in ((object(), SCOPE_MISSING), (None, ROLES_MISSING)):
        reason = await lists.find_reason(caller, "/mcp", lambda _, candidate=permitted: iter((candidate,)))  # type: ignore[misc]  # mypy can't infer a lambda with a default
        assert (reason or {}).get("reason_id") == reason_id


async def test_a_role_that_only_a_policy_of_the_operator_knows_is_no_missing_one(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "policies").mkdir()
    policy = '@id("analysts") permit(principal in Role::"analyst", action == Action::"invokeAgent", resource == Agent::"other");'
    (tmp_path / "policies" / "ours.cedar").write_text(policy)
    users = {"ana": {"roles": ["analyst"]}, "nora": {"roles": ["nobody"]}}
    async with open_house(tmp_path / "home", database_url, policies=str(tmp_path / "policies"), users=users) as home:
        for user, reason_id in (("ana", None), ("nora", ROLES_MISSING)):
            caller = await home.gateway.rulings.caller_resolver.authenticate(home.token(user), (home.url,))
            reason = await home.gateway.empty_lists.find_reason(caller, "/mcp", lambda _: iter(()))
            assert (reason or {}).get("reason_id") == reason_id
