"""Claims about a change of the vault's keys: everything opens afterwards, and nothing with the old key alone."""

import json
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET
from sqlalchemy import select, text

from adapters.task import PushAuthentication, PushConfig
from gateway.cli.local.rewrap_secrets import rewrap_secrets
from gateway.storage.tables import push_configs
from gateway.tasks.webhooks.outbox import WebhookSecrets
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey
from policies.vault.envelope import EnvelopeEncryption
from policies.vault.wrapping_keys import VaultKeys
from registry.cards.card import RegistrationStatus
from registry.rows import RegistrationRows
from registry.store import Registry
from registry.tables import registrations
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.oauth_bench import grant_of
from tests.gateway.calls.consent.test_account_connections import consent

HUSH = "hush-hush-4711"
ALICE = grant_of("alice", "default", "interlock-development")
KEY = CredentialKey("default", ALICE.delegation.principal.owner_key, "https://as", "https://crm.example/mcp")


async def filled(home: House) -> str:
    """A gateway with a secret of each kind; the id of an open page."""
    gateway = home.gateway
    await gateway.vault.write(KEY, Credential(HUSH, "us", refresh_token=f"{HUSH}-refresh"))
    await gateway.vault.write_client("default", ClientRegistration("https://as", "us", "client_secret_basic", HUSH))
    asked = await gateway.account_connections.request_consent(consent(KEY.owner))
    agent = await home.agent(CallbackAgent("sales"), upstream={"headers": {"X-Api-Key": HUSH}})
    task = (await home.send(home.token("alice"), agent.name, "hi"))["result"]["task"]["id"]
    row = await gateway.stores.tasks.find("default", KEY.owner, task)
    config = PushConfig(url="https://93.184.215.14/", id="w1", token=HUSH, authentication=PushAuthentication("Bearer", HUSH))
    await gateway.webhooks.configs.create(KEY.owner, row, config)
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
        done = rewrap_secrets(gateway.database.engine, EnvelopeEncryption(keys))
        assert (done.unusable_rows, done.kek_ids) == (0, {fresh})
        assert done.rows >= 5
        assert old not in repr(await everything(home))
        assert HUSH not in await everything(home)
        keys.delete_old(set())
        held = await gateway.vault.read(ALICE, KEY)
        assert held is not None
        assert held.access_token == HUSH
        assert await gateway.vault.find_client("default", "https://as") == ClientRegistration(
            "https://as", "us", "client_secret_basic", HUSH
        )
        assert (await gateway.account_connections.find(page)).consent.client.secret == "hush-client"
        (config,) = await gateway.webhooks.configs.list(KEY.owner, await gateway.stores.tasks.find("default", KEY.owner, await _task(home)))
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
        registry._rows = RegistrationRows(EnvelopeEncryption(VaultKeys.open(tmp_path / "another")))
        await home.gateway.database.write(lambda batch: batch.run("UPDATE registrations SET updated = updated + 1", ()))
        await registry.reload()
        found = registry.find("default", "sales")
        assert (found.status, dict(found.upstream)) == (RegistrationStatus.QUARANTINED, {})
        (column,) = await home.gateway.database.read(
            lambda connection: connection.execute(select(registrations.c.upstream)).scalars().all()
        )
        assert column.startswith("sealed:")


ADDRESSES: dict[str, str] = {  # what decides where the settings of an entry are sent -> SQL for another
    "url": "'https://evil.test/'",
    "facts": "replace(facts, '127.0.0.1', '127.0.0.9')",
    "kind": "'openapi'",
    "terms": """'{"endpoints": [{"url": "https://evil.test/", "weight": 1}]}'""",
    "card": "replace(card, '127.0.0.1', '127.0.0.9')",
    "name": "'other'",
}


# attack VLT-05
@pytest.mark.parametrize("column", ADDRESSES)
async def test_an_address_changed_in_the_database_gets_no_secret(tmp_path: Path, database_url: str, column: str) -> None:
    async with house(tmp_path, database_url) as home:
        agent = await home.agent(CallbackAgent("sales"), upstream={"headers": {"X-Api-Key": HUSH}})
        await home.send(home.token("alice"), "sales", "hi")
        assert agent.headers[-1]["x-api-key"] == HUSH
        change = f"UPDATE registrations SET {column} = {ADDRESSES[column]}, updated = updated + 1"
        await home.gateway.database.write(lambda batch: batch.run("DELETE FROM cards", ()))  # they would hold on to the name
        assert await home.gateway.database.write(lambda batch: batch.run(change, ())) == 1
        await home.gateway.registry.reload()
        name = "other" if column == "name" else "sales"
        found = home.gateway.registry.find("default", name)
        assert (found.status, dict(found.upstream)) == (RegistrationStatus.QUARANTINED, {})
        assert (await home.send(home.token("alice"), name, "hi"))["error"]["code"] == -32011
        assert len(agent.requests) == 1


# attack VLT-05
async def test_a_webhook_whose_address_was_changed_in_the_database_is_shown_no_secret(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path, database_url) as home:
        await filled(home)
        row = await home.gateway.stores.tasks.find("default", KEY.owner, await _task(home))
        opened = home.gateway.webhooks.outbox._open_secrets
        query = select(*push_configs.columns, push_configs.c.id.label("config_id"))

        async def shown() -> list[WebhookSecrets]:
            return await home.gateway.database.read(lambda connection: [opened(each) for each in connection.execute(query)])

        assert await shown() == [WebhookSecrets(HUSH, "Bearer", HUSH)]
        await home.gateway.database.write(lambda batch: batch.run("UPDATE push_configs SET url = 'https://evil.test/'", ()))
        assert await shown() == [WebhookSecrets()]
        (config,) = await home.gateway.webhooks.configs.list(KEY.owner, row)  # it is still listed, so that its owner can replace it
        assert (config.url, config.authentication) == ("https://evil.test/", UNSET)


async def test_what_an_earlier_version_sealed_opens_and_is_bound_by_a_change_of_keys(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path, database_url) as home:
        await filled(home)
        gateway, envelope = home.gateway, EnvelopeEncryption(VaultKeys.open(tmp_path))
        upstream = envelope.seal_text(("upstream", "default", "sales"), json.dumps({"headers": {"X-Api-Key": HUSH}}))
        shown = msgspec.json.encode(WebhookSecrets(HUSH, "Bearer", HUSH)).decode()
        webhook = envelope.seal_text(("webhook", "default", await _task(home), "w1"), shown)
        change = "UPDATE registrations SET upstream = ?, updated = updated + 1"
        await gateway.database.write(lambda batch: batch.run(change, (upstream,)))
        await gateway.database.write(lambda batch: batch.run("UPDATE push_configs SET secrets = ?", (webhook,)))
        await gateway.registry.reload()
        assert gateway.registry.find("default", "sales").upstream["headers"] == {"X-Api-Key": HUSH}
        keys = VaultKeys.open(tmp_path)
        keys.rotate()
        assert rewrap_secrets(gateway.database.engine, EnvelopeEncryption(keys)).unusable_rows == 0
        await gateway.database.write(
            lambda batch: batch.run("UPDATE registrations SET url = 'https://evil.test/', updated = updated + 1", ())
        )
        gateway.registry._rows = RegistrationRows(EnvelopeEncryption(keys))
        await gateway.registry.reload()
        assert gateway.registry.find("default", "sales").status is RegistrationStatus.QUARANTINED


async def test_rows_that_no_key_opens_are_counted_and_left(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path, database_url) as home:
        await home.gateway.vault.write(KEY, Credential(HUSH, "us"))
        done = rewrap_secrets(home.gateway.database.engine, EnvelopeEncryption(VaultKeys.open(tmp_path / "another")))
        assert (done.rows, done.unusable_rows) == (0, 1)
        assert await home.gateway.vault.read(ALICE, KEY) == Credential(HUSH, "us")
