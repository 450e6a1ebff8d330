"""Claims about the vault: whose a credential is, where it opens, and that two processes do not burn one refresh token."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from gateway.database import Database, engine_for
from policies.credentials import Client, Credential, CredentialKey, NotTheirs
from policies.envelope import Envelope
from policies.ids import now_us
from policies.tables import vault as table
from policies.vault import CACHED_SECONDS, LEASE_SECONDS, DatabaseVault
from policies.vault_keys import VaultKeys
from tests.fakes.oauth_bench import grant_of

ALICE = grant_of("alice")
OWNER = ALICE.delegation.principal.owner
KEY = CredentialKey("acme", OWNER, "https://as", "https://crm.example/mcp")
ORIGIN = "https://crm.example:443"
GIVEN = Credential(
    "at-1", "us", frozenset({"a"}), frozenset({"a", "b"}), 99.0, 1.0, "rt-1", "https://gw/connect/callback", "https://as/token", "id-1"
)


class Now:
    def __init__(self) -> None:
        self.now = now_us()

    def __call__(self) -> int:
        return self.now


class Processes:
    """Two of them, which share nothing but the database and the keys."""

    def __init__(self, home: Path, now: Now, one: Database, other: Database) -> None:
        self.now, self.database = now, one
        self.first, self.second = (DatabaseVault(each, Envelope(VaultKeys.open(home)), now) for each in (one, other))


@pytest.fixture
async def processes(tmp_path: Path, database: Database, database_url: str) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        other = Database(engine_for(database_url))
        other.start()
        stack.callback(other.close)
        yield Processes(tmp_path, Now(), database, other)


async def test_what_one_process_keeps_another_reads(processes: Processes) -> None:
    await processes.first.keep(KEY, GIVEN)
    assert await processes.second.read(ALICE, KEY) == GIVEN
    assert await processes.second.find(ALICE, ORIGIN, True) == ((KEY, GIVEN),)
    assert await processes.second.find(ALICE, ORIGIN, False) == ()
    assert await processes.second.find(ALICE, "https://other:443", True) == ()
    await processes.first.keep_client("acme", Client("https://as", "us", "client_secret_basic", "hush"))
    assert await processes.second.client("acme", "https://as") == Client("https://as", "us", "client_secret_basic", "hush")
    assert await processes.second.client("evil", "https://as") is None
    await processes.second.forget_client("acme", "https://as")
    assert await processes.first.client("acme", "https://as") is None


async def test_nobody_reads_what_is_anothers(processes: Processes) -> None:
    await processes.first.keep(KEY, GIVEN)
    for grant in (grant_of("bob"), grant_of("alice", "evil")):
        with pytest.raises(NotTheirs):
            await processes.first.read(grant, KEY)
        assert await processes.first.find(grant, ORIGIN, True) == ()
    assert await processes.first.owned("acme", OWNER) == ((KEY, GIVEN),)
    assert await processes.first.owned("acme", "acme|https://idp|bob") == ()


async def test_the_latest_stands_last_and_what_was_forgotten_is_gone(processes: Processes) -> None:
    older = KEY._replace(issuer="https://old")
    await processes.first.keep(older, GIVEN)
    processes.now.now += 10
    await processes.first.keep(KEY, GIVEN)
    assert [key.issuer for key, _ in await processes.first.find(ALICE, ORIGIN, True)] == ["https://old", "https://as"]
    await processes.first.forget(KEY)
    assert [key.issuer for key, _ in await processes.first.find(ALICE, ORIGIN, True)] == ["https://old"]
    await processes.second.find(ALICE, ORIGIN, True)
    await processes.first.forget(older)
    processes.now.now += int(CACHED_SECONDS * 1e6)
    assert await processes.second.find(ALICE, ORIGIN, True) == ()  # a second later everywhere


async def test_a_row_says_nothing_and_opens_nowhere_else(processes: Processes) -> None:
    await processes.first.keep(KEY, GIVEN)
    bobs = KEY._replace(owner="acme|https://idp|bob")
    await processes.first.keep(bobs, GIVEN)
    rows = await processes.database.read(lambda connection: connection.execute(select(table)).mappings().all())
    assert not any(secret in repr(rows) for secret in ("at-1", "rt-1", "id-1"))
    mine = next(row for row in rows if row["owner"] == OWNER)
    moved = {name: mine[name] for name in ("kek_id", "wrapped", "body")}
    changing = update(table).where(table.c.owner == bobs.owner).values(moved)
    await processes.database.write(lambda batch: batch.connection.execute(changing).rowcount)
    assert await processes.first.read(grant_of("bob"), bobs) is None
    assert await processes.first.find(grant_of("bob"), ORIGIN, True) == ()


async def test_a_refresh_token_is_used_by_one_of_two_processes(processes: Processes) -> None:
    """Each renews under the lock, and looks again before it does."""
    await processes.first.keep(KEY, GIVEN)
    used: list[str] = []
    started = asyncio.Event()

    async def renew(vault: DatabaseVault) -> None:
        async with vault.alone(KEY.place):
            held = await vault.read(ALICE, KEY)
            assert held is not None
            if held.access_token != GIVEN.access_token:
                return
            started.set()
            await asyncio.sleep(0)
            used.append(held.refresh_token)
            await vault.keep(KEY, Credential("at-2", "us", refresh_token="rt-2"))

    async with asyncio.timeout(30):
        await asyncio.gather(*(renew(vault) for vault in (processes.first, processes.second) * 3))
    assert used == ["rt-1"]
    assert await processes.database.read(lambda connection: connection.execute(text("SELECT count(*) FROM vault_leases")).scalar()) == 0


async def test_a_lock_whose_holder_died_is_free_after_a_while(processes: Processes) -> None:
    holding = processes.first.alone(KEY.place)
    await holding.__aenter__()
    waiting = asyncio.create_task(_held(processes.second))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    processes.now.now += int(LEASE_SECONDS * 1e6) + 1
    async with asyncio.timeout(30):
        assert await waiting
    await holding.__aexit__(None, None, None)


async def _held(vault: DatabaseVault) -> bool:
    async with vault.alone(KEY.place):
        return True


def test_secrets_do_not_show() -> None:
    shown = repr(GIVEN) + repr(Client("https://as", "us", "client_secret_basic", "hush"))
    assert not any(secret in shown for secret in ("at-1", "rt-1", "id-1", "hush"))
