"""Claims about the folder of signing keys: who may look into it, what stands in its files, and that none is half written."""

import base64
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from policies.keys.key_folder import KeyFolder, KeysUnusable
from tests.fakes.disk import Synced, is_held, left_open, mode

PUBLIC = {"kty", "crv", "x", "y", "kid", "alg", "use"}


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "home" / "keys")


def files(folder: KeyFolder) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.path.glob("*.json"))}


def test_a_folder_that_is_made_was_never_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "chmod", refused)  # nothing is left to close
    assert mode(KeyFolder(tmp_path / "a" / "b").path) == 0o700
    assert KeyFolder(tmp_path / "a" / "b").read() == []


@pytest.mark.parametrize("given", [0o777, 0o710, 0o702, 0o601, 0o670])
def test_a_folder_that_others_may_use_is_closed(tmp_path: Path, given: int) -> None:
    tmp_path.chmod(given)
    KeyFolder(tmp_path)
    assert mode(tmp_path) == 0o700


def test_a_folder_that_nobody_else_may_use_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    KeyFolder(tmp_path)
    assert mode(tmp_path) == 0o500


def refused(path: Path, mode: int) -> None:
    raise PermissionError(1, "Operation not permitted", str(path))


def test_a_folder_of_somebody_else_that_all_may_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(Path, "chmod", refused)
    with pytest.raises(KeysUnusable, match="run chmod 700"):
        KeyFolder(tmp_path)


def test_a_key_is_named_by_its_thumbprint(folder: KeyFolder) -> None:
    """RFC 7638"""
    folder.create(7)
    ((name, document),) = files(folder).items()
    named = f'{{"crv":"P-256","kty":"EC","x":"{document["x"]}","y":"{document["y"]}"}}'
    assert document["kid"] == base64.urlsafe_b64encode(sha256(named.encode()).digest()).rstrip(b"=").decode()
    assert name == f"{document['kid']}.json"
    assert set(document) == {*PUBLIC, "d", "created"}
    assert (document["alg"], document["use"], document["created"]) == ("ES256", "sig", 7)


def test_a_replaced_key_has_no_secret_any_more_and_says_since_when(folder: KeyFolder) -> None:
    folder.create(7)
    (stored,) = folder.read()
    folder.retire(stored, 12.5)
    ((name, document),) = files(folder).items()
    assert name == f"{stored.vetted.kid}.json"
    assert document == {**stored.public, "created": 7, "retired": 12.5}
    assert set(stored.public) == PUBLIC


def test_keys_are_read_the_one_that_signs_last(folder: KeyFolder) -> None:
    for created in (5, 9, 1, 9):
        folder.create(created)
    newest = folder.read()[-1]
    assert [key.created for key in folder.read()] == [1, 5, 9, 9]
    assert newest.vetted.kid == max(key.vetted.kid for key in folder.read() if key.created == 9)
    folder.retire(newest, 1.0)
    first, *others = folder.read()
    assert (first.vetted.kid, first.secret, first.retired_at) == (newest.vetted.kid, None, 1.0)
    assert [(key.created, key.secret is None, key.retired_at) for key in others] == [(1, False, None), (5, False, None), (9, False, None)]


def test_where_every_secret_half_is_gone_nothing_is_made_up(folder: KeyFolder) -> None:
    folder.create(1)
    folder.retire(folder.read()[0], 2.0)
    with pytest.raises(KeysUnusable, match="no key with a secret half"):
        folder.read()


def test_the_stamp_changes_with_each_key_that_is_made_or_replaced(folder: KeyFolder) -> None:
    stamps = [folder.stamp()]
    folder.create(1)
    stamps.append(folder.stamp())
    os.utime(folder.path, ns=(1, stamps[0][0]))  # within one tick of the file system's clock
    assert folder.stamp() != stamps[0]
    os.utime(folder.path, ns=(1, 5))
    assert folder.stamp() != stamps[1]
    with pytest.raises(OSError, match="gone"):
        KeyFolder.stamp(Missing(folder.path / "gone"))


class Missing(KeyFolder):
    def __init__(self, path: Path) -> None:
        self.path = path


def test_what_is_written_is_durable_before_it_is_there(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = Synced()
    monkeypatch.setattr(os, "fsync", synced)
    folder.write("a.json", {"a": 1, "b": 2})
    assert synced.seen == [b'{"a":1,"b":2}', {"a.json"}]
    assert mode(folder.path / "a.json") == 0o600


def test_a_number_that_json_lacks_is_not_written(folder: KeyFolder) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write("a.json", {"a": float("nan")})
    assert files(folder) == {}


def test_what_an_interrupted_writing_left_is_written_over(folder: KeyFolder) -> None:
    (folder.path / "a.new").write_text('{"much longer than what":')
    (folder.path / "a.new").chmod(0o666)
    folder.write("a.json", {"a": 1})
    assert [path.name for path in folder.path.iterdir()] == ["a.json"]
    assert (mode(folder.path / "a.json"), files(folder)) == (0o600, {"a.json": {"a": 1}})


def test_one_at_a_time_makes_keys(folder: KeyFolder) -> None:
    with folder.lock():
        assert is_held(folder.path / "lock")
        assert mode(folder.path / "lock") == 0o600
    assert not is_held(folder.path / "lock")
    with pytest.raises(KeyError), folder.lock():
        raise KeyError
    assert not is_held(folder.path / "lock")


def test_no_file_stays_open(folder: KeyFolder) -> None:
    with folder.lock():
        assert left_open(folder.path) == ["lock"]
        folder.create(1)
    folder.read()
    assert left_open(folder.path) == []


def test_others_may_read_the_public_half_alone(folder: KeyFolder) -> None:
    folder.create(1)
    folder.create(2)
    old, new = folder.read()
    folder.retire(old, 3.0)
    (folder.path / f"{old.vetted.kid}.json").chmod(0o644)
    assert len(folder.read()) == 2
    for given in (0o640, 0o604, 0o601):
        (folder.path / f"{new.vetted.kid}.json").chmod(given)
        with pytest.raises(KeysUnusable, match="run chmod 600"):
            folder.read()
    (folder.path / f"{new.vetted.kid}.json").chmod(0o700)
    assert len(folder.read()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"created": "soon"},
        {"created": None},
        {"kid": ""},
        {"kid": 5},
        {"alg": "HS256"},
        {"crv": "P-384"},
        {"kty": "oct"},
        {"use": "enc"},
        {"x": "AAAA"},
        {"d": "!"},
        {"d": 5},
    ],
)
def test_a_file_that_was_changed_is_named_and_refused(folder: KeyFolder, change: dict[str, Any]) -> None:
    folder.create(1)
    ((name, document),) = files(folder).items()
    folder.write(name, {**document, **change})
    with pytest.raises(KeysUnusable, match="not a key that the gateway wrote") as refusal:
        folder.read()
    assert name in str(refusal.value)


@pytest.mark.parametrize("member", sorted({*PUBLIC, "created"}))
def test_a_file_that_lacks_a_member_is_refused(folder: KeyFolder, member: str) -> None:
    folder.create(1)
    ((name, document),) = files(folder).items()
    folder.write(name, {key: value for key, value in document.items() if key != member})
    with pytest.raises(KeysUnusable, match="not a key that the gateway wrote"):
        folder.read()


def test_a_secret_does_not_show(folder: KeyFolder) -> None:
    folder.create(1)
    ((_, document),) = files(folder).items()
    assert "secret" not in repr(folder.read()[0])
    assert document["d"] not in repr(folder.read()[0])
