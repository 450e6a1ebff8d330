"""A row that refers to one that is not there is refused by itself, and says nothing about the health of the database."""

import pytest

from gateway.storage.batch import ReferenceMissing
from gateway.storage.database import Batch, Database
from gateway.storage.tables import mcp_questions, processes


def question(batch: Batch) -> None:
    batch.add(mcp_questions, {"task_id": "gone", "question": "q", "process": "p", "body": "{}"})


async def test_a_missing_reference_is_no_outage(database: Database) -> None:
    with pytest.raises(ReferenceMissing):
        await database.write(question)
    assert database.is_writable


async def test_a_posted_row_without_its_reference_is_not_tried_again(database: Database) -> None:
    database.post(question)
    await database.write(lambda batch: batch.add(processes, {"id": "p", "started": 1, "seen": 1}))
    assert database.is_writable and not database._writer._deferred
