"""docs/configuration-as-code.md names each member of each kind, each option, and each route of /api that writes."""

import re

import pytest
import typer

from gateway.cli.configuration.kinds import KINDS
from gateway.cli.main import app
from tests.fakes.house import House
from tests.gateway.ingress.admin.test_route_guards import framework
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "configuration-as-code.md").read_text()


def test_each_kind_is_in_the_guide_with_its_members() -> None:
    found = re.findall(r"^\| `(\w+)` \| `(\S+)` \| (.*) \|$", GUIDE, re.MULTILINE)
    rows = {kind: (path, set(re.findall(r"`(\w+)`", members))) for kind, path, members in found}
    assert rows == {name: (kind.path, set(kind.members)) for name, kind in KINDS.items()}


def test_each_option_is_in_the_guide() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # of a group
    options = {name for command in ("apply", "diff", "export") for each in commands[command].params for name in each.opts}
    assert len(options) > 10 and [name for name in sorted(options) if f"{name}" not in GUIDE and name != "--owner"] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_guide_says_of_each_route_that_writes_whether_it_is_declared(home: House) -> None:
    table = GUIDE.partition("Every route of `/api` that writes")[2].partition("\n## ")[0]
    named = re.findall(r"`(/[^`]*|…/[^`]*)`", table)
    writes = {route.path for route in framework(home) if (route.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}}
    paths = [path for path in writes if path.startswith(("/api", "/access", "/ard"))]
    unnamed = [path for path in paths if not any(_covers(name, path) for name in named)]
    assert len(paths) > 50 and sorted(unnamed) == []


def _covers(name: str, path: str) -> bool:
    return path.endswith(name[1:]) if name.startswith("…") else path == name or path.startswith(f"{name}/")
