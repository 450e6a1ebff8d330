"""The scenarios of examples/workflows that events start: each runs to its end, and through its failure path."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.examples.scenarios import Scenario, scenario
from tests.gateway.cli.conftest import CommandLine

Enter = Callable[..., AbstractAsyncContextManager[Scenario]]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def enter(tmp_path: Path, database_url: str) -> Enter:
    """Opens a gateway with one scenario."""
    environment = {"INTERLOCK_HOME": str(tmp_path / "home"), "COLUMNS": "200", "NO_COLOR": "1"}
    return partial(scenario, tmp_path / "gateway", database_url, CommandLine({**environment}))


async def test_a_stock_out_is_undone_when_the_stock_returns(enter: Enter) -> None:
    async with enter(name="stock-out", user="admin") as shop:
        await shop.send_event("inventory.stock-out", {"sku": "SKU-7"})
        run = await shop.started()
        await shop.workflows.reached(run, "SUSPENDED", user="admin")
        assert await shop.call("chatbot", "list_facts") == {"facts": {"SKU-7": "out of stock"}}
        assert await shop.call("forecast", "list_excluded") == {"excluded": ["SKU-7"]}
        assert (await shop.call("state", "get", key="product/SKU-7/stock"))["value"] == "out"
        await shop.send_event("inventory.stock-returned", {"sku": "SKU-7"})
        assert await shop.output(run) == {"sku": "SKU-7", "outcome": "restored"}
        assert await shop.call("chatbot", "list_facts") == {"facts": {"SKU-7": "in stock"}}
        assert await shop.call("forecast", "list_excluded") == {"excluded": []}
        assert [each["subject"] for each in (await shop.call("mail", "list_sent"))["sent"]] == ["Out of stock", "Back in stock"]
        stock = await shop.call("state", "get", key="product/SKU-7/stock")
        assert (stock["value"], stock["version"], stock["source"]["agent"]) == ("there", 2, "stock-out")


async def test_people_are_asked_where_the_promotion_agent_is_down(enter: Enter) -> None:
    async with enter(name="stock-out", user="admin") as shop:
        await shop.send_event("inventory.stock-out", {"sku": "SKU-404"})
        run = await shop.started()
        question = await shop.answer(run, "paused", "petra")
        assert question.startswith("SKU-404 is out of stock, and the agent of the promotions does not answer.")
        await shop.workflows.reached(run, "SUSPENDED", user="admin")
        await shop.send_event("inventory.stock-returned", {"sku": "SKU-404"})
        assert (await shop.output(run))["outcome"] == "restored"
        texts = [each["text"] for each in (await shop.call("mail", "list_sent"))["sent"]]
        assert texts == ["SKU-404 is out of stock. Its promotion is paused.", "SKU-404 is back. Resume its promotion by hand."]
