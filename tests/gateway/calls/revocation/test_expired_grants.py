"""Old grants go in time, and none that anything still points to."""

import pytest
from sqlalchemy import select

from gateway.calls.revocation import expired_grants as old_grants
from gateway.calls.revocation.expired_grants import BATCH_SIZE, GRANT_KEPT_SECONDS, ExpiredGrants
from gateway.storage.tables import tasks
from policies.ids import now_us
from policies.tables import grants
from tests.fakes.house import CallbackAgent, House


async def left(home: House) -> set[str]:
    return set(await home.gateway.database.read(lambda connection: connection.execute(select(grants.c.task_id)).scalars().all()))


async def test_what_ended_long_ago_goes_and_what_a_task_waits_with_stays(home: House) -> None:
    sales = await home.agent(CallbackAgent("sales"))
    done = (await home.send(home.token("alice"), "sales", "one"))["result"]["task"]["id"]
    sales.state = "TASK_STATE_INPUT_REQUIRED"
    waits = (await home.send(home.token("alice"), "sales", "two"))["result"]["task"]["id"]
    now, database = now_us(), home.gateway.database
    assert await ExpiredGrants(database, lambda: now).sweep() == 0
    assert await ExpiredGrants(database, lambda: now + int((GRANT_KEPT_SECONDS - 60) * 1e6)).sweep() == 0
    assert await left(home) == {done, waits}
    later = ExpiredGrants(database, lambda: now + int((GRANT_KEPT_SECONDS + 7200) * 1e6))
    assert await later.sweep() == 1
    assert await left(home) == {waits}
    await database.write(lambda batch: batch.run("UPDATE tasks SET state = 'TASK_STATE_FAILED'", ()))
    assert await later.sweep() == 1 and await left(home) == set()
    assert len(await database.read(lambda connection: connection.execute(select(tasks)).all())) == 2


async def test_a_sweep_takes_a_few_at_a_time_until_none_is_left(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await home.agent(CallbackAgent("sales"))
    for text in ("one", "two", "three"):
        await home.send(home.token("alice"), "sales", text)
    monkeypatch.setattr(old_grants, "BATCH_SIZE", 2)
    assert BATCH_SIZE > 2
    assert await ExpiredGrants(home.gateway.database, lambda: now_us() + int((GRANT_KEPT_SECONDS + 7200) * 1e6)).sweep() == 3
    assert await left(home) == set()
