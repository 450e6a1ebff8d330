"""Deleting the rows of subjects that rest, while rulings on them are under way."""

import pytest

from gateway.state.subjects.pruning import KEPT_US, START, prune_subjects
from gateway.state.subjects.versions import raise_subject_version, raise_unmoved_version, read_subject_version
from gateway.storage.database import Database
from policies.delegation.facts import FactsChanged
from policies.ids import now_us

RESTING, OTHER = "customer:42", "customer:43"


async def version_of(database: Database, subject: str) -> int:
    return await database.read(lambda connection: read_subject_version(connection, "t", subject))


async def test_of_two_rulings_by_the_facts_before_and_after_the_deletion_one_is_recorded(database: Database) -> None:
    for subject in (RESTING, OTHER, OTHER):
        await database.write(lambda batch, subject=subject: raise_subject_version(batch, "t", subject))
    before = await version_of(database, RESTING)
    for _ in range(2):
        await database.write(lambda batch: prune_subjects(batch, START, now_us() + KEPT_US + 1))
    after = await version_of(database, RESTING)
    assert after > before
    await database.write(lambda batch: raise_unmoved_version(batch, "t", RESTING, before))
    with pytest.raises(FactsChanged):
        await database.write(lambda batch: raise_unmoved_version(batch, "t", RESTING, after))
