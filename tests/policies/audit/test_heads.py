"""Claims about the file of signed heads: what stands in it, that nothing is lost or torn, and that it stays small."""

import errno
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from policies.audit.cuts import CUT_JWT_TYPE as CUT
from policies.audit.heads import HEAD_JWT_TYPE, HeadsFile, read_heads
from policies.audit.log import ChainHead
from policies.keys.signing import SigningKeys
from tests.fakes.clock import Clock
from tests.fakes.disk import Synced, is_held, left_open, mode
from tests.fakes.trail import Plain

NOW = 1_700_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.heads"


@pytest.fixture
def signer() -> Plain:
    return Plain()


@pytest.fixture
def file(path: Path, signer: Plain) -> HeadsFile:
    return HeadsFile(path, signer, lambda: NOW)


def head(chain: str, seq: int) -> ChainHead:
    return ChainHead(chain, seq, f"{seq:064}")


def said(signer: Plain, path: Path) -> list[tuple[str, int]]:
    return [(str(signer.said[line][0]["chain"]), int(signer.said[line][0]["seq"])) for line in read_heads(path)]


def test_a_head_is_signed_with_the_time_and_stands_in_a_line(path: Path, tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    signed = HeadsFile(path, keys, lambda: NOW).write_head(head("a", 3))
    assert path.read_text() == f"{signed}\n"
    assert keys.verify(signed, "interlock-audit-head+jwt") == {"chain": "a", "seq": 3, "hash": head("a", 3).hash, "at": NOW}


def test_empty_chains_and_heads_already_written_are_not_signed(file: HeadsFile, path: Path) -> None:
    assert read_heads(path) == []
    assert file.write_head(head("a", 0)) == ""
    assert not path.exists()
    first = file.write_head(head("a", 1))
    assert first != ""
    assert file.write_head(head("a", 1)) == ""
    second = file.write_head(head("a", 2))
    assert read_heads(path) == [first, second]


def test_only_the_owner_reads_the_file_and_nothing_else_is_left_beside_it(file: HeadsFile, path: Path) -> None:
    file.write_head(head("a", 1))
    assert (mode(path), mode(path.with_suffix(".lock"))) == (0o600, 0o600)
    file.compact()
    assert {each.name: mode(each) for each in path.parent.iterdir()} == {"audit.heads": 0o600, "audit.lock": 0o600}
    assert left_open(path.parent) == []


def test_what_is_kept_is_durable_and_written_by_one_at_a_time(
    file: HeadsFile, path: Path, signer: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced()

    def fsync(descriptor: int) -> None:
        assert is_held(path.with_suffix(".lock"))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    one = file.write_head(head("a", 1)).encode() + b"\n"
    two = one + file.write_statement({"chain": "a"}, CUT).encode() + b"\n"
    file.compact()
    assert synced.seen == [one, two, two, {path.name, "audit.lock"}]
    assert not is_held(path.with_suffix(".lock"))


def test_the_file_keeps_the_last_head_of_each_chain(file: HeadsFile, path: Path, signer: Plain) -> None:
    for each in (head("a", 1), head("b", 7), head("a", 2), head("c", 1)):
        file.write_head(each)
    file.compact()
    assert said(signer, path) == [("b", 7), ("a", 2), ("c", 1)]
    file.compact()
    assert said(signer, path) == [("b", 7), ("a", 2), ("c", 1)]


def test_another_statement_is_kept_for_good(file: HeadsFile, path: Path, signer: Plain) -> None:
    cut = file.write_statement({"chain": "a", "seq": 1}, CUT)
    assert signer.verify(cut, CUT) == {"chain": "a", "seq": 1}
    file.write_head(head("a", 1))
    file.write_head(head("a", 9))
    file.compact()
    assert said(signer, path) == [("a", 1), ("a", 9)]
    assert read_heads(path)[0] == cut


# attack LOG-04
def test_an_old_head_that_is_written_again_does_not_push_out_the_last_one(file: HeadsFile, path: Path) -> None:
    first, last = file.write_head(head("a", 1)), file.write_head(head("a", 9))
    path.write_text(f"{last}\nnonsense\n{first}\n")
    file.compact()
    assert read_heads(path) == [last, "nonsense"]


def test_two_last_heads_of_one_chain_and_what_is_no_head_are_left_to_be_found(file: HeadsFile, path: Path, signer: Plain) -> None:
    one = file.write_head(head("a", 5))
    other = signer.sign({"chain": "a", "seq": 5, "hash": "f" * 64}, HEAD_JWT_TYPE)
    odd: list[Mapping[str, Any]] = [{}, {"chain": "a"}, {"seq": 1}, {"chain": "a", "seq": None}, {"chain": "a", "seq": "x"}]
    lines = [one, other, *(signer.sign(claims, HEAD_JWT_TYPE) for claims in odd)]
    path.write_text("\n".join(lines))
    file.compact()
    assert read_heads(path) == lines


def test_invalid_bytes_are_reported_and_do_not_hide_readable_heads(path: Path, tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    file = HeadsFile(path, keys, lambda: NOW)
    file.write_head(head("a", 1))
    with path.open("ab") as damaged:
        damaged.write(b"\xff\x00\xfe\n")
    second = file.write_head(head("a", 2))
    file.compact()
    assert path.read_bytes() == b"\xff\x00\xfe\n" + f"{second}\n".encode()
    unread, last = read_heads(path)
    assert last == second
    with pytest.raises(ValueError):
        keys.verify(unread, HEAD_JWT_TYPE)


def test_there_is_nothing_to_compact_before_the_first_head(file: HeadsFile, path: Path) -> None:
    file.compact()
    assert not path.exists()


def test_what_an_interrupted_compaction_left_is_written_over(file: HeadsFile, path: Path) -> None:
    path.with_suffix(".new").write_text("half a li")
    signed = file.write_head(head("a", 1))
    file.compact()
    assert path.read_text() == f"{signed}\n"
    assert not path.with_suffix(".new").exists()


def test_a_file_that_somebody_else_compacts_stays_its_owners(file: HeadsFile, path: Path) -> None:
    """The superuser may prune what a gateway of its own account goes on writing."""
    file.write_head(head("a", 1))
    owner = 4321 if os.geteuid() == 0 else os.geteuid()
    os.chown(path, owner, -1)
    file.compact()
    assert (path.stat().st_uid, mode(path)) == (owner, 0o600)


def test_the_heads_file_does_not_grow_for_ever(file: HeadsFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.audit.heads.COMPACT_AFTER", 10)
    lengths = []
    for number in range(1, 22):
        file.write_head(head("a", number))
        lengths.append(len(read_heads(path)))
    assert lengths == [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2]


def test_a_head_for_which_there_is_no_room_leaves_no_torn_line(file: HeadsFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_head(head("a", 1))
    before, write = path.read_bytes(), os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:4]))
        with pytest.raises(OSError, match="no room") as refusal:
            file.write_head(head("a", 2))
    assert (refusal.value.errno, refusal.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == before
    assert left_open(path.parent) == []
    assert file.write_head(head("a", 2))
    assert len(read_heads(path)) == 2


def test_processes_that_share_a_heads_file_lose_none_of_each_others_heads(path: Path, tmp_path: Path) -> None:
    """Some append while others compact."""
    keys = SigningKeys.open(tmp_path)

    def keep(chain: str) -> None:
        file = HeadsFile(path, keys, Clock().us)
        for number in range(1, 31):
            file.write_head(head(chain, number))
            if number % 3 == 0:
                file.compact()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, "abcd"))
    HeadsFile(path, keys, Clock().us).compact()
    kept = [keys.verify(line, HEAD_JWT_TYPE) for line in read_heads(path)]
    assert sorted((each["chain"], each["seq"]) for each in kept) == [(chain, 30) for chain in "abcd"]


def test_a_compaction_of_ones_own_file_changes_no_owner(file: HeadsFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of systemd take the system call away from a service."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    file.write_head(head("a", 1))
    file.write_head(head("a", 2))
    file.compact()
    assert len(read_heads(path)) == 1
