"""Memory that was freed goes back to the system."""

import ctypes

import pytest

from gateway.server.sockets.freed_memory import release_freed_memory


def test_releasing_memory_asks_the_c_library_and_needs_none_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    library = type("Library", (), {"malloc_trim": staticmethod(asked.append)})
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    release_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    release_freed_memory()
    assert asked == [0]
