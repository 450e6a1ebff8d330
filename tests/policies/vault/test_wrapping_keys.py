"""Claims about the keys that seal the vault: nobody could guess them, others may not read them, and the newest seals."""

import base64
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from policies.keys.key_folder import KeyFolder, KeysUnusable
from policies.vault.envelope import EnvelopeEncryption
from policies.vault.wrapping_keys import VaultKeys, build_kek, decode_key, read_configured_keys
from tests.fakes.clock import Clock
from tests.fakes.disk import is_held, left_open, mode

PLACE = ("credential", "acme", "acme|idp|alice", "https://as", "https://crm/mcp")
RAW = bytes(range(100, 132))
GOOD = base64.b64encode(RAW).decode()


def test_the_last_two_keys_stay_and_so_does_one_that_is_in_use(tmp_path: Path) -> None:
    keys = VaultKeys.open(tmp_path)
    first = keys.active.id
    second, third, fourth = (keys.rotate().id for _ in range(3))
    assert keys.delete_old({second}) == [first]
    assert [kek.id for kek in keys.all] == [fourth, third, second]
    assert keys.delete_old(set()) == [second]


def test_files_are_closed_and_one_that_others_may_read_is_refused(tmp_path: Path) -> None:
    VaultKeys.open(tmp_path)
    folder = tmp_path / "keys" / "vault"
    (file,) = folder.glob("*.key")
    assert (mode(folder), mode(file)) == (0o700, 0o600)
    for given in (0o640, 0o604, 0o601):
        file.chmod(given)
        with pytest.raises(KeysUnusable, match="other users can read this key; run chmod 600"):
            VaultKeys.open(tmp_path)
    file.chmod(0o700)
    assert VaultKeys.open(tmp_path).active.id == file.stem


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "nonsense",
        '{"created": 1, "k": "AAAA"}',
        '{"created": 1, "k": 5}',
        f'{{"created": null, "k": "{GOOD}"}}',
        f'{{"created": "x", "k": "{GOOD}"}}',
    ],
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    VaultKeys.open(tmp_path)
    (file,) = (tmp_path / "keys" / "vault").glob("*.key")
    file.write_text(text)
    with pytest.raises(KeysUnusable) as refusal:
        VaultKeys.open(tmp_path)
    assert str(file) in str(refusal.value)


# attack ADM-06
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("changeme", "32 random bytes"),
        (base64.b64encode(RAW[:16]).decode(), "32 random bytes"),
        (base64.b64encode(RAW[:31]).decode(), "32 random bytes"),
        (base64.b64encode(RAW + b"x").decode(), "32 random bytes"),
        (base64.b64encode(bytes(32)).decode(), "not random"),
        (base64.b64encode(b"ab" * 16).decode(), "not random"),
        (base64.b64encode(b"correct-horse-battery-staple-9xZ").decode(), "not random"),
        ("%" * 44, "not base64"),
    ],
)
def test_a_key_that_somebody_could_guess_is_refused(text: str, why: str) -> None:
    with pytest.raises(KeysUnusable, match=why):
        read_configured_keys(["env:KEY"], lambda _: text)


@pytest.mark.parametrize(
    ("raw", "guessed"),
    [
        (bytes(range(200, 215)) + bytes(17), False),  # sixteen different bytes
        (bytes(range(200, 214)) + bytes(18), True),
        (bytes(range(32, 64)), True),  # all of them are written on keys
        (bytes(range(95, 127)), True),
        (bytes(range(31, 63)), False),
        (bytes(range(96, 128)), False),
    ],
)
def test_too_few_different_bytes_or_a_text_were_not_made_at_random(raw: bytes, guessed: bool) -> None:
    if guessed:
        with pytest.raises(KeysUnusable, match="not random"):
            build_kek(raw, 1, "here")
    else:
        assert build_kek(raw, 1, "here").created == 1


def test_a_key_has_the_same_name_wherever_it_is_given() -> None:
    assert (
        build_kek(RAW, 5, "here").id
        == sha256(b"interlock kek " + RAW).hexdigest()[:16]
        == read_configured_keys(["env:KEY"], lambda _: GOOD)[0].id
    )


@pytest.mark.parametrize("size", range(30, 36))
def test_a_key_is_read_in_either_alphabet_with_padding_or_without(size: int) -> None:
    raw = bytes(range(256 - size, 256))
    for text in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        assert decode_key(text, "here") == decode_key(text.rstrip("="), "here") == decode_key(f" {text}\n", "here") == raw


@pytest.mark.parametrize("text", ["%" * 44, "A" * 43 + "%", "A" * 20 + " " + "A" * 23, "A" * 41, "é" * 44])
def test_what_is_not_base64_is_no_key(text: str) -> None:
    with pytest.raises(KeysUnusable, match=r"^here: not base64"):
        decode_key(text, "here")


def test_a_place_that_holds_no_key_is_named(tmp_path: Path) -> None:
    asked: list[str] = []
    with pytest.raises(KeysUnusable, match=r"^vault\.keys: the variable KEY is empty"):
        read_configured_keys(["env:KEY"], lambda place: asked.append(place) or "")
    assert asked == ["env:KEY"]
    file = tmp_path / "kek"
    file.write_bytes(b"\xff" * 44)
    file.chmod(0o600)
    with pytest.raises(KeysUnusable, match=f"^vault.keys: {file}: not base64"):
        read_configured_keys([str(file)], str)


def test_an_operators_keys_are_used_instead_and_none_is_made(tmp_path: Path) -> None:
    file = tmp_path / "kek"
    file.write_text(base64.urlsafe_b64encode(os.urandom(32)).decode() + "\n")
    file.chmod(0o644)
    with pytest.raises(KeysUnusable, match="chmod 600"):
        read_configured_keys([str(file)], str)
    file.chmod(0o600)
    old = read_configured_keys(["env:KEY"], lambda _: GOOD)
    sealed = EnvelopeEncryption(VaultKeys.open(tmp_path, old)).seal(PLACE, b"secret")
    both = VaultKeys.open(tmp_path, read_configured_keys([str(file), "env:KEY"], lambda _: GOOD))
    assert both.active.id != old[0].id
    assert EnvelopeEncryption(both).open(PLACE, sealed) == b"secret"
    assert EnvelopeEncryption(both).rewrap(PLACE, sealed).kek_id == both.active.id
    assert not both.has_own_keys
    assert both.delete_old(set()) == []
    assert both.find("another") is None
    assert [kek.created for kek in both.all] == [0, 0]
    assert list((tmp_path / "keys" / "vault").glob("*.key")) == []
    with pytest.raises(KeysUnusable, match="No such file"):
        read_configured_keys([str(tmp_path / "missing")], str)


def test_a_key_does_not_show(tmp_path: Path) -> None:
    (kek,) = read_configured_keys(["env:KEY"], lambda _: GOOD)
    assert GOOD not in repr(kek)
    assert "AESGCM" not in repr(kek)


class CountedFolder(KeyFolder):
    """Counts how often it is looked at."""

    looks = 0

    def stamp(self) -> tuple[int, int]:
        self.looks += 1
        return super().stamp()


def test_keys_are_made_here_one_where_there_is_none(tmp_path: Path) -> None:
    keys = VaultKeys.open(tmp_path)
    assert keys.has_own_keys
    assert keys.all == (keys.active,)
    assert VaultKeys.open(tmp_path).active.id == keys.active.id
    assert keys.find(keys.active.id) is keys.active


def test_each_key_is_newer_than_all_before_it(tmp_path: Path) -> None:
    clock = Clock()
    keys = VaultKeys(KeyFolder(tmp_path), now=clock)
    begun = clock.us()
    keys.rotate()
    clock.now -= 3600
    newest = keys.rotate()
    assert [kek.created for kek in keys.all] == [begun + 2, begun + 1, begun]
    assert keys.active.id == newest.id == VaultKeys(KeyFolder(tmp_path), now=clock).active.id
    clock.now += 7200
    assert keys.rotate().created == clock.us()


def test_of_keys_of_one_moment_every_process_takes_the_same(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    for start in (0, 1, 2, 3):
        raw = bytes(range(200 + start, 232 + start))
        folder.write(f"{build_kek(raw, 7, '').id}.key", {"created": 7, "k": base64.b64encode(raw).decode()})
    keys = VaultKeys(folder)
    assert [kek.id for kek in keys.all] == sorted((kek.id for kek in keys.all), reverse=True)
    assert len(keys.all) == 4


def test_the_folder_is_read_once_a_second_and_at_once_for_a_missing_key(tmp_path: Path) -> None:
    clock, folder = Clock(), CountedFolder(tmp_path)
    keys = VaultKeys(folder, now=clock)
    begun, known = folder.looks, keys.active.id
    for passed, looks in ((0, 0), (0.75, 0), (0.25, 1), (0.75, 1), (0.25, 2), (-3600, 3), (0, 3)):
        clock.now += passed
        assert keys.active.id == known
        assert keys.find(known) is not None
        assert folder.looks - begun == looks
    assert keys.find("another") is None
    assert folder.looks - begun == 4


def test_a_key_that_was_made_elsewhere_seals_within_a_second(tmp_path: Path) -> None:
    clock = Clock()
    mine, theirs = (VaultKeys(KeyFolder(tmp_path), now=clock) for _ in range(2))
    old, new = mine.active.id, theirs.rotate().id
    assert mine.active.id == old
    clock.now += 1
    assert mine.active.id == new


def test_an_unchanged_folder_is_not_read_again(tmp_path: Path) -> None:
    clock = Clock()
    keys = VaultKeys(KeyFolder(tmp_path), now=clock)
    keys._read_files = lambda: pytest.fail("read again")  # type: ignore[method-assign]  # these alone
    clock.now += 1
    assert keys.active


def test_a_process_goes_on_with_what_it_read_until_it_can_read_again(tmp_path: Path) -> None:
    clock = Clock()
    mine, theirs = (VaultKeys(KeyFolder(tmp_path), now=clock) for _ in range(2))
    old, new = mine.active.id, theirs.rotate().id
    (tmp_path / f"{new}.key").chmod(0o644)
    clock.now += 1
    assert mine.active.id == old
    assert mine.find(new) is None
    (tmp_path / f"{new}.key").chmod(0o600)
    clock.now += 1
    assert mine.active.id == new
    for file in tmp_path.glob("*.key"):
        file.unlink()
    clock.now += 1
    assert mine.active.id == new
    assert mine.find("another") is None


class Locked(KeyFolder):
    """Takes no key from who has not locked it."""

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        assert is_held(self.path / "lock")
        super().write(name, document)


def test_one_process_at_a_time_makes_keys_and_leaves_no_file_open(tmp_path: Path) -> None:
    keys = VaultKeys(Locked(tmp_path))
    keys.rotate()
    keys.rotate()
    assert len(keys.delete_old(set())) == 1
    assert left_open(tmp_path) == []
    assert not is_held(tmp_path / "lock")
