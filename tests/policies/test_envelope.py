"""Claims about sealed secrets: they open in their own place, by keys that nobody could guess, and outlive a change of keys."""

import base64
import os
from pathlib import Path

import pytest

from policies.envelope import CannotOpen, Envelope, Sealed
from policies.key_folder import KeysUnusable
from policies.vault_keys import VaultKeys, given_keys

PLACE = ("credential", "acme", "acme|idp|alice", "https://as", "https://crm/mcp")
GOOD = base64.b64encode(bytes(range(100, 132))).decode()


def envelope(home: Path) -> Envelope:
    return Envelope(VaultKeys.open(home))


def test_what_was_sealed_is_opened_by_another_process(tmp_path: Path) -> None:
    sealed = envelope(tmp_path).seal(PLACE, b"secret")
    assert "secret" not in "".join(sealed)
    assert envelope(tmp_path).open(PLACE, sealed) == b"secret"


@pytest.mark.parametrize("position", range(len(PLACE)))
def test_a_secret_opens_in_its_own_row_alone(tmp_path: Path, position: int) -> None:
    box = envelope(tmp_path)
    sealed = box.seal(PLACE, b"secret")
    other = (*PLACE[:position], "x", *PLACE[position + 1 :])
    for place in (other, PLACE[:-1], (*PLACE, ""), ("|".join(PLACE),)):
        with pytest.raises(CannotOpen):
            box.open(place, sealed)


def test_each_layer_is_bound_to_the_row(tmp_path: Path) -> None:
    box = envelope(tmp_path)
    mine, theirs = box.seal(PLACE, b"mine"), box.seal(("other",), b"theirs")
    for mixed in (mine._replace(wrapped=theirs.wrapped), mine._replace(body=theirs.body), Sealed(mine.kek_id, theirs.wrapped, theirs.body)):
        with pytest.raises(CannotOpen):
            box.open(PLACE, mixed)


def test_an_edit_is_found(tmp_path: Path) -> None:
    box = envelope(tmp_path)
    sealed = box.seal(PLACE, b"secret")
    flipped = "A" if sealed.body[20] != "A" else "B"
    for bad in (
        sealed._replace(body=sealed.body[:20] + flipped + sealed.body[21:]),
        sealed._replace(body="%"),
        sealed._replace(kek_id="x"),
    ):
        with pytest.raises(CannotOpen):
            box.open(PLACE, bad)


def test_each_writing_has_a_key_of_its_own(tmp_path: Path) -> None:
    box = envelope(tmp_path)
    first, second = box.seal(PLACE, b"same"), box.seal(PLACE, b"same")
    assert first.body != second.body
    with pytest.raises(CannotOpen):
        box.open(PLACE, first._replace(wrapped=second.wrapped))


def test_a_new_key_wraps_anew_and_leaves_the_body(tmp_path: Path) -> None:
    keys = VaultKeys.open(tmp_path)
    box, elsewhere = Envelope(keys), envelope(tmp_path)
    sealed = box.seal(PLACE, b"secret")
    fresh = keys.rotate()
    moved = box.rewrapped(PLACE, sealed)
    assert (moved.kek_id, moved.body) == (fresh.id, sealed.body)
    assert elsewhere.open(PLACE, moved) == b"secret"  # a process that runs learns of the key at once
    assert elsewhere.open(PLACE, sealed) == b"secret"
    assert box.rewrapped(PLACE, moved) is moved
    with pytest.raises(CannotOpen):
        box.rewrapped(("other",), sealed)


def test_the_last_two_keys_stay_and_so_does_one_that_is_in_use(tmp_path: Path) -> None:
    keys = VaultKeys.open(tmp_path)
    first = keys.active.id
    second, third, fourth = (keys.rotate().id for _ in range(3))
    assert keys.drop_old({second}) == [first]
    assert [kek.id for kek in keys.all] == [fourth, third, second]
    assert keys.drop_old(set()) == [second]


def test_a_text_that_was_never_sealed_is_itself(tmp_path: Path) -> None:
    box = envelope(tmp_path)
    assert box.open_text(PLACE, "plain") == "plain"
    sealed = box.seal_text(PLACE, "plain")
    assert "plain" not in sealed
    assert box.open_text(PLACE, sealed) == box.open_text(PLACE, box.rewrapped_text(PLACE, "plain")) == "plain"
    with pytest.raises(CannotOpen):
        box.open_text(PLACE, "sealed:x.y")


def test_files_are_closed_and_one_that_others_may_read_is_refused(tmp_path: Path) -> None:
    VaultKeys.open(tmp_path)
    folder = tmp_path / "keys" / "vault"
    (file,) = folder.glob("*.key")
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    file.chmod(0o640)
    with pytest.raises(KeysUnusable, match="others may read this key; run chmod 600"):
        VaultKeys.open(tmp_path)


@pytest.mark.parametrize("text", ['{"created": 1, "k": "AAAA"}', "{}", "nonsense", '{"created": 1, "k": 5}'])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    VaultKeys.open(tmp_path)
    (file,) = (tmp_path / "keys" / "vault").glob("*.key")
    file.write_text(text)
    with pytest.raises(KeysUnusable):
        VaultKeys.open(tmp_path)


# attack ADM-06
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("changeme", "32 random bytes"),
        (base64.b64encode(bytes(16)).decode(), "32 random bytes"),
        (base64.b64encode(bytes(32)).decode(), "not made at random"),
        (base64.b64encode(b"ab" * 16).decode(), "not made at random"),
        (base64.b64encode(b"correct-horse-battery-staple-9xZ").decode(), "not made at random"),
        ("%" * 44, "not base64"),
    ],
)
def test_a_key_that_somebody_could_guess_is_refused(text: str, why: str) -> None:
    with pytest.raises(KeysUnusable, match=why):
        given_keys(["env:KEY"], lambda _: text)


def test_an_operators_keys_are_used_instead_and_none_is_made(tmp_path: Path) -> None:
    file = tmp_path / "kek"
    file.write_text(base64.urlsafe_b64encode(os.urandom(32)).decode() + "\n")
    file.chmod(0o644)
    with pytest.raises(KeysUnusable, match="chmod 600"):
        given_keys([str(file)], str)
    file.chmod(0o600)
    old = given_keys(["env:KEY"], lambda _: GOOD)
    sealed = Envelope(VaultKeys.open(tmp_path, old)).seal(PLACE, b"secret")
    both = VaultKeys.open(tmp_path, given_keys([str(file), "env:KEY"], lambda _: GOOD))
    assert both.active.id != old[0].id
    assert Envelope(both).open(PLACE, sealed) == b"secret"
    assert Envelope(both).rewrapped(PLACE, sealed).kek_id == both.active.id
    assert not both.rotates
    assert list((tmp_path / "keys" / "vault").glob("*.key")) == []
    with pytest.raises(KeysUnusable, match="No such file"):
        given_keys([str(tmp_path / "missing")], str)


def test_a_key_does_not_show(tmp_path: Path) -> None:
    (kek,) = given_keys(["env:KEY"], lambda _: GOOD)
    assert GOOD not in repr(kek)
    assert "AESGCM" not in repr(kek)
