"""A lock file may be removed by its holder, and still excludes all others."""

import fcntl
from pathlib import Path
from typing import IO

import pytest

from gateway.storage.files.file_locks import FileLocked, lock_file


def test_a_second_holder_learns_who_the_first_is(tmp_path: Path) -> None:
    with lock_file(tmp_path / "lock") as lock:
        lock.write("process 7")
        lock.flush()
        with pytest.raises(FileLocked) as refused:
            lock_file(tmp_path / "lock")
    assert refused.value.holder == "process 7"
    lock_file(tmp_path / "lock").close()


def test_a_lock_of_a_removed_file_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fcntl.flock, list[int]()

    def flock(lock: IO[str], how: int) -> None:
        real(lock, how)
        calls.append(how)
        if len(calls) == 1:  # between opening and locking, the holder has removed the file and ended
            (tmp_path / "lock").unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_file(tmp_path / "lock"), pytest.raises(FileLocked):
        lock_file(tmp_path / "lock")
    assert len(calls) == 2
