"""What the configuration file names, planted and planted again, on both databases."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.storage.database import Database
from registry.cards.card import Status
from registry.drift.renewal import Renewal
from registry.names import BadName
from registry.seeds import OPERATOR, AgentSeed, NotReached, Seed, Seeds, ServerSeed
from registry.store import Candidate, Registry
from tests.registry.test_store import agent, registry_on, server

SALES = AgentSeed("sales", "https://sales.example/")


class Other:
    """What a survey finds; None is nobody."""

    def __init__(self, found: Candidate | None) -> None:
        self.found = found

    async def __call__(self, seed: Seed) -> Candidate:
        if self.found is None:
            raise NotReached("the upstream can't be reached")
        return replace(self.found, name=seed.name, owner=OPERATOR)


@pytest.fixture
def registry(database: Database) -> Registry:
    return registry_on(database)


def status(registry: Registry, name: str = "sales") -> Status:
    return registry.find("default", name).status


async def test_a_seed_is_registered_and_a_second_start_changes_nothing(registry: Registry, database: Database) -> None:
    seeds = Seeds(registry, Renewal(database, registry), Other(agent()))
    assert await seeds.plant(SALES)
    planted = registry.find("default", "sales")
    assert (planted.status, planted.owner) == (Status.ACTIVE, OPERATOR)
    assert await seeds.plant(SALES)
    assert registry.find("default", "sales") is planted


async def test_what_can_not_be_reached_is_down_until_it_is(registry: Registry, database: Database) -> None:
    other = Other(None)
    seeds = Seeds(registry, Renewal(database, registry), other)
    assert not await seeds.plant(SALES)
    assert not await seeds.plant(ServerSeed("crm", "https://crm.example/mcp"))
    assert (status(registry), status(registry, "crm")) == (Status.DOWN, Status.DOWN)
    other.found = agent()
    assert await seeds.plant(SALES)
    assert status(registry) is Status.ACTIVE
    assert registry.find("default", "sales").card is not None


async def test_what_is_gone_after_a_restart_keeps_its_card_and_credentials(registry: Registry, database: Database) -> None:
    other = Other(agent())
    seeds = Seeds(registry, Renewal(database, registry), other)
    await seeds.plant(SALES)
    secret = await registry.renew_secret("default", "sales")
    other.found = None
    assert not await seeds.plant(SALES)
    down = registry.find("default", "sales")
    assert (down.status, down.card is None) == (Status.DOWN, False)
    other.found = agent(ceiling=("agent:*",))
    assert await seeds.plant(SALES)
    assert (status(registry), registry.find("default", "sales").ceiling) == (Status.ACTIVE, ("agent:*",))
    assert registry.verify_secret(down.client_id, secret)


async def test_a_quarantine_outlasts_a_restart(registry: Registry, database: Database) -> None:
    seeds = Seeds(registry, Renewal(database, registry), Other(agent()))
    await seeds.plant(SALES)
    await registry.set_status("default", "sales", Status.QUARANTINED)
    assert await seeds.plant(SALES)
    assert status(registry) is Status.QUARANTINED


@pytest.mark.parametrize("before", [agent, lambda: server("sales"), lambda: agent(status=Status.PENDING)])
async def test_the_file_wins_over_who_took_the_name_and_their_secret_is_void(
    registry: Registry, database: Database, before: Callable[[], Candidate]
) -> None:
    squatter, secret = await registry.add(before())  # attack REG-01
    assert await Seeds(registry, Renewal(database, registry), Other(agent())).plant(SALES)
    planted = registry.find("default", "sales")
    assert (planted.owner, planted.status) == (OPERATOR, Status.ACTIVE)
    assert registry.client(squatter.client_id) is None
    assert not registry.verify_secret(squatter.client_id, secret)


async def test_a_name_that_can_not_be_stops_the_start(registry: Registry, database: Database) -> None:
    with pytest.raises(BadName):
        await Seeds(registry, Renewal(database, registry), Other(agent())).plant(AgentSeed("No Good", "https://sales.example/"))


async def test_another_process_that_planted_first_is_no_error(registry: Registry, database: Database) -> None:
    late = registry_on(database)
    assert await Seeds(registry, Renewal(database, registry), Other(agent())).plant(SALES)
    assert await Seeds(late, Renewal(database, late), Other(agent())).plant(SALES)
