"""Claims about sealed secrets: they open in their own place, by keys that nobody could guess, and outlive a change of keys."""

import base64
from pathlib import Path

import pytest

from policies.vault.envelope import CannotOpen, EnvelopeEncryption, SealedSecret
from policies.vault.wrapping_keys import VaultKeys, read_configured_keys

PLACE = ("credential", "acme", "acme|idp|alice", "https://as", "https://crm/mcp")
GOOD = base64.b64encode(bytes(range(100, 132))).decode()


EARLIER = SealedSecret(  # at PLACE with another tenant, by the key GOOD
    "f76427177aab40d8",
    "BFu7atDHakBI0jEOy4YL-ENufcaCWxGLxjJRSLgMoQSqsSFyMghnOGc3CQ0SHo_dugXvCEIT9GdROdjc",
    "89JRIk-c6rOOKciE3yoAkAJ2lNNMyi6IaPtnFcvOwTnXMQ==",
)


def envelope(home: Path) -> EnvelopeEncryption:
    return EnvelopeEncryption(VaultKeys.open(home))


def test_what_was_sealed_is_opened_by_another_process(tmp_path: Path) -> None:
    sealed = envelope(tmp_path).seal(PLACE, b"secret")
    assert "secret" not in "".join(sealed)
    assert envelope(tmp_path).open(PLACE, sealed) == b"secret"


def test_what_an_earlier_version_sealed_is_opened(tmp_path: Path) -> None:
    box = EnvelopeEncryption(VaultKeys.open(tmp_path, read_configured_keys(["env:KEY"], lambda _: GOOD)))
    assert box.open(("credential", "acmé", *PLACE[2:]), EARLIER) == b"secret"
    assert box.open_text(("credential", "acmé", *PLACE[2:]), "sealed:" + ".".join(EARLIER)) == "secret"


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
    for mixed in (
        mine._replace(wrapped=theirs.wrapped),
        mine._replace(body=theirs.body),
        SealedSecret(mine.kek_id, theirs.wrapped, theirs.body),
    ):
        with pytest.raises(CannotOpen):
            box.open(PLACE, mixed)


def test_an_edit_is_found(tmp_path: Path) -> None:
    box = envelope(tmp_path)
    sealed = box.seal(PLACE, b"secret")
    flipped = "A" if sealed.body[20] != "A" else "B"
    for bad in (
        sealed._replace(body=sealed.body[:20] + flipped + sealed.body[21:]),
        sealed._replace(body="%"),
        sealed._replace(body=f"{sealed.body[:8]}\n{sealed.body[8:]}"),
        sealed._replace(wrapped=f"%{sealed.wrapped}"),
        sealed._replace(wrapped=""),
        sealed._replace(kek_id="x"),
    ):
        with pytest.raises(CannotOpen):
            box.open(PLACE, bad)


def test_no_more_of_a_row_is_shown_than_a_keys_id(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen) as refusal:
        envelope(tmp_path).open(PLACE, EARLIER._replace(kek_id="k" * 33))
    assert "k" * 32 in str(refusal.value)
    assert "k" * 33 not in str(refusal.value)


def test_each_writing_has_a_key_of_its_own(tmp_path: Path) -> None:
    box = envelope(tmp_path)
    first, second = box.seal(PLACE, b"same"), box.seal(PLACE, b"same")
    assert first.body != second.body
    with pytest.raises(CannotOpen):
        box.open(PLACE, first._replace(wrapped=second.wrapped))


def test_a_new_key_wraps_anew_and_leaves_the_body(tmp_path: Path) -> None:
    keys = VaultKeys.open(tmp_path)
    box, elsewhere = EnvelopeEncryption(keys), envelope(tmp_path)
    sealed = box.seal(PLACE, b"secret")
    fresh = keys.rotate()
    moved = box.rewrap(PLACE, sealed)
    assert (moved.kek_id, moved.body) == (fresh.id, sealed.body)
    assert elsewhere.open(PLACE, moved) == b"secret"  # a process that runs learns of the key at once
    assert elsewhere.open(PLACE, sealed) == b"secret"
    assert box.rewrap(PLACE, moved) is moved
    with pytest.raises(CannotOpen):
        box.rewrap(("other",), sealed)


def test_a_text_that_was_never_sealed_is_itself(tmp_path: Path) -> None:
    keys = VaultKeys.open(tmp_path)
    box = EnvelopeEncryption(keys)
    assert box.open_text(PLACE, "plain") == "plain"
    sealed = box.seal_text(PLACE, "plain")
    assert "plain" not in sealed
    assert box.open_text(PLACE, sealed) == box.open_text(PLACE, box.rewrap_text(PLACE, "plain")) == "plain"
    old = keys.active.id
    keys.rotate()
    moved = box.rewrap_text(PLACE, sealed)
    assert moved.startswith("sealed:")
    assert old not in moved
    assert envelope(tmp_path).open_text(PLACE, moved) == "plain"
    assert box.rewrap_text(PLACE, moved) == moved
    for text in ("sealed:x.y", "sealed:x.y.z.a", "sealed:", "sealed:x.y.z"):
        with pytest.raises(CannotOpen):
            box.open_text(PLACE, text)
