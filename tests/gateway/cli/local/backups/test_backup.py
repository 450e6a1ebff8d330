"""backup and restore: what they refuse, keep private, and leave as it was."""

import gzip
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.files.data_folder import lock_home
from policies.keys.signing import SigningKeys
from policies.vault.wrapping_keys import VaultKeys
from tests.fakes.postgres_databases import PostgresDatabases
from tests.fakes.postgres_programs import OLDER, path_with
from tests.gateway.cli.conftest import CommandLine
from tests.gateway.cli.local.test_audit import home as home  # a home with an audit

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def elsewhere(interlock: CommandLine, tmp_path: Path) -> CommandLine:
    """The command line with another home, which is empty."""
    return CommandLine({**interlock.environment, "INTERLOCK_HOME": str(tmp_path / "other")})


@pytest.fixture
def made(interlock: CommandLine, home: Path, tmp_path: Path) -> Path:
    """A backup of that home."""
    file = tmp_path / "made.tar.gz"
    VaultKeys.open(home)
    assert interlock("backup", str(file), "--json").code == 0
    return file


def parts_of(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]  # all are files


def rewritten(file: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Writes the archive anew with parts that `change` returns."""
    parts = {name: change(name, data) for name, data in parts_of(file).items()}
    with gzip.open(file, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def with_manifest(file: Path, **members: Any) -> None:
    rewritten(file, lambda name, data: json.dumps({**json.loads(data), **members}).encode() if name == "manifest.json" else data)


def test_a_backup_is_private_and_has_the_keys_by_name(made: Path, home: Path) -> None:
    parts = parts_of(made)
    assert made.stat().st_mode & 0o777 == 0o600
    assert {name for name in parts if name.startswith("secrets/")} == {
        f"secrets/{path.relative_to(home)}" for pattern in ("*.json", "vault/*.key") for path in (home / "keys").glob(pattern)
    }
    assert b'"d"' not in parts["public-keys.json"] and not any(path.name.startswith(".interlock") for path in made.parent.iterdir())


def test_a_restored_home_has_the_same_keys_heads_and_records(made: Path, home: Path, elsewhere: CommandLine, tmp_path: Path) -> None:
    ran = elsewhere("restore", str(made), "--json")
    assert (ran.code, ran.json["sound"], ran.json["records"]) == (0, True, 6)
    other = tmp_path / "other"
    assert SigningKeys.open(other).active_kid == SigningKeys.open(home).active_kid
    assert VaultKeys.open(other).active.id == VaultKeys.open(home).active.id
    assert (other / "audit.heads").read_text() == (home / "audit.heads").read_text()
    assert {path.stat().st_mode & 0o077 for path in other.rglob("*") if path.name != "lock"} == {0}
    assert elsewhere("audit", "verify").code == 0


def test_a_backup_never_overwrites_a_file(interlock: CommandLine, made: Path) -> None:
    before = made.read_bytes()
    ran = interlock("backup", str(made))
    assert ran.code == 1 and "exists already" in ran.err and made.read_bytes() == before


def test_keys_are_encrypted_with_a_passphrase(interlock: CommandLine, home: Path, elsewhere: CommandLine, tmp_path: Path) -> None:
    right, wrong, file = tmp_path / "right", tmp_path / "wrong", tmp_path / "b.tar.gz"
    right.write_text(f"{PASSPHRASE}\n")
    wrong.write_text("another passphrase\n")
    assert interlock("backup", str(file), "--passphrase-file", str(right)).code == 0
    secret = next((home / "keys").glob("*.json")).read_bytes()
    assert not any(secret in part or json.loads(secret)["d"].encode() in part for part in parts_of(file).values())
    assert "encrypted" in elsewhere("restore", str(file)).err
    refused = elsewhere("restore", str(file), "--passphrase-file", str(wrong))
    assert refused.code == 1 and "passphrase" in refused.err and not (tmp_path / "other" / "keys").exists()
    assert elsewhere("restore", str(file), "--passphrase-file", str(right)).code == 0
    assert SigningKeys.open(tmp_path / "other").active_kid == SigningKeys.open(home).active_kid


def test_a_short_passphrase_is_refused(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("secret\n")
    assert "less than 12" in interlock("backup", str(tmp_path / "b.tar.gz"), "--passphrase-file", str(tmp_path / "short")).err


def test_a_backup_without_keys_is_restored_beside_the_keys(
    interlock: CommandLine, home: Path, elsewhere: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "b.tar.gz"
    assert interlock("backup", str(file), "--without-keys").code == 0
    assert not any(name.startswith("secrets/") for name in parts_of(file))
    shutil.copytree(home / "keys", tmp_path / "other" / "keys")
    ran = elsewhere("restore", str(file), "--json")
    assert ran.code == 0 and "copy the keys" in ran.json["next"][0]
    assert elsewhere("audit", "verify").code == 0


def test_an_occupied_home_stays_as_it_is(made: Path, home: Path, interlock: CommandLine) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    ran = interlock("restore", str(made))
    assert ran.code == 1 and "not empty" in ran.err
    assert {path: content for path, content in before.items() if path.read_bytes() != content} == {}


def test_keys_of_another_gateway_are_not_mixed_with_restored_ones(made: Path, elsewhere: CommandLine, tmp_path: Path) -> None:
    own = SigningKeys.open(tmp_path / "other").active_kid
    assert "not empty" in elsewhere("restore", str(made)).err
    assert [path.stem for path in (tmp_path / "other" / "keys").glob("*.json")] == [own]


def test_force_moves_aside_what_was_there(made: Path, home: Path, interlock: CommandLine) -> None:
    with (home / "audit.heads").open("a") as file:
        file.write("a later line\n")
    ran = interlock("restore", str(made), "--force", "--json")
    assert ran.code == 0, ran.err
    assert "a later line" not in (home / "audit.heads").read_text()
    assert "a later line" in (home / ran.json["replaced"] / "audit.heads").read_text()
    assert (home / f"interlock.db.{ran.json['replaced']}").stat().st_size > 0
    assert interlock("audit", "verify").code == 0


def test_a_running_gateway_keeps_its_home(made: Path, home: Path, interlock: CommandLine) -> None:
    with lock_home(home):
        ran = interlock("restore", str(made), "--force")
    assert ran.code == 1 and "another gateway runs" in ran.err


@pytest.mark.parametrize("name", ["home/audit.heads", "database/interlock.db"])
def test_a_changed_part_is_noticed(made: Path, elsewhere: CommandLine, tmp_path: Path, name: str) -> None:
    rewritten(made, lambda part, data: data[:-2] + b"!\n" if part == name else data)
    ran = elsewhere("restore", str(made))
    assert ran.code == 1 and f"damaged or was changed: {name}" in ran.err
    assert not (tmp_path / "other" / "interlock.db").exists() and not (tmp_path / "other" / "audit.heads").exists()


def test_a_file_that_does_not_exist_is_named(elsewhere: CommandLine) -> None:
    ran = elsewhere("restore", "nope.tar.gz")
    assert ran.code == 1 and "nope.tar.gz does not exist" in ran.err and "room" not in ran.err


def test_a_small_backup_is_measured_in_kilobytes(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    ran = interlock("backup", str(tmp_path / "small.tar.gz"))
    assert ran.code == 0 and " kB, " in ran.out and " 0.0 " not in ran.out


def test_an_archive_that_was_cut_off_is_refused(made: Path, elsewhere: CommandLine) -> None:
    made.write_bytes(made.read_bytes()[: made.stat().st_size // 2])
    assert "damaged" in elsewhere("restore", str(made)).err


def test_a_part_cannot_leave_the_home(made: Path, elsewhere: CommandLine) -> None:
    parts = json.loads(parts_of(made)["manifest.json"])["parts"]
    with_manifest(made, parts=[*parts, {"name": "home/../../escaped", "size": 0, "sha256": ""}])
    assert "damaged" in elsewhere("restore", str(made)).err


def test_a_backup_of_a_newer_version_is_refused(made: Path, elsewhere: CommandLine) -> None:
    with_manifest(made, revision="9999", version="7.0.0")
    ran = elsewhere("restore", str(made))
    assert ran.code == 1 and "7.0.0" in ran.err and "that version or a newer one" in ran.err


def test_an_audit_with_flaws_is_restored_on_request_only(
    interlock: CommandLine, home: Path, elsewhere: CommandLine, tmp_path: Path
) -> None:
    with sqlite3.connect(home / "interlock.db") as connection:
        connection.execute("UPDATE audit SET body = replace(body, 'bob', 'eve') WHERE seq = 3")
    connection.close()
    assert interlock("backup", str(tmp_path / "b.tar.gz")).code == 0
    ran = elsewhere("restore", str(tmp_path / "b.tar.gz"))
    assert ran.code == 1 and "not sound" in ran.err and not (tmp_path / "other" / "interlock.db").exists()
    assert elsewhere("restore", str(tmp_path / "b.tar.gz"), "--accept-flaws", "--json").json["sound"] is False


def test_a_sqlite_backup_is_not_restored_into_postgresql(made: Path, elsewhere: CommandLine) -> None:
    other = CommandLine({**elsewhere.environment, "INTERLOCK_DATABASE__URL": "postgresql://localhost/interlock"})
    ran = other("restore", str(made))
    assert ran.code == 1 and "database of SQLite" in ran.err


def test_a_missing_or_too_old_pg_dump_is_named(interlock: CommandLine, home: Path, postgres_url: str, tmp_path: Path) -> None:
    postgres = {**interlock.environment, "INTERLOCK_DATABASE__URL": postgres_url}
    missing = CommandLine({**postgres, "PATH": str(tmp_path)})("backup")
    assert missing.code == 1 and "pg_dump was not found" in missing.err and "postgresql-client" in missing.err
    older = CommandLine({**postgres, "PATH": path_with(OLDER)})("backup")
    assert older.code == 1 and "version mismatch" in older.err and "postgresql-client" in older.err


@pytest.fixture
def postgres(interlock: CommandLine, home: Path, postgres_databases: PostgresDatabases) -> Iterator[CommandLine]:
    """The command line with a migrated PostgreSQL database, whose audit is empty."""
    (home / "audit.heads").unlink()
    with postgres_databases.lend() as url:
        yield CommandLine({**interlock.environment, "INTERLOCK_DATABASE__URL": url, "PATH": path_with()})


def test_tables_that_are_there_move_to_a_schema_of_their_own(postgres: CommandLine, tmp_path: Path) -> None:
    file = str(tmp_path / "b.tar.gz")
    assert postgres("backup", file, "--without-keys").code == 0
    refused = postgres("restore", file)
    assert refused.code == 1 and "the database is not empty" in refused.err
    ran = postgres("restore", file, "--force", "--json")
    assert (ran.code, ran.err) == (0, "") and ran.json["replaced"].startswith("replaced-")
    assert postgres("audit", "verify", "--allow-empty").code == 0


def test_tables_stay_where_a_restoration_fails(postgres: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    assert postgres("backup", str(file), "--without-keys").code == 0
    with_manifest(file, audit={"a_1": 7})
    ran = postgres("restore", str(file), "--force")
    assert ran.code == 1 and "not that of its manifest" in ran.err
    assert postgres("audit", "verify", "--allow-empty").code == 0
