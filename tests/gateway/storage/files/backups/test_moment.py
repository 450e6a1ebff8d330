"""A backup is of one moment, whatever is written while it is made."""

import sqlite3
from pathlib import Path

from sqlalchemy import text

from gateway.storage.database import engine_for
from gateway.storage.files.backups import home_files, sqlite_copy
from policies.audit.heads import HeadsFile, read_heads
from policies.audit.log import ChainHead
from policies.keys.signing import SigningKeys


def test_commits_while_a_database_is_copied_neither_wait_nor_restart_it(light_url: str, tmp_path: Path) -> None:
    engine, reports = engine_for(light_url), list[int]()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (body TEXT)"))
        connection.execute(text("INSERT INTO notes VALUES (:body)"), [{"body": "x" * 2000}] * 20000)

    def write_and_note(done: int, _total: int) -> None:
        reports.append(done)
        with engine.begin() as writer:
            writer.execute(text("INSERT INTO notes VALUES ('late')"))

    with engine.connect() as connection:
        reader = connection.execution_options(interlock_read=True)
        assert reader.execute(text("SELECT count(*) FROM notes")).scalar() == 20000
        sqlite_copy.copy_database(reader, tmp_path / "copy.db", write_and_note)
    engine.dispose()
    assert len(reports) > 3 and reports == sorted(reports)
    sqlite_copy.check_copy(tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT count(*), sum(body = 'late') FROM notes").fetchone() == (20000, 0)
    copy.close()


def test_heads_after_the_moment_are_left_out_and_new_chains_are_not(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    heads = HeadsFile(tmp_path / "audit.heads", keys, lambda: 1)
    first = heads.write_head(ChainHead("a_1", 3, "h3"))
    before = read_heads(tmp_path / "audit.heads")
    heads.write_head(ChainHead("a_1", 9, "h9"))
    begun = heads.write_head(ChainHead("a_2", 1, "h1"))
    assert home_files.heads_at(before, tmp_path, {"a_1": 5, "a_2": 1}, keys) == [first, begun]


def test_records_spooled_meanwhile_are_there_once() -> None:
    assert home_files.merge_lines(b"one\ntwo\n", b"two\nthree\n") == b"one\ntwo\nthree\n"
