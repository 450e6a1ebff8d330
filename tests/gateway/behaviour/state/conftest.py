"""A gateway with a board, on either database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.board import BoardHome, board_home


@pytest.fixture
async def board(tmp_path: Path, database_url: str) -> AsyncIterator[BoardHome]:
    async with board_home(tmp_path, database_url) as built:
        yield built
