"""What the configuration file names, planted and planted again, on both databases."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.storage.database import Database
from registry.cards.card import RegistrationStatus
from registry.drift.renewal import DriftApproval
from registry.names import BadName
from registry.seeds import OPERATOR, ConfiguredAgent, ConfiguredEntry, ConfiguredEntryRegistrar, ConfiguredServer, EntryUnreachable
from registry.store import Candidate, Registry
from tests.registry.test_store import agent, registry_on, server

SALES = ConfiguredAgent("sales", "https://sales.example/")


class Other:
    """What a survey finds; None is nobody."""

    def __init__(self, found: Candidate | None) -> None:
        self.found = found

    async def __call__(self, seed: ConfiguredEntry) -> Candidate:
        if self.found is None:
            raise EntryUnreachable("the upstream can't be reached")
        return replace(self.found, name=seed.name, owner=OPERATOR)


@pytest.fixture
def registry(database: Database) -> Registry:
    return registry_on(database)


def status(registry: Registry, name: str = "sales") -> RegistrationStatus:
    return registry.find("default", name).status


async def test_a_seed_is_registered_and_a_second_start_changes_nothing(registry: Registry, database: Database) -> None:
    seeds = ConfiguredEntryRegistrar(registry, DriftApproval(database, registry), Other(agent()))
    assert await seeds.register(SALES)
    planted = registry.find("default", "sales")
    assert (planted.status, planted.owner) == (RegistrationStatus.ACTIVE, OPERATOR)
    assert await seeds.register(SALES)
    assert registry.find("default", "sales") is planted


async def test_what_can_not_be_reached_is_down_until_it_is(registry: Registry, database: Database) -> None:
    other = Other(None)
    seeds = ConfiguredEntryRegistrar(registry, DriftApproval(database, registry), other)
    assert not await seeds.register(SALES)
    assert not await seeds.register(ConfiguredServer("crm", "https://crm.example/mcp"))
    assert (status(registry), status(registry, "crm")) == (RegistrationStatus.DOWN, RegistrationStatus.DOWN)
    other.found = agent()
    assert await seeds.register(SALES)
    assert status(registry) is RegistrationStatus.ACTIVE
    assert registry.find("default", "sales").card is not None


async def test_what_is_gone_after_a_restart_keeps_its_card_and_credentials(registry: Registry, database: Database) -> None:
    other = Other(agent())
    seeds = ConfiguredEntryRegistrar(registry, DriftApproval(database, registry), other)
    await seeds.register(SALES)
    secret = await registry.renew_secret("default", "sales")
    other.found = None
    assert not await seeds.register(SALES)
    down = registry.find("default", "sales")
    assert (down.status, down.card is None) == (RegistrationStatus.DOWN, False)
    other.found = agent(ceiling=("agent:*",))
    assert await seeds.register(SALES)
    assert (status(registry), registry.find("default", "sales").ceiling) == (RegistrationStatus.ACTIVE, ("agent:*",))
    assert registry.verify_secret(down.client_id, secret)


async def test_a_quarantine_outlasts_a_restart(registry: Registry, database: Database) -> None:
    seeds = ConfiguredEntryRegistrar(registry, DriftApproval(database, registry), Other(agent()))
    await seeds.register(SALES)
    await registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    assert await seeds.register(SALES)
    assert status(registry) is RegistrationStatus.QUARANTINED


@pytest.mark.parametrize("before", [agent, lambda: server("sales"), lambda: agent(status=RegistrationStatus.PENDING)])
async def test_the_file_wins_over_who_took_the_name_and_their_secret_is_void(
    registry: Registry, database: Database, before: Callable[[], Candidate]
) -> None:
    squatter, secret = await registry.add(before())  # attack REG-01
    assert await ConfiguredEntryRegistrar(registry, DriftApproval(database, registry), Other(agent())).register(SALES)
    planted = registry.find("default", "sales")
    assert (planted.owner, planted.status) == (OPERATOR, RegistrationStatus.ACTIVE)
    assert registry.find_client(squatter.client_id) is None
    assert not registry.verify_secret(squatter.client_id, secret)


async def test_a_name_that_can_not_be_stops_the_start(registry: Registry, database: Database) -> None:
    with pytest.raises(BadName):
        await ConfiguredEntryRegistrar(registry, DriftApproval(database, registry), Other(agent())).register(
            ConfiguredAgent("No Good", "https://sales.example/")
        )


async def test_another_process_that_planted_first_is_no_error(registry: Registry, database: Database) -> None:
    late = registry_on(database)
    assert await ConfiguredEntryRegistrar(registry, DriftApproval(database, registry), Other(agent())).register(SALES)
    assert await ConfiguredEntryRegistrar(late, DriftApproval(database, late), Other(agent())).register(SALES)
