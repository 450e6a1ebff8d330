"""A gateway of one's own for each test, on either database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.storage.database import Database
from tests.fakes.house import House, house, open_house
from tests.fakes.post_office import PostOffice
from tests.fakes.reference_clients import every_door


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url) as built:
        yield built


@pytest.fixture
async def open_home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    """The same, on a real socket."""
    async with open_house(tmp_path / "home", database_url) as built:
        yield built


@pytest.fixture
async def every_home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    """The same, with gRPC too: reached through every door there is."""
    async with every_door(tmp_path / "home", database_url) as built:
        yield built


@pytest.fixture
async def office(tmp_path: Path, database: Database) -> AsyncIterator[PostOffice]:
    opened = PostOffice(database, tmp_path / "home")
    yield opened
    await opened.close()
