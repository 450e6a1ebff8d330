"""A server that is not there, or does not start, is said, and nothing is left running."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.processes import BenchFailure
from tests.vendors import servers
from tests.vendors.servers import ADK


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of virtual environments, with nothing in it."""
    folder = servers.ROOT / "build" / "vendors"
    assert folder == servers.BUILD
    monkeypatch.setattr(servers, "BUILD", tmp_path / "vendors")
    monkeypatch.setattr(servers, "ROOT", tmp_path)
    return tmp_path / "vendors"


def test_a_server_that_is_not_installed_says_what_installs_it(build: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchFailure, match="make test-vendors"), ADK.running(tmp_path):
        pass


def test_a_server_that_ends_at_once_fails_with_the_end_of_its_log(build: Path, tmp_path: Path) -> None:
    program = build / "adk" / "bin" / "adk"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho no such agent\nexit 3\n")
    program.chmod(0o700)
    (build / "adk" / "installed").touch()
    with pytest.raises(BenchFailure, match=r"(?s)does not answer.*no such agent"), replace(ADK).running(tmp_path):
        pass
