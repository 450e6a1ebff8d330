"""Moments of schedules that were missed, in time zones, and in several processes: as the document declares it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.workflows.cloud_events.cron import next_moment
from tests.fakes.house import House, house, two
from tests.fakes.workflows import Workflows
from tests.gateway.behaviour.workflows.test_schedules import ROLES, SERVICES, USERS, added, all_ended, flow, runs

SETTINGS: dict[str, Any] = {"service_principals": SERVICES, "roles": ROLES, "users": USERS}
ECHO = "do:\n- echo: {set: '${ {given: .} }'}\n"
HALF_HOUR = 1800


@pytest.fixture
async def scheduled(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, **SETTINGS) as built:
        yield built


def declared(missed: str) -> str:
    return flow(f"schedule: {{every: PT1H}}\n{ECHO}", f"runAs: nightly, schedule: {{missed: {missed}}}")


async def trigger(home: House) -> dict[str, Any]:
    (found,) = (await Workflows(home).desk.ask("GET", "/api/triggers", "admin")).json()["items"]
    return dict(found)


async def outputs(home: House) -> list[Any]:
    """The inputs of the runs, which are their outputs too, in the order in which they were started."""
    found = []
    for row in await runs(home):
        record = await home.gateway.stores.tasks.read_record("default", row.owner, row.id)
        found.append(record.to_task().artifacts[0].parts[0].data["given"])
    return found


async def test_each_missed_moment_has_its_run_where_the_document_says_all(scheduled: House) -> None:
    await scheduled.gateway.periodic_tasks.stop()
    await added(scheduled, declared("all"))
    first = datetime.fromisoformat((await trigger(scheduled))["next_at"])
    await Workflows(scheduled).pass_time(3 * 3600 + HALF_HOUR)
    await all_ended(scheduled, 3)
    moments = [datetime.fromisoformat(given["moment"]) for given in await outputs(scheduled)]
    assert [(moment - first).total_seconds() for moment in moments] == [0, 3600, 7200]
    await Workflows(scheduled).pass_time(3600)
    await all_ended(scheduled, 4)


async def test_missed_moments_are_left_out_where_the_document_says_skip(scheduled: House) -> None:
    await scheduled.gateway.periodic_tasks.stop()
    await added(scheduled, declared("skip"))
    workflows = Workflows(scheduled)
    await workflows.pass_time(3 * 3600 + HALF_HOUR)
    assert await runs(scheduled) == [] and (await trigger(scheduled))["problem"].startswith("missed: ")
    await workflows.pass_time(HALF_HOUR)
    await all_ended(scheduled, 1)
    assert (await outputs(scheduled), (await trigger(scheduled))["problem"]) == ([{}], None)


async def test_two_processes_bring_each_missed_moment_once(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url, **SETTINGS) as (one, other):
        await added(one, declared("all"))
        await other.gateway.database.refresh_epochs()
        await asyncio.gather(*(Workflows(each).pass_time(5 * 3600 + HALF_HOUR) for each in (one, other)))
        await all_ended(one, 5)
        await asyncio.gather(*(Workflows(each).pass_time(60) for each in (one, other)))
        assert len({given["moment"] for given in await outputs(one)}) == 5


async def test_a_cron_in_a_time_zone_shows_its_next_moment(scheduled: House) -> None:
    timing = "runAs: nightly, schedule: {timezone: Pacific/Auckland}"
    before = int(datetime.now(UTC).timestamp() * 1e6)
    await added(scheduled, flow(f"schedule: {{cron: '30 6 * * *'}}\n{ECHO}", timing))
    shown = await trigger(scheduled)
    assert (shown["cron"], shown["timezone"], shown["missed"]) == ("30 6 * * *", "Pacific/Auckland", "once")
    next_at = int(datetime.fromisoformat(shown["next_at"]).timestamp() * 1e6)
    assert next_at in {next_moment("30 6 * * *", moment, "Pacific/Auckland") for moment in (before, before + 60_000_000)}
    await added(scheduled, flow(f"schedule: {{cron: '30 6 * * *'}}\n{ECHO}"))
    assert (await trigger(scheduled))["next_at"].endswith("T06:30:00.000Z")
