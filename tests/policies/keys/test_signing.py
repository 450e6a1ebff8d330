"""The gateway's signing keys on disk."""

import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from policies import strict_json
from policies.keys.jwks import decode_base64url, vet_key_set
from policies.keys.key_folder import KeyFolder, KeysUnusable, StoredKey
from policies.keys.signing import NotSignedByUs, SigningKeys
from policies.keys.strict_jwt import read_unverified, verify_signature
from tests.fakes.clock import Clock
from tests.fakes.issuer import EcKey, compact

TYPE = "note+jwt"


def _open_and_name(home: str) -> str:
    return SigningKeys.open(Path(home)).active_kid


def test_keys_outlive_the_process_that_made_them(tmp_path: Path) -> None:
    token = SigningKeys.open(tmp_path).sign({"a": 1}, TYPE)
    assert SigningKeys.open(tmp_path).verify(token, TYPE) == {"a": 1}


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        kids = list(processes.map(_open_and_name, [str(tmp_path)] * 3))
    assert len(set(kids)) == 1
    assert len(list((tmp_path / "keys").glob("*.json"))) == 1


class HesitantFolder(KeyFolder):
    """Reads, then waits a moment for the other one to have read too."""

    def __init__(self, path: Path, meeting: Barrier) -> None:
        super().__init__(path)
        self._meeting = meeting

    def read(self) -> list[StoredKey]:
        found = super().read()
        with suppress(BrokenBarrierError):
            self._meeting.wait(0.2)
        return found


def test_two_that_find_no_key_at_the_same_time_do_not_both_make_one(tmp_path: Path) -> None:
    meeting = Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        opened = list(threads.map(lambda _: SigningKeys(HesitantFolder(tmp_path / "keys", meeting)), range(2)))
    assert opened[0].active_kid == opened[1].active_kid
    assert len(list((tmp_path / "keys").glob("*.json"))) == 1


class DyingFolder(KeyFolder):
    """The process ends between the two steps of a rotation."""

    def retire(self, stored: StoredKey, retired: float) -> None:
        raise KeyboardInterrupt


def test_a_rotation_that_was_cut_short_is_a_rotation_all_the_same(tmp_path: Path) -> None:
    clock = Clock()
    old = SigningKeys.open(tmp_path, clock).active_kid
    clock.now -= 3600  # not even a clock that was set back makes the old key the newer one
    with pytest.raises(KeyboardInterrupt):
        SigningKeys(DyingFolder(tmp_path / "keys"), clock).rotate()
    keys = SigningKeys.open(tmp_path, clock)
    assert keys.active_kid != old
    assert keys.find(old) is not None
    keys.rotate()
    assert "d" not in json.loads((tmp_path / "keys" / f"{old}.json").read_text())


def test_only_the_owner_may_read_keys(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    (tmp_path / "keys" / f"{keys.active_kid}.json").chmod(0o640)
    with pytest.raises(KeysUnusable, match="chmod 600"):
        SigningKeys.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"kty":"EC","crv":"P-256"}'])
def test_a_file_that_is_no_key_stops_the_start_and_is_named(tmp_path: Path, text: str) -> None:
    SigningKeys.open(tmp_path)
    (tmp_path / "keys" / "odd.json").write_text(text)
    with pytest.raises(KeysUnusable, match=r"odd\.json"):
        SigningKeys.open(tmp_path)


def test_a_half_written_file_is_never_taken_for_a_key(tmp_path: Path) -> None:
    kid = SigningKeys.open(tmp_path).active_kid
    (tmp_path / "keys" / "half.new").write_text('{"kty":')
    assert SigningKeys.open(tmp_path).active_kid == kid


def test_the_published_set_has_no_secret_and_verifies_our_tokens(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    published = json.loads(json.dumps(keys.jwks()))
    assert all(set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"} for key in published["keys"])
    unverified = read_unverified(keys.sign({"a": 1}, TYPE))
    verify_signature(unverified, vet_key_set(published)[unverified.kid])


def test_a_rotated_key_verifies_for_a_day_and_signs_no_more(tmp_path: Path) -> None:
    clock = Clock()
    keys = SigningKeys.open(tmp_path, clock)
    old, statement = keys.active_kid, keys.sign({"a": 1}, TYPE)
    new = keys.rotate()
    assert new != old
    assert keys.active_kid == read_unverified(keys.sign({}, TYPE)).kid == new
    assert [key["kid"] for key in keys.jwks()["keys"]] == [new, old]
    assert "d" not in json.loads((tmp_path / "keys" / f"{old}.json").read_text())
    clock.now += 86_399.5
    assert keys.find(old) is not None
    assert keys.serving_kids == (old, new)
    clock.now += 0.5
    assert keys.find(old) is None
    assert keys.serving_kids == (new,)
    assert [key["kid"] for key in keys.jwks()["keys"]] == [new]
    assert [key["kid"] for key in keys.all_jwks()["keys"]] == [new, old]
    assert keys.verify(statement, TYPE) == {"a": 1}  # the audit's heads are older than a day


def test_two_rotations_within_one_tick_of_the_clock_leave_the_newest_key_active(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path, Clock())
    kids = [keys.rotate() for _ in range(3)]
    assert keys.active_kid == kids[-1]
    assert SigningKeys.open(tmp_path, Clock()).active_kid == kids[-1]


def test_another_process_notices_a_rotation_within_a_second(tmp_path: Path) -> None:
    clock = Clock()
    mine, theirs = SigningKeys.open(tmp_path, clock), SigningKeys.open(tmp_path, clock)
    new = theirs.rotate()
    clock.now += 1
    assert mine.find(new) is not None
    assert read_unverified(mine.sign({}, TYPE)).kid == new


def test_a_running_process_keeps_its_keys_when_the_folder_breaks(tmp_path: Path) -> None:
    clock = Clock()
    keys = SigningKeys.open(tmp_path, clock)
    kid = keys.active_kid
    (tmp_path / "keys" / "odd.json").write_text("{")
    clock.now += 2
    assert keys.active_kid == kid
    for path in (tmp_path / "keys").iterdir():
        path.unlink()
    (tmp_path / "keys").rmdir()
    clock.now += 2
    assert keys.verify(keys.sign({"a": 1}, TYPE), TYPE) == {"a": 1}


def test_statements_of_others_changed_ones_and_ones_of_another_type_are_not_ours(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    token = keys.sign({"a": 1}, TYPE)
    header, claims, signature = token.split(".")
    forged = compact({"alg": "ES256", "kid": keys.active_kid, "typ": TYPE}, {"a": 1}, EcKey(keys.active_kid).sign)
    other_claims = read_unverified(keys.sign({"a": 2}, TYPE)).token.split(".")[1]
    for text in (forged, f"{header}.{other_claims}.{signature}", f"{header}.{claims}.", "", "a.b.c"):
        with pytest.raises(NotSignedByUs):
            keys.verify(text, TYPE)
    with pytest.raises(NotSignedByUs, match=r"^type$"):
        keys.verify(token, "at+jwt")
    assert keys.verify(token, TYPE.upper()) == {"a": 1}  # RFC 7515 s4.1.9: a type has no case


def test_a_detached_signature_verifies_with_its_payload_put_back(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    protected, signature = keys.sign_detached({"typ": "JOSE", "alg": "none", "kid": "spoofed"}, b'{"name":"a"}')
    unverified = read_unverified(f"{protected}.eyJuYW1lIjoiYSJ9.{signature}")
    verify_signature(unverified, keys.find(keys.active_kid))
    assert (unverified.kid, unverified.alg, unverified.typ) == (keys.active_kid, "ES256", "jose")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_not_signed(tmp_path: Path, number: float) -> None:
    keys = SigningKeys.open(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        keys.sign({"a": 1.5, "b": number}, TYPE)
    assert keys.verify(keys.sign({"a": 1.5, "b": "inf"}, TYPE), TYPE) == {"a": 1.5, "b": "inf"}


def test_each_type_has_a_header_of_its_own(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    for typ in (TYPE, "at+jwt", TYPE):
        header = keys.sign({}, typ).partition(".")[0]
        assert strict_json.parse(decode_base64url(header)) == {"typ": typ, "alg": "ES256", "kid": keys.active_kid}


class CountedFolder(KeyFolder):
    """Counts how often it is looked at, and may be out of reach."""

    looks = 0
    gone = False

    def stamp(self) -> tuple[int, int]:
        self.looks += 1
        if self.gone:
            raise OSError("no such device")
        return super().stamp()


def test_the_folder_is_looked_at_once_a_second(tmp_path: Path) -> None:
    clock, folder = Clock(), CountedFolder(tmp_path / "keys")
    keys = SigningKeys(folder, clock)
    begun = folder.looks
    for passed, looks in ((0, 0), (0.75, 0), (0.25, 1), (0.75, 1), (0.25, 2), (-3600, 3), (0, 3)):
        clock.now += passed
        assert keys.find(keys.active_kid) is not None
        assert keys.verify(keys.sign({}, TYPE), TYPE) == {}
        assert folder.looks - begun == looks


def test_an_unchanged_folder_is_not_read_again(tmp_path: Path) -> None:
    clock, folder = Clock(), KeyFolder(tmp_path / "keys")
    keys = SigningKeys(folder, clock)
    folder.read = lambda: pytest.fail("read again")  # type: ignore[method-assign]  # this one alone
    clock.now += 1
    assert keys.active_kid


def test_a_process_whose_folder_is_out_of_reach_goes_on_and_looks_again(tmp_path: Path) -> None:
    clock, folder = Clock(), CountedFolder(tmp_path / "keys")
    keys = SigningKeys(folder, clock)
    kid, folder.gone = keys.active_kid, True
    clock.now += 1
    assert keys.active_kid == kid
    fresh = SigningKeys.open(tmp_path, clock).rotate()
    assert keys.active_kid == kid
    clock.now += 1
    folder.gone = False
    clock.now += 1
    assert keys.active_kid == fresh


def test_a_key_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    clock = Clock()
    mine, theirs = SigningKeys.open(tmp_path, clock), SigningKeys.open(tmp_path, clock)
    old, new = mine.active_kid, theirs.rotate()
    (tmp_path / "keys" / f"{new}.json").chmod(0o644)
    clock.now += 1
    assert mine.active_kid == old
    (tmp_path / "keys" / f"{new}.json").chmod(0o600)
    clock.now += 1
    assert mine.active_kid == new


def test_a_removed_active_key_stays_in_use_until_the_rotation(tmp_path: Path) -> None:
    clock = Clock(0.0)
    keys = SigningKeys.open(tmp_path, clock)
    kid = keys.active_kid
    (tmp_path / "keys" / f"{kid}.json").unlink()
    clock.now += 2
    assert keys.active_kid == kid
    assert keys.rotate() != kid
    assert keys.all_jwks() == keys.jwks()
    assert keys.active_since_us == 2_000_000


def test_a_key_says_when_it_was_made_and_each_later_one_was_made_later(tmp_path: Path) -> None:
    clock = Clock()
    keys = SigningKeys.open(tmp_path, clock)
    assert keys.active_since_us == clock.us()
    keys.rotate()
    assert keys.active_since_us == clock.us() + 1
    clock.now -= 3600
    keys.rotate()
    assert keys.active_since_us == clock.us() + 3_600_000_002
    clock.now += 7200
    keys.rotate()
    assert keys.active_since_us == clock.us()


def test_a_key_that_is_replaced_says_when(tmp_path: Path) -> None:
    clock = Clock()
    keys = SigningKeys.open(tmp_path, clock)
    old = keys.active_kid
    assert keys.rotate() == keys.active_kid
    assert json.loads((tmp_path / "keys" / f"{old}.json").read_text())["retired"] == clock.now
    assert keys.find("another") is None


def test_a_derived_secret_is_equal_for_one_key_and_purpose_only(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    kid, secret = keys.derive_secret("tickets")
    assert (kid, len(secret)) == (keys.active_kid, 32)
    assert SigningKeys.open(tmp_path).derive_secret("tickets") == (kid, secret)
    assert keys.derive_secret("pages")[1] != secret
    keys.rotate()
    assert keys.derive_secret("tickets")[1] != secret


def test_a_secret_does_not_show(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    assert "secret" not in repr(keys._current_ring())
