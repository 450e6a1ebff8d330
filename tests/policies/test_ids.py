"""Ids: different in every thread and process, in the order of time, and random enough that nobody guesses one."""

import os
import re
import threading
from itertools import count

import pytest

from policies.ids import new_id, now_us

MOMENT = 1_800_000_000_123_456_789  # nanoseconds since 1970


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time stands still at MOMENT."""
    monkeypatch.setattr("policies.ids.time.time_ns", lambda: MOMENT)


def test_ids_are_never_the_same_in_any_thread() -> None:
    drawn: list[list[str]] = []

    def draw() -> None:
        drawn.append([new_id("t") for _ in range(5000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [name for names in drawn for name in names]
    assert len(set(everything)) == 20_000
    assert {len(name) for name in everything} == {len("t_") + 31}


def test_two_processes_never_draw_the_same_bits() -> None:
    new_id("t")  # some are drawn ahead now, which a child would have too
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, new_id("t").encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as told:
        drawn = told.read()
    os.waitpid(child, 0)
    assert re.fullmatch("t_[0-9a-f]{31}", drawn)
    assert drawn[-20:] not in {new_id("t")[-20:] for _ in range(1000)}


def test_an_id_is_its_prefix_the_milliseconds_and_80_random_bits(still: None) -> None:
    drawn = [new_id("g") for _ in range(600)]
    assert {name[:13] for name in drawn} == {f"g_{MOMENT // 1_000_000:011x}"}
    assert all(re.fullmatch("[0-9a-f]{20}", name[13:]) for name in drawn)
    assert len({name[13:] for name in drawn}) == 600


def test_later_ids_sort_later(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = count(MOMENT, 1_000_000)
    monkeypatch.setattr("policies.ids.time.time_ns", lambda: next(moments))
    drawn = [new_id("t") for _ in range(1000)]
    assert drawn == sorted(drawn)


def test_the_system_is_asked_for_randomness_once_for_many_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    random = os.urandom

    def counted(size: int) -> bytes:
        asked.append(size)
        return random(size)

    monkeypatch.setattr("policies.ids.os.urandom", counted)
    assert len({new_id("t") for _ in range(200)}) == 200
    assert len(asked) < 10


def test_times_are_whole_microseconds(still: None) -> None:
    assert now_us() == 1_800_000_000_123_456
