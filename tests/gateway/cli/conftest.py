"""The command line as a person runs it: against a fake gateway's HTTP side, or beside an empty home."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from tests.fakes.gateway_api import GatewayApi, gateway_api


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    environment: dict[str, str | None]

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        result = CliRunner().invoke(app, list(arguments), env=self.environment, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def api() -> Iterator[GatewayApi]:
    with gateway_api() as api:
        yield api


@pytest.fixture
def interlock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> CommandLine:
    """In an empty folder, with an INTERLOCK_HOME that does not exist yet."""
    monkeypatch.chdir(tmp_path)
    url = request.getfixturevalue("api").url if "api" in request.fixturenames else None
    return CommandLine(
        {
            "INTERLOCK_HOME": str(tmp_path / "home"),
            "INTERLOCK_URL": url,
            "INTERLOCK_TOKEN": "secret-token",
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
    )
