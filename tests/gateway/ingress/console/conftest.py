"""A gateway with the console, and one that is full of hostile texts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.console import console_house
from tests.fakes.house import House


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with console_house(tmp_path, database_url) as built:
        yield built
