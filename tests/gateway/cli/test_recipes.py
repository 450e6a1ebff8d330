"""The commands by which the guides register agents: each is one, of a kind that there is, with options that the kind takes."""

import json
import re
import shlex
from pathlib import Path

import pytest

from adapters.catalog import Catalog
from adapters.upstream.egress import Egress
from adapters.vendors.sdk.agent import GENERIC
from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

DOCS = Path(__file__).parents[3] / "docs"
COMMANDS = [
    line.strip().removeprefix("$ ")
    for guide in ("adapters.md", "frameworks.md")
    for line in (DOCS / guide).read_text().splitlines()
    if re.match(r"^    (?:\$ )?interlock agent add ", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recipe_registers_an_agent(command: str, interlock: CommandLine, api: GatewayApi, tmp_path: Path) -> None:
    (tmp_path / "agent-card.json").write_text(json.dumps({"name": "analyst"}))
    api.on("POST /api/agents", {"name": "x", "status": "active", "kind": "a2a", "url": "http://x.example", "skills": []}, 201)
    assert interlock(*shlex.split(command)[1:]).code == 0
    body = api.asked[0].body
    kind, upstream = body.get("kind", "a2a"), body.get("upstream", {})
    if kind == "a2a":
        assert not upstream.keys() - GENERIC
    else:
        Catalog(Egress()).check(kind, upstream)


def test_each_framework_has_its_recipe() -> None:
    sections = re.split(r"^## ", (DOCS / "frameworks.md").read_text(), flags=re.MULTILINE)[1:]
    assert {each.splitlines()[0] for each in sections} >= {
        "Microsoft Agent Framework, AutoGen",
        "Pydantic AI",
        "Strands",
        "ServiceNow",
        "Vertex AI Agent Engine and Gemini Enterprise",
    }
    assert all("    interlock agent add " in each or "\nagents:\n  - name: " in each for each in sections)
