"""Claims about the vault: whose a credential is, where it opens, and that two processes do not burn one refresh token."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from gateway.storage.database import Database, WriteFailed, engine_for
from policies.ids import now_us
from policies.tables import vault_credentials as table
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey, WrongOwner
from policies.vault.envelope import EnvelopeEncryption
from policies.vault.store import CACHED_SECONDS, LEASE_SECONDS, DatabaseVault, client_full_key
from policies.vault.wrapping_keys import VaultKeys
from tests.fakes.oauth_bench import grant_of

ALICE = grant_of("alice")
OWNER = ALICE.delegation.principal.owner_key
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
        self.first, self.second = (DatabaseVault(each, EnvelopeEncryption(VaultKeys.open(home)), now) for each in (one, other))


@pytest.fixture
async def processes(tmp_path: Path, database: Database, database_url: str) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        other = Database(engine_for(database_url))
        other.start()
        stack.callback(other.close)
        yield Processes(tmp_path, Now(), database, other)


class Slow:
    """A database whose answers arrive late: `meanwhile` is what happens first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.meanwhile: Callable[[], Any] | None = None
        self.write = database.write

    async def read(self, work: Callable[[Any], Any]) -> Any:
        answer = await self._database.read(work)
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            await happens()
        return answer


async def test_what_is_forgotten_while_it_is_read_is_not_remembered(processes: Processes, tmp_path: Path) -> None:
    slow = Slow(processes.database)
    vault = DatabaseVault(slow, EnvelopeEncryption(VaultKeys.open(tmp_path)), processes.now)
    await vault.write(KEY, GIVEN)
    slow.meanwhile = lambda: vault.delete(KEY)
    assert await vault.find(ALICE, ORIGIN, True) == ((KEY, GIVEN),)
    assert await vault.find(ALICE, ORIGIN, True) == ()
    slow.meanwhile = lambda: vault.write(KEY, GIVEN)
    processes.now.now += int(CACHED_SECONDS * 1e6) + 1
    assert await vault.find(ALICE, ORIGIN, True) == ()
    assert await vault.find(ALICE, ORIGIN, True) == ((KEY, GIVEN),)


async def test_what_one_process_keeps_another_reads(processes: Processes) -> None:
    await processes.first.write(KEY, GIVEN)
    assert await processes.second.read(ALICE, KEY) == GIVEN
    assert await processes.second.find(ALICE, ORIGIN, True) == ((KEY, GIVEN),)
    assert await processes.second.find(ALICE, ORIGIN, False) == ()
    assert await processes.second.find(ALICE, "https://other:443", True) == ()
    await processes.first.write_client("acme", ClientRegistration("https://as", "us", "client_secret_basic", "hush"))
    assert await processes.second.find_client("acme", "https://as") == ClientRegistration("https://as", "us", "client_secret_basic", "hush")
    assert await processes.second.find_client("evil", "https://as") is None
    await processes.second.delete_client("acme", "https://as")
    assert await processes.first.find_client("acme", "https://as") is None


# attack DLG-11
async def test_nobody_reads_what_is_anothers(processes: Processes) -> None:
    await processes.first.write(KEY, GIVEN)
    for grant in (grant_of("bob"), grant_of("alice", "evil")):
        with pytest.raises(WrongOwner):
            await processes.first.read(grant, KEY)
        assert await processes.first.find(grant, ORIGIN, True) == ()
    assert await processes.first.list_of_owner("acme", OWNER) == ((KEY, GIVEN),)
    assert await processes.first.list_of_owner("acme", "acme|https://idp|bob") == ()


async def test_the_latest_stands_last_and_what_was_forgotten_is_gone(processes: Processes) -> None:
    older = KEY._replace(issuer="https://old")
    await processes.first.write(older, GIVEN)
    processes.now.now += 10
    await processes.first.write(KEY, GIVEN)
    assert [key.issuer for key, _ in await processes.first.find(ALICE, ORIGIN, True)] == ["https://old", "https://as"]
    await processes.first.delete(KEY)
    assert [key.issuer for key, _ in await processes.first.find(ALICE, ORIGIN, True)] == ["https://old"]
    await processes.second.find(ALICE, ORIGIN, True)
    await processes.first.delete(older)
    processes.now.now += int(CACHED_SECONDS * 1e6)
    assert await processes.second.find(ALICE, ORIGIN, True) == ()  # a second later everywhere


async def test_a_row_says_nothing_and_opens_nowhere_else(processes: Processes) -> None:
    await processes.first.write(KEY, GIVEN)
    bobs = KEY._replace(owner="acme|https://idp|bob")
    await processes.first.write(bobs, GIVEN)
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
    await processes.first.write(KEY, GIVEN)
    used: list[str] = []
    started = asyncio.Event()

    async def renew(vault: DatabaseVault) -> None:
        async with vault.lease(KEY.full_key):
            held = await vault.read(ALICE, KEY)
            assert held is not None
            if held.access_token != GIVEN.access_token:
                return
            started.set()
            await asyncio.sleep(0)
            used.append(held.refresh_token)
            await vault.write(KEY, Credential("at-2", "us", refresh_token="rt-2"))

    async with asyncio.timeout(60):
        await asyncio.gather(*(renew(vault) for vault in (processes.first, processes.second) * 3))
    assert used == ["rt-1"]
    assert await processes.database.read(lambda connection: connection.execute(text("SELECT count(*) FROM vault_leases")).scalar()) == 0


async def test_a_lock_whose_holder_died_is_free_after_a_while(processes: Processes) -> None:
    holding = processes.first.lease(KEY.full_key)
    await holding.__aenter__()
    waiting = asyncio.create_task(_held(processes.second))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    processes.now.now += int(LEASE_SECONDS * 1e6) + 1
    async with asyncio.timeout(60):
        assert await waiting
    await holding.__aexit__(None, None, None)


async def _held(vault: DatabaseVault) -> bool:
    async with vault.lease(KEY.full_key):
        return True


class Scripted:
    """A database that answers as it is told, and shows what it was asked. An exception is raised."""

    def __init__(self, until: list[int | None], written: list[object]) -> None:
        self.until, self.written = until, written
        self.ran: list[tuple[str, tuple[Any, ...]]] = []

    async def read(self, work: object) -> Any:
        return self.until.pop(0)

    async def write(self, work: Callable[["Scripted"], object]) -> Any:
        work(self)
        answer = self.written.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def run(self, statement: str, values: tuple[Any, ...]) -> int:
        self.ran.append((statement.split()[0], values))
        return 0


def scripted(tmp_path: Path, until: list[int | None], written: list[object]) -> tuple[DatabaseVault, Scripted]:
    database = Scripted(until, written)
    return DatabaseVault(database, EnvelopeEncryption(VaultKeys.open(tmp_path)), lambda: 1000), database


@pytest.mark.parametrize(
    ("until", "written", "tries"),
    [
        ([None], [1, 1], 1),  # nobody has it
        ([999], [1, 1], 1),  # whoever had it is no more
        ([1000, 1001, 999], [1, 1], 1),  # looks on until its time is over, and writes nothing before
        ([None, None], [0, 1, 1], 2),  # another one was quicker
    ],
)
async def test_who_finds_a_lock_free_takes_it_and_leaves_it(
    tmp_path: Path, until: list[int | None], written: list[object], tries: int
) -> None:
    vault, database = scripted(tmp_path, until, written)
    async with vault.lease(("a", "b")):
        assert [word for word, _ in database.ran] == ["INSERT"] * tries
    assert (database.until, database.written) == ([], [])
    *_, (_, (lease, holder, end, now)), (last, left) = database.ran
    assert (last, left) == ("DELETE", (lease, holder))
    assert (end, now) == (1000 + 40_000_000, 1000)


class Freed(Scripted):
    """The lock is free when another task said so, which must have its turn for that."""

    looks = 0
    free = False

    async def read(self, work: object) -> Any:
        self.looks += 1
        assert self.looks < 100, "nobody else had a turn"
        return None if self.free else 1001

    async def give_up(self) -> None:
        self.free = True


async def test_who_waits_for_a_lock_lets_others_go_on(tmp_path: Path) -> None:
    database = Freed([], [1, 1])
    vault = DatabaseVault(database, EnvelopeEncryption(VaultKeys.open(tmp_path)), lambda: 1000)
    giving = asyncio.create_task(database.give_up())
    assert await _held(vault)
    await giving
    assert database.looks == 2


async def test_each_place_has_a_lock_of_its_own_and_each_holder_a_name(tmp_path: Path) -> None:
    vault, database = scripted(tmp_path, [None] * 4, [1] * 8)
    for place in (("a", "b"), ("a b",), ("a", "b"), ("a,b",)):
        async with vault.lease(place):
            pass
    taken = [values for word, values in database.ran if word == "INSERT"]
    assert taken[0][0] == taken[2][0]
    assert len({values[0] for values in taken}) == 3
    assert len({values[1] for values in taken}) == 4


@pytest.mark.parametrize("fault", [WriteFailed("gone"), asyncio.CancelledError()])
async def test_a_lock_is_left_by_who_was_interrupted_when_taking_it(tmp_path: Path, fault: BaseException) -> None:
    """The row may be there all the same."""
    vault, database = scripted(tmp_path, [None], [fault, 1])
    with pytest.raises(type(fault)):
        async with vault.lease(KEY.full_key):
            pytest.fail("nobody has it")
    (_, taken), (last, left) = database.ran
    assert (last, left) == ("DELETE", taken[:2])


async def test_a_lock_is_left_by_who_fails(tmp_path: Path) -> None:
    vault, database = scripted(tmp_path, [None], [1, 1])
    with pytest.raises(KeyError):
        async with vault.lease(KEY.full_key):
            raise KeyError
    assert [word for word, _ in database.ran] == ["INSERT", "DELETE"]


async def test_in_one_process_one_waits_for_the_other(tmp_path: Path) -> None:
    vault, database = scripted(tmp_path, [None, None], [1, 1, 1, 1])
    async with vault.lease(KEY.full_key):
        waiting = asyncio.create_task(_held(vault))
        for _ in range(5):
            await asyncio.sleep(0)
        assert [word for word, _ in database.ran] == ["INSERT"]
    async with asyncio.timeout(60):
        assert await waiting
    assert [word for word, _ in database.ran] == ["INSERT", "DELETE", "INSERT", "DELETE"]


def test_a_clients_place_is_its_own_and_never_changes() -> None:
    """Rows of an earlier version are bound to it."""
    assert client_full_key("acme", "https://as") == ("client", "acme", "https://as")


@pytest.fixture
async def small(tmp_path: Path, sqlite_template: Path) -> AsyncIterator[Database]:
    """For what does not depend on the kind of database."""
    shutil.copy(sqlite_template, tmp_path / "interlock.db")
    opened = Database(engine_for(f"sqlite:///{tmp_path / 'interlock.db'}"))
    opened.start()
    yield opened
    opened.close()


async def test_what_was_kept_again_is_the_latest_and_alone_in_its_place(small: Database, tmp_path: Path) -> None:
    now = Now()
    vault = DatabaseVault(small, EnvelopeEncryption(VaultKeys.open(tmp_path)), now)
    other = KEY._replace(resource="https://crm.example/other")
    newer = Credential("at-2", "us")
    for key, credential in ((KEY, GIVEN), (other, GIVEN), (KEY, newer)):
        assert await vault.find(ALICE, ORIGIN, True) is not None
        await vault.write(key, credential)
        now.now += 1
    assert await vault.find(ALICE, ORIGIN, True) == ((other, GIVEN), (KEY, newer))
    assert await vault.list_of_owner("acme", OWNER) == ((other, GIVEN), (KEY, newer))


async def test_what_was_registered_again_is_the_latest_of_its_server_and_tenant(small: Database, tmp_path: Path) -> None:
    vault = DatabaseVault(small, EnvelopeEncryption(VaultKeys.open(tmp_path)), Now())
    for tenant, issuer, name in (("acme", "https://as", "one"), ("acme", "https://as", "two"), ("acme", "https://other", "three")):
        await vault.write_client(tenant, ClientRegistration(issuer, name))
    await vault.write_client("evil", ClientRegistration("https://as", "four"))
    await vault.delete_client("acme", "https://other")
    assert await vault.find_client("acme", "https://as") == ClientRegistration("https://as", "two")
    assert await vault.find_client("acme", "https://other") is None
    assert await vault.find_client("evil", "https://as") == ClientRegistration("https://as", "four")


async def test_a_lock_of_one_place_holds_up_no_other(small: Database, tmp_path: Path) -> None:
    keys, now = VaultKeys.open(tmp_path), Now()
    mine, theirs = (DatabaseVault(small, EnvelopeEncryption(keys), now) for _ in range(2))
    async with asyncio.timeout(60), theirs.lease(("credential", "another")):
        assert await _held(mine)


async def test_the_gateways_own_account_is_found_apart(small: Database, tmp_path: Path) -> None:
    vault = DatabaseVault(small, EnvelopeEncryption(VaultKeys.open(tmp_path)), Now())
    own = KEY._replace(owner="")
    await vault.write(own, GIVEN)
    assert await vault.find(ALICE, ORIGIN, False) == ((own, GIVEN),)
    assert await vault.find(ALICE, ORIGIN, True) == ()
    assert await vault.read(grant_of("bob"), own) == GIVEN


async def test_what_was_read_is_believed_for_a_second(small: Database, tmp_path: Path) -> None:
    now, keys = Now(), VaultKeys.open(tmp_path)
    mine, theirs = (DatabaseVault(small, EnvelopeEncryption(keys), now) for _ in range(2))
    assert await mine.find(ALICE, ORIGIN, True) == ()
    await theirs.write(KEY, GIVEN)
    now.now += 999_000
    assert await mine.find(ALICE, ORIGIN, True) == ()
    assert await mine.read(ALICE, KEY) == GIVEN  # the row itself
    now.now += 1_000
    assert await mine.find(ALICE, ORIGIN, True) == ((KEY, GIVEN),)
    await mine.delete(KEY)
    assert await mine.find(ALICE, ORIGIN, True) == ()  # at once, for who did it


async def test_a_client_that_can_not_be_opened_is_none(small: Database, tmp_path: Path) -> None:
    await DatabaseVault(small, EnvelopeEncryption(VaultKeys.open(tmp_path)), Now()).write_client(
        "acme", ClientRegistration("https://as", "us", secret="hush")
    )
    another = DatabaseVault(small, EnvelopeEncryption(VaultKeys.open(tmp_path / "another")), Now())
    assert await another.find_client("acme", "https://as") is None
