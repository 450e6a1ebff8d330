"""The home folder is closed to others, or not used."""

import stat
from pathlib import Path

import pytest

from gateway.storage.files.data_folder import HomeWritableByOthers, prepare_home
from policies.keys.signing import SigningKeys


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_that_others_may_use_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("interlock.db", "interlock.db-wal", "audit.heads", "serving.json", "notes.txt"):
        (home / name).touch()
        (home / name).chmod(0o666)
    home.chmod(0o777)
    lock = prepare_home(home, "http://interlock.test", exclusive=True)
    assert lock is not None
    lock.close()
    assert mode(home) == 0o700
    assert {path.name: mode(path) for path in home.iterdir()} == {
        "interlock.db": 0o600,
        "interlock.db-wal": 0o600,
        "audit.heads": 0o600,
        "serving.json": 0o600,
        "lock": 0o600,
        "notes.txt": 0o666,  # not ours
    }


def test_a_folder_that_everybody_shares_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o1777)
    with pytest.raises(HomeWritableByOthers, match="folder of its own"):
        prepare_home(home, "http://interlock.test", exclusive=True)
    assert list(home.iterdir()) == []
    assert mode(home) == 0o1777


@pytest.mark.parametrize(("given", "refused"), [(0o777, True), (0o770, False)])
def test_a_folder_of_somebody_else_is_refused_where_all_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int, refused: bool
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(given)
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    if refused:
        with pytest.raises(HomeWritableByOthers):
            prepare_home(home, "http://interlock.test", exclusive=False)
    else:
        assert prepare_home(home, "http://interlock.test", exclusive=False) is None
        assert mode(home) == given


def test_a_folder_of_keys_that_others_may_use_is_closed(tmp_path: Path) -> None:
    kid = SigningKeys.open(tmp_path).active_kid
    (tmp_path / "keys").chmod(0o777)
    assert SigningKeys.open(tmp_path).active_kid == kid
    assert mode(tmp_path / "keys") == 0o700
