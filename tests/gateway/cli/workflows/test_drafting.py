"""interlock workflow init writes a document that passes its own rehearsal and can be published at once."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes.house import open_house
from tests.gateway.cli.conftest import CommandLine


def test_a_first_workflow_passes_its_own_rehearsal(interlock: CommandLine, tmp_path: Path) -> None:
    made = interlock("workflow", "init")
    assert made.code == 0 and made.out == "wrote order.yaml and order.test.yaml\n"
    assert "interlock workflow test order.yaml" in made.err and "interlock workflow add order.yaml" in made.err
    rehearsed = interlock("workflow", "test", "order.yaml", "--json")
    assert rehearsed.code == 0 and rehearsed.json["ok"] and len(rehearsed.json["cases"]) == 3
    assert sum(line.startswith("#") for line in (tmp_path / "order.yaml").read_text().splitlines()) > 10


@pytest.mark.parametrize("existing", ["shop.yaml", "shop.test.yaml"])
def test_a_first_workflow_overwrites_nothing(interlock: CommandLine, tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    refused = interlock("workflow", "init", "shop")
    assert refused.code == 1 and f"{existing} exist" in refused.err
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(existing, "mine")]


@pytest.mark.parametrize("name", ["A b", "../shop", "schema", "sandbox", ""])
def test_a_first_workflow_has_a_name_that_can_be_published(interlock: CommandLine, tmp_path: Path, name: str) -> None:
    assert interlock("workflow", "init", name).code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_first_workflow_is_published_and_run_at_once(interlock: CommandLine, tmp_path: Path, database_url: str) -> None:
    assert interlock("workflow", "init", "shop", "--json").json == {"document": "shop.yaml", "cases": "shop.test.yaml"}
    example = next(line for line in (tmp_path / "shop.yaml").read_text().splitlines() if "workflow run" in line)
    async with open_house(tmp_path / "gateway", database_url) as home:
        interlock.environment.update({"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token("admin")})
        assert (await asyncio.to_thread(interlock, "workflow", "add", "shop.yaml")).code == 0
        interlock.environment["INTERLOCK_TOKEN"] = home.token("alice")
        ran = await asyncio.to_thread(interlock, "workflow", "run", "shop", example.partition("'")[2].rstrip("'"))
        assert ran.json == {"accepted": True, "cents": 500}
        large = '{"items": [{"cents": 90000, "quantity": 2}]}'
        asked = await asyncio.to_thread(interlock, "workflow", "run", "shop", large)
        assert asked.code == 0 and asked.err.count("Accept an order of 180000 cents?") == 1
