"""Claims about a change of the vault's keys: everything opens afterwards, and nothing with the old key alone."""

from pathlib import Path

from sqlalchemy import select, text

from adapters.task import PushAuthentication, PushConfig
from gateway.rewrapping import rewrap
from gateway.tables import push_configs
from policies.credentials import Client, Credential, CredentialKey
from policies.envelope import Envelope
from policies.vault_keys import VaultKeys
from registry.card import Status
from registry.store import Registry
from registry.tables import registrations
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.oauth_bench import grant_of
from tests.gateway.test_connections import consent

HUSH = "hush-hush-4711"
ALICE = grant_of("alice", "default", "interlock-development")
KEY = CredentialKey("default", ALICE.delegation.principal.owner, "https://as", "https://crm.example/mcp")


async def filled(home: House) -> str:
    """A gateway with a secret of each kind; the id of an open page."""
    gateway = home.gateway
    await gateway.vault.keep(KEY, Credential(HUSH, "us", refresh_token=f"{HUSH}-refresh"))
    await gateway.vault.keep_client("default", Client("https://as", "us", "client_secret_basic", HUSH))
    asked = await gateway.connections.ask(consent(KEY.owner))
    agent = await home.agent(CallbackAgent("sales"), upstream={"headers": {"X-Api-Key": HUSH}})
    task = (await home.send(home.token("alice"), agent.name, "hi"))["result"]["task"]["id"]
    row = await gateway.memory.tasks.find("default", KEY.owner, task)
    config = PushConfig(url="https://93.184.215.14/", id="w1", token=HUSH, authentication=PushAuthentication("Bearer", HUSH))
    await gateway.push.create(KEY.owner, row, config)
    return asked.id


async def everything(home: House) -> str:
    """Every text of every table."""
    names = ("vault", "vault_clients", "connections", "registrations", "push_configs", "audit", "tasks", "task_events")
    rows = [
        await home.gateway.database.read(lambda connection, name=name: connection.execute(text(f"SELECT * FROM {name}")).all())
        for name in names
    ]
    return repr(rows)


async def test_no_row_shows_a_secret_and_all_open_after_a_change_of_keys(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path, database_url) as home:
        page = await filled(home)
        assert HUSH not in await everything(home)
        gateway, keys = home.gateway, VaultKeys.open(tmp_path)
        old = keys.active.id
        fresh = keys.rotate().id
        done = rewrap(gateway.database.engine, Envelope(keys))
        assert (done.unusable, done.kept) == (0, {fresh})
        assert done.rows >= 5
        assert old not in repr(await everything(home))
        assert HUSH not in await everything(home)
        keys.drop_old(set())
        held = await gateway.vault.read(ALICE, KEY)
        assert held is not None
        assert held.access_token == HUSH
        assert await gateway.vault.client("default", "https://as") == Client("https://as", "us", "client_secret_basic", HUSH)
        assert (await gateway.connections.find(page)).consent.client.secret == "hush-client"
        (config,) = await gateway.push.list(KEY.owner, await gateway.memory.tasks.find("default", KEY.owner, await _task(home)))
        assert config.authentication.scheme == "Bearer"  # type: ignore[union-attr]  # it has one
    async with house(tmp_path, database_url) as again:
        assert again.gateway.registry.find("default", "sales").upstream["headers"] == {"X-Api-Key": HUSH}


async def _task(home: House) -> str:
    found = await home.gateway.database.read(lambda connection: connection.execute(select(push_configs.c.task_id)).scalar())
    return str(found)


async def test_settings_that_no_key_opens_put_their_entry_out_of_use(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path, database_url) as home:
        await home.agent(CallbackAgent("sales"), upstream={"headers": {"X-Api-Key": HUSH}})
        registry: Registry = home.gateway.registry
        registry.sealing = Envelope(VaultKeys.open(tmp_path / "another"))
        await home.gateway.database.write(lambda batch: batch.run("UPDATE registrations SET updated = updated + 1", ()))
        await registry.reload()
        found = registry.find("default", "sales")
        assert (found.status, dict(found.upstream)) == (Status.QUARANTINED, {})
        (column,) = await home.gateway.database.read(
            lambda connection: connection.execute(select(registrations.c.upstream)).scalars().all()
        )
        assert column.startswith("sealed:")


async def test_rows_that_no_key_opens_are_counted_and_left(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path, database_url) as home:
        await home.gateway.vault.keep(KEY, Credential(HUSH, "us"))
        done = rewrap(home.gateway.database.engine, Envelope(VaultKeys.open(tmp_path / "another")))
        assert (done.rows, done.unusable) == (0, 1)
        assert await home.gateway.vault.read(ALICE, KEY) == Credential(HUSH, "us")
