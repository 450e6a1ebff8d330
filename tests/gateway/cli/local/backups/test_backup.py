"""backup and restore: what they refuse, keep private, and leave as it was."""

import gzip
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
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


def with_members(file: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes the archive anew with these members."""
    with gzip.open(file, "wb") as packed, tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def rewritten(file: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Writes the archive anew with parts that `change` returns."""
    with_members(file, [(name, change(name, data)) for name, data in parts_of(file).items()])


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
    assert refused.code == 1 and "passphrase" in refused.err and not (tmp_path / "other").exists()
    assert elsewhere("restore", str(file), "--passphrase-file", str(right), "--json").json["authentic"] is True
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
    assert not (tmp_path / "other").exists()


def test_a_failed_restoration_leaves_no_new_lock_or_folder(made: Path, elsewhere: CommandLine, tmp_path: Path) -> None:
    with_manifest(made, audit={"a_1": 7})
    url = f"sqlite:///{tmp_path / 'data' / 'deep' / 'x.db'}"
    ran = CommandLine({**elsewhere.environment, "INTERLOCK_DATABASE__URL": url})("restore", str(made))
    assert ran.code == 1 and "not that of its manifest" in ran.err
    assert not (tmp_path / "other").exists() and not (tmp_path / "data").exists()


def test_a_failed_restoration_leaves_an_empty_home_empty(made: Path, elsewhere: CommandLine, tmp_path: Path) -> None:
    with_manifest(made, audit={"a_1": 7})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".restoring-killed").mkdir()  # by a restoration that was killed
    assert elsewhere("restore", str(made)).code == 1
    assert [*(tmp_path / "other").iterdir()] == []


def test_files_are_moved_back_where_one_of_them_has_no_place(
    made: Path, home: Path, interlock: CommandLine, elsewhere: CommandLine
) -> None:
    (home / "notes.txt").write_text("of the operator")
    file, other = made.with_name("notes.tar.gz"), made.parent / "other"
    assert interlock("backup", str(file)).code == 0
    (other / "notes.txt").mkdir(parents=True)
    (other / "audit.heads").write_text("of another gateway")
    ran = elsewhere("restore", str(file), "--force")
    assert ran.code == 1 and "notes.txt" in ran.err
    assert {path.name for path in other.rglob("*")} == {"notes.txt", "audit.heads"}
    assert (other / "audit.heads").read_text() == "of another gateway"


def test_an_archive_is_read_whole_before_the_home_is_touched(made: Path, home: Path, interlock: CommandLine) -> None:
    rewritten(made, lambda part, data: data[:-2] + b"!\n" if part == "database/interlock.db" else data)
    with lock_home(home):
        ran = interlock("restore", str(made), "--force")
    assert ran.code == 1 and "damaged or was changed: database/interlock.db" in ran.err


def test_a_backup_makes_no_folder(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    ran = interlock("backup", str(tmp_path / "unmounted" / "b.tar.gz"))
    assert ran.code == 1 and "unmounted does not exist" in ran.err and "mkdir -p" in ran.err
    assert not (tmp_path / "unmounted").exists()


def test_a_file_that_does_not_exist_is_named(elsewhere: CommandLine) -> None:
    ran = elsewhere("restore", "nope.tar.gz")
    assert ran.code == 1 and "nope.tar.gz does not exist" in ran.err and "room" not in ran.err


def test_a_small_backup_is_measured_in_kilobytes(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    ran = interlock("backup", str(tmp_path / "small.tar.gz"))
    assert ran.code == 0 and " kB, " in ran.out and " 0.0 " not in ran.out


def test_an_archive_that_was_cut_off_is_refused(made: Path, elsewhere: CommandLine) -> None:
    made.write_bytes(made.read_bytes()[: made.stat().st_size // 2])
    assert "damaged" in elsewhere("restore", str(made)).err


@pytest.mark.parametrize(
    "name",
    [
        "home/../../escaped",
        "home//etc/passwd",
        "home/lock",
        "home/interlock.db",
        "home/keys/planted.json",
        "secrets/audit.heads",
        "database/other.db",
        "home/a\x1b[2Jb",
        "manifest.json",
        "public-keys.json",
    ],
)
def test_a_part_that_no_backup_has_is_refused(made: Path, elsewhere: CommandLine, tmp_path: Path, name: str) -> None:
    parts = json.loads(parts_of(made)["manifest.json"])["parts"]
    with_manifest(made, parts=[*parts, {"name": name, "size": 0, "sha256": sha256(b"").hexdigest()}])
    with_members(made, [*parts_of(made).items(), (name, b"")])
    ran = elsewhere("restore", str(made))
    assert ran.code == 1 and "damaged or was changed" in ran.err and "\x1b" not in ran.err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("suffix", ["-journal", "-wal"])
def test_no_log_from_a_backup_stays_beside_the_restored_database(made: Path, elsewhere: CommandLine, tmp_path: Path, suffix: str) -> None:
    """SQLite would write its pages into the database at the next start, after the audit was verified."""
    name, content = f"home/own.db{suffix}", b"pages"
    parts = json.loads(parts_of(made)["manifest.json"])["parts"]
    with_manifest(made, parts=[*parts, {"name": name, "size": len(content), "sha256": sha256(content).hexdigest()}])
    with_members(made, [*parts_of(made).items(), (name, content)])
    database = tmp_path / "other/own.db"
    own = CommandLine({**elsewhere.environment, "INTERLOCK_DATABASE__URL": f"sqlite:///{database}"})
    assert own("restore", str(made)).code == 0
    assert database.exists() and not database.with_name(f"own.db{suffix}").exists()


def test_a_backup_without_a_database_is_refused(made: Path, elsewhere: CommandLine) -> None:
    parts = [part for part in json.loads(parts_of(made)["manifest.json"])["parts"] if not part["name"].startswith("database/")]
    with_manifest(made, parts=parts)
    assert "damaged or was changed: database/interlock.db" in elsewhere("restore", str(made)).err


def test_a_backup_that_unpacks_to_more_than_the_disk_is_refused_at_once(made: Path, elsewhere: CommandLine, tmp_path: Path) -> None:
    parts = json.loads(parts_of(made)["manifest.json"])["parts"]
    with_manifest(made, parts=[{**part, "size": 1 << 60} if part["name"].startswith("database/") else part for part in parts])
    ran = elsewhere("restore", str(made))
    assert ran.code == 1 and "MB free" in ran.err and not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_would_fill_the_memory_are_refused_unread(made: Path, elsewhere: CommandLine, kind: bytes) -> None:
    text = "x" * 99_985
    content = b"manifest.json".ljust(100_000, b"\0") if kind == tarfile.GNUTYPE_LONGNAME else f"100000 comment={text}\n".encode()[:100_000]
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, len(content)
    members = gzip.decompress(made.read_bytes())
    made.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + content.ljust(100_352, b"\0") + members, 1))
    ran = elsewhere("restore", str(made))
    assert ran.code == 1 and "damaged, cut off, or not a backup" in ran.err


def test_a_database_with_a_trigger_is_refused(interlock: CommandLine, home: Path, elsewhere: CommandLine, tmp_path: Path) -> None:
    with sqlite3.connect(home / "interlock.db") as connection:
        connection.execute("CREATE TRIGGER planted AFTER INSERT ON audit BEGIN DELETE FROM grants; END")
    connection.close()
    assert interlock("backup", str(tmp_path / "b.tar.gz")).code == 0
    ran = elsewhere("restore", str(tmp_path / "b.tar.gz"))
    assert ran.code == 1 and "has a trigger" in ran.err


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")
    return str(tmp_path / "passphrase")


@pytest.fixture
def sealed(interlock: CommandLine, home: Path, tmp_path: Path, passphrase: str) -> Path:
    """A backup without keys that is sealed."""
    file = tmp_path / "sealed.tar.gz"
    assert interlock("backup", str(file), "--without-keys", "--passphrase-file", passphrase, "--json").json["sealed"] is True
    return file


def test_a_forged_part_breaks_the_seal(sealed: Path, elsewhere: CommandLine, passphrase: str, tmp_path: Path) -> None:
    parts = json.loads(parts_of(sealed)["manifest.json"])["parts"]
    forged = [
        {**part, "size": 7, "sha256": sha256(b"forged\n").hexdigest()} if part["name"] == "home/audit.heads" else part for part in parts
    ]
    with_manifest(sealed, parts=forged)
    rewritten(sealed, lambda name, data: b"forged\n" if name == "home/audit.heads" else data)
    ran = elsewhere("restore", str(sealed), "--passphrase-file", passphrase, "--accept-flaws")
    assert ran.code == 1 and "the backup was changed" in ran.err and not (tmp_path / "other").exists()


def test_a_passphrase_is_never_ignored(sealed: Path, elsewhere: CommandLine, passphrase: str) -> None:
    with_members(sealed, [(name, data) for name, data in parts_of(sealed).items() if name != "manifest.seal"])
    ran = elsewhere("restore", str(sealed), "--passphrase-file", passphrase, "--accept-flaws")
    assert ran.code == 1 and "its seal was removed" in ran.err


def test_a_seal_without_its_passphrase_is_left_unchecked_on_request_only(sealed: Path, elsewhere: CommandLine) -> None:
    ran = elsewhere("restore", str(sealed))
    assert ran.code == 1 and "sealed with a passphrase" in ran.err and "--accept-flaws" in ran.err
    assert elsewhere("restore", str(sealed), "--accept-flaws", "--json").json["authentic"] is False


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
    assert ran.code == 1 and "not sound" in ran.err and not (tmp_path / "other").exists()
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
