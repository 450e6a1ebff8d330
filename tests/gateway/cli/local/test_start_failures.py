"""What prevents a start: whether trying again can help, by the error, and what a person does about it."""

import errno
import json
import os
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from gateway.server.composition.storage import check_revision
from gateway.storage.database import Database, engine_for
from gateway.storage.database_start import describe_unusable
from gateway.storage.files.data_folder import HomeInUse, HomeWritableByOthers
from gateway.storage.files.start_failures import describe_start_failure
from policies.cedar.engine import BadPolicy
from policies.keys.key_folder import KeysUnusable
from tests.fakes.ports import free_port
from tests.gateway.cli.conftest import CommandLine


def os_error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("error", "may_pass", "todo"),
    [
        (os_error(errno.EACCES, "/srv/home"), False, "run this as the user of the gateway"),
        (os_error(errno.EROFS, "/srv/home/lock"), False, "mount the file system for writing"),
        (os_error(errno.EEXIST, "/srv/home"), False, "set it to a folder"),
        (os_error(errno.ENOTDIR, "/srv/home"), False, "set it to a folder"),
        (os_error(errno.EISDIR, "/srv/home/audit.heads"), False, ""),
        (os_error(errno.ENOENT, "/srv/home"), True, "set it to a folder"),  # the disk may be mounted later
        (os_error(errno.ENOSPC, "/srv/home/serving.json"), True, ""),
        (OSError(errno.EMFILE, "too many open files"), True, "interlock check"),
        (HomeWritableByOthers("/srv/home: every user may write there"), False, "chmod 700 /srv/home"),
        (HomeInUse("another gateway runs on /srv/home"), True, "stop the other one"),
        (KeysUnusable("key.json is no key"), False, "from a backup"),
        (BadPolicy("a.cedar", "unexpected end of input", 1), False, "correct the file"),
    ],
)
def test_an_error_says_whether_a_later_start_can_succeed(error: Exception, may_pass: bool, todo: str) -> None:
    found = describe_start_failure(error, Path("/srv/home"))
    assert found.may_pass is may_pass and todo in found.todo and found.problem


def test_a_file_in_the_home_that_can_not_be_used_is_named_itself(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    found = describe_start_failure(os_error(errno.ENOTDIR, str(tmp_path / "home" / "keys")), tmp_path / "home")
    assert found.problem.startswith(f"{tmp_path / 'home' / 'keys'} can't be used") and "INTERLOCK_HOME" not in found.problem


def test_a_wrong_policy_is_named_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text("permit(")
    places = (Path("/srv/home"), str(tmp_path))
    assert describe_start_failure(BadPolicy("a.cedar", "is wrong", 1), *places).problem == f"{tmp_path}/a.cedar:1: is wrong"
    assert describe_start_failure(BadPolicy("roles", "is wrong"), *places).problem == "roles: is wrong"


@pytest.mark.parametrize(
    ("url", "message", "may_pass"),
    [
        ("sqlite:///x.db", "file is not a database", False),
        ("sqlite:///x.db", "database disk image is malformed", False),
        ("sqlite:///x.db", "unable to open database file", False),
        ("sqlite:///x.db", "attempt to write a readonly database", False),
        ("sqlite:///x.db", "database or disk is full", True),
        ("sqlite:///x.db", "disk I/O error", True),
        ("sqlite:///x.db", "database is locked", True),
        ("postgresql://h/x", 'connection failed: FATAL:  database "x" does not exist', False),
        ("postgresql://h/x", 'connection failed: FATAL:  role "x" does not exist', False),
        ("postgresql://h/x", 'connection failed: FATAL:  password authentication failed for user "x"', False),
        ("postgresql://h/x", "connection failed: Connection refused", True),
        ("postgresql://h/x", "connection failed: FATAL:  the database system is starting up", True),
        ("postgresql://h/x", "connection failed: [Errno -2] Name or service not known", True),
    ],
)
def test_a_database_says_whether_a_later_start_can_succeed(url: str, message: str, may_pass: bool) -> None:
    engine = engine_for(url)
    try:
        assert describe_unusable(engine, OperationalError("SELECT 1", {}, Exception(message))).may_pass is may_pass
    finally:
        engine.dispose()


def _newer_database(home: Path) -> None:
    engine = engine_for(f"sqlite:///{home / 'interlock.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE schema_bounds SET usable_from = '9999'"))
    engine.dispose()


def _damaged_database(home: Path) -> None:
    (home / "interlock.db").write_bytes(b"no database" * 500)


def _keys_are_a_file(home: Path) -> None:
    (home / "keys").write_text("")


def _file_in_place_of_home(home: Path) -> None:
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    home.write_text("")


@pytest.mark.parametrize("spoil", [_newer_database, _damaged_database, _keys_are_a_file, _file_in_place_of_home])
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_start_that_no_retry_can_mend_ends_with_78(interlock: CommandLine, tmp_path: Path, spoil: object, command: str) -> None:
    assert callable(spoil)
    assert interlock("migrate").code == 0
    spoil(tmp_path / "home")
    if command == "migrate" and spoil is _keys_are_a_file:
        return  # a migration reads no keys
    ran = interlock(command, *(["--port", str(free_port())] if command == "serve" else []))
    assert ran.code == 78
    checked = interlock("check", "--json")
    assert checked.code == 1 and not checked.json["ok"]


def test_a_database_that_a_server_does_not_have_ends_with_78(interlock: CommandLine, postgres_url: str) -> None:
    interlock.environment["INTERLOCK_DATABASE__URL"] = (
        postgres_url.replace("?", "-none?") if "?" in postgres_url else f"{postgres_url}-none"
    )
    for command in (("serve", "--port", str(free_port())), ("migrate",)):
        ran = interlock(*command)
        assert ran.code == 78 and "does not exist" in ran.err, ran.err


def test_a_log_gets_what_prevents_the_start(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("port: many\n")
    line, *text_lines = interlock("serve").err.splitlines()
    found = json.loads(line)
    assert (found["level"], found["event"]) == ("error", "start_failed")
    assert found["problem"] == text_lines[0] and found["todo"] == text_lines[1]


def test_a_newer_database_on_which_this_version_works_is_a_row_of_check_alone(interlock: CommandLine, tmp_path: Path) -> None:
    interlock("migrate")
    engine = engine_for(f"sqlite:///{tmp_path / 'home' / 'interlock.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database = Database(engine)
    with capture_logs() as lines:
        ran = interlock("check", "--json")
        assert check_revision(database) == "9999"
    database.close()
    (found,) = [one for one in ran.json["checks"] if one["name"] == "database"]
    assert found["ok"] and "at 9999, on which this version" in found["detail"] and lines == []
