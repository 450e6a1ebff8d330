"""A credential and a registration are found and opened in their own place alone, whatever is changed in the database."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.storage.database import Database, engine_for
from policies.delegation.rulings import Grant
from policies.ids import now_us
from policies.tables import vault_credentials as table
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey
from policies.vault.envelope import EnvelopeEncryption
from policies.vault.store import DatabaseVault
from policies.vault.wrapping_keys import VaultKeys
from tests.fakes.oauth_bench import grant_of

ALICE = grant_of("alice")
KEY = CredentialKey("acme", ALICE.delegation.principal.owner_key, "https://as", "https://crm.example/mcp")
ORIGIN = "https://crm.example:443"
GIVEN = Credential("at-1", "us")
OTHER_PLACES = [
    KEY._replace(issuer="https://other"),
    KEY._replace(resource="https://crm.example/other"),
    KEY._replace(owner="acme|https://idp|bob"),
    KEY._replace(tenant="evil", owner="evil|https://idp|alice"),
]
OPENING = [ALICE, ALICE, grant_of("bob"), grant_of("alice", "evil")]  # a Grant that may read each of them


@pytest.fixture
async def small(tmp_path: Path, sqlite_template: Path) -> AsyncIterator[Database]:
    """For what does not depend on the kind of database."""
    shutil.copy(sqlite_template, tmp_path / "interlock.db")
    opened = Database(engine_for(f"sqlite:///{tmp_path / 'interlock.db'}"))
    opened.start()
    yield opened
    opened.close()


@pytest.fixture
def vault(small: Database, tmp_path: Path) -> DatabaseVault:
    return DatabaseVault(small, EnvelopeEncryption(VaultKeys.open(tmp_path)), now_us)


# attack VLT-05
async def test_only_what_stands_in_the_named_place_is_read_or_forgotten(vault: DatabaseVault) -> None:
    tokens = {key: Credential(f"at of {key}", "us") for key in (*OTHER_PLACES, KEY)}
    for key in OTHER_PLACES:
        await vault.write(key, tokens[key])
    assert await vault.read(ALICE, KEY) is None
    await vault.write(KEY, tokens[KEY])
    for grant, key in ((ALICE, KEY), *zip(OPENING, OTHER_PLACES, strict=True)):
        assert await vault.read(grant, key) == tokens[key]
    await vault.delete(KEY)
    assert await vault.read(ALICE, KEY) is None
    assert {key for key, _ in await vault.find(ALICE, ORIGIN, True)} == set(OTHER_PLACES[:2])
    assert await vault.read(OPENING[2], OTHER_PLACES[2]) == tokens[OTHER_PLACES[2]]


# attack VLT-05
@pytest.mark.parametrize(("grant", "place"), list(zip(OPENING, OTHER_PLACES, strict=True)), ids=["issuer", "resource", "owner", "tenant"])
async def test_a_credential_moved_in_the_database_opens_in_no_other_place(
    small: Database, vault: DatabaseVault, grant: Grant, place: CredentialKey
) -> None:
    await vault.write(KEY, GIVEN)
    moving = update(table).values(place._asdict())
    assert await small.write(lambda batch: batch.connection.execute(moving).rowcount) == 1
    assert await vault.read(grant, place) is None
    assert await vault.find(grant, ORIGIN, True) == ()


# attack VLT-05
async def test_a_registration_moved_in_the_database_is_that_of_no_other_issuer(small: Database, vault: DatabaseVault) -> None:
    await vault.write_client("acme", ClientRegistration("https://as", "us", secret="hush"))
    await small.write(lambda batch: batch.run("UPDATE vault_clients SET issuer = ?", ("https://other",)))
    assert await vault.find_client("acme", "https://other") is None


# attack VLT-05
async def test_each_issuer_gets_its_own_registration(vault: DatabaseVault) -> None:
    issuers = ("https://as", "https://other", "https://third")
    for issuer in issuers:
        await vault.write_client("acme", ClientRegistration(issuer, f"us at {issuer}"))
    assert [await vault.find_client("acme", issuer) for issuer in issuers] == [
        ClientRegistration(issuer, f"us at {issuer}") for issuer in issuers
    ]


# attack VLT-05
async def test_a_search_finds_credentials_of_the_named_origin_alone(vault: DatabaseVault) -> None:
    elsewhere = KEY._replace(resource="https://erp.example/mcp")
    await vault.write(KEY, GIVEN)
    await vault.write(elsewhere, GIVEN)
    assert await vault.find(ALICE, ORIGIN, True) == ((KEY, GIVEN),)
    assert await vault.find(ALICE, "https://erp.example:443", True) == ((elsewhere, GIVEN),)  # with the first search remembered
