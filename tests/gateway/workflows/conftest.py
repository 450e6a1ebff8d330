"""Evaluators that end with the test, and documents in few words."""

from collections.abc import AsyncIterator

import pytest

from gateway.workflows.expressions.evaluator import Evaluator


@pytest.fixture
async def evaluator() -> AsyncIterator[Evaluator]:
    made = Evaluator(seconds=20.0)  # however slow the machine; the tests of the limit make their own
    yield made
    await made.close()
