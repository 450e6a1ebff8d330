"""The commands and entries by which the guides register agents: each is of a kind that there is, with options that the kind takes."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.catalog import AdapterCatalog
from adapters.upstream.egress import Egress
from adapters.vendors.sdk.agent import COMMON_OPTIONS
from gateway.server.settings import AgentSettings
from tests.adapters.replay import expectations
from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

DOCS = Path(__file__).parents[3] / "docs"
COMMANDS = [
    line.strip().removeprefix("$ ")
    for guide in ("adapters.md", "frameworks.md")
    for line in (DOCS / guide).read_text().splitlines()
    if re.match(r"^    (?:\$ )?interlock agent add ", line)
]
ENTRIES = {
    entry["name"]: entry
    for block in re.findall(r"^```yaml\n(.*?)^```", (DOCS / "frameworks.md").read_text(), re.DOTALL | re.MULTILINE)
    for entry in yaml.safe_load(block)["agents"]
}
PLAYED = {"sales": ("databricks",), "helpdesk": ("flowise", "flowise_approval"), "revenue": ("snowflake",)}  # entry: scenarios of `rest`


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recipe_registers_an_agent(command: str, interlock: CommandLine, api: GatewayApi, tmp_path: Path) -> None:
    (tmp_path / "agent-card.json").write_text(json.dumps({"name": "analyst"}))
    api.on("POST /api/agents", {"name": "x", "status": "active", "kind": "a2a", "url": "http://x.example", "skills": []}, 201)
    assert interlock(*shlex.split(command)[1:]).code == 0
    body = api.asked[0].body
    kind, upstream = body.get("kind", "a2a"), body.get("upstream", {})
    if kind == "a2a":
        assert not upstream.keys() - COMMON_OPTIONS
    else:
        AdapterCatalog(Egress()).check(kind, upstream)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_is_taken_by_its_kind(entry: dict[str, Any]) -> None:
    AgentSettings.model_validate(entry)
    if "kind" in entry:
        AdapterCatalog(Egress()).check(entry["kind"], entry["upstream"])
    else:
        assert not entry["upstream"].keys() - COMMON_OPTIONS - {"aws"}


def test_a_described_entry_is_the_one_that_recordings_are_played_to() -> None:
    described = {name: _without_headers(entry["upstream"]) for name, entry in ENTRIES.items() if entry.get("kind") == "rest"}
    played = {each.scenario: each.upstream for each in expectations() if each.vendor == "rest"}
    assert described.keys() == PLAYED.keys()
    assert {
        (name, scenario) for name, scenarios in PLAYED.items() for scenario in scenarios if played[scenario] != described[name]
    } == set()


def test_the_chat_recipe_of_databricks_is_the_one_that_an_exchange_is_played_to() -> None:
    (command,) = (each for each in COMMANDS if "--kind openai-chat" in each and "/serving-endpoints" in each)
    (played,) = (each for each in expectations() if str(each) == "openai_chat-databricks")
    words = shlex.split(command)
    assert {word for place, word in enumerate(words) if words[place - 1] == "--option"} == {"model=ENDPOINT", "usage=false", "person="}
    assert played.upstream == {"model": "ENDPOINT", "usage": False, "person": ""}
    assert played.document["prefix"] == "/serving-endpoints"


def _without_headers(upstream: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in upstream.items() if name != "headers"}


def test_each_framework_has_its_recipe() -> None:
    sections = re.split(r"^## ", (DOCS / "frameworks.md").read_text(), flags=re.MULTILINE)[1:]
    assert {each.splitlines()[0] for each in sections} >= {
        "Databricks",
        "Flowise",
        "Langflow",
        "Microsoft Agent Framework, AutoGen",
        "Pydantic AI",
        "Strands",
        "ServiceNow",
        "Snowflake Cortex Agents",
        "Vertex AI Agent Engine and Gemini Enterprise",
    }
    assert all("    interlock agent add " in each or "\nagents:\n  - name: " in each for each in sections)
