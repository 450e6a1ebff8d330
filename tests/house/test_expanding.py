"""Migrations since the last release only add to the schema, so that its code works on beside this one (docs/upgrading.md)."""

import pytest

from gateway.storage.migrations import HEAD, USABLE_FROM
from tests.house.expanding import contractions
from tests.house.source import ROOT, Source

VERSIONS = ROOT / "gateway" / "storage" / "migrations" / "versions"


def migration(upgrade: str, mark: str = "") -> Source:
    return Source("versions/x.py", f"{mark}\ndef upgrade() -> None:\n    {upgrade}\n\ndef downgrade() -> None:\n    op.drop_table('new')\n")


def test_migrations_since_the_last_release_only_add() -> None:
    fresh = [path for path in sorted(VERSIONS.glob("0*.py")) if path.name[:4] > USABLE_FROM]
    assert [path.name[:4] for path in fresh][-1:] == ([HEAD] if HEAD > USABLE_FROM else [])  # none yet, right after a release
    assert [problem for path in fresh for problem in contractions(Source(path.name, path.read_text()))] == []


@pytest.mark.parametrize(
    "upgrade",
    [
        "op.drop_table('tasks')",
        "op.drop_column('tasks', 'owner')",
        "op.rename_table('tasks', 'works')",
        "op.alter_column('tasks', 'owner', new_column_name='whose')",
        "op.alter_column('tasks', 'owner', nullable=False)",
        "op.alter_column('tasks', 'owner', type_=sa.BigInteger())",
        "op.add_column('tasks', sa.Column('more', sa.Text(), nullable=False))",
        "op.create_index('one', 'tasks', ['owner'], unique=True)",
        "op.create_foreign_key('to', 'tasks', 'contexts', ['a'], ['b'])",
        "op.execute('ALTER TABLE tasks DROP COLUMN owner')",
        "op.execute(sa.text('drop table tasks'))",
        "with op.batch_alter_table('tasks') as batch: batch.drop_column('owner')",
    ],
)
def test_what_the_old_code_would_miss_is_found(upgrade: str) -> None:
    assert len(contractions(migration(upgrade))) == 1
    assert contractions(migration(upgrade, "CONTRACTS = 'tasks.owner, which nothing uses since 0.4'")) == []
    assert len(contractions(migration(upgrade, "CONTRACTS = ''"))) == 1


@pytest.mark.parametrize(
    "upgrade",
    [
        "op.create_table('new', sa.Column('id', sa.Text(), nullable=False)); op.create_index('one', 'new', ['id'], unique=True)",
        "op.add_column('tasks', sa.Column('more', sa.Text(), nullable=False, server_default=''))",
        "op.add_column('tasks', sa.Column('more', sa.Text()))",
        "op.alter_column('tasks', 'owner', nullable=True)",
        "op.create_index('some', 'tasks', ['owner'])",
        "op.drop_index('some')",
        "op.execute('UPDATE tasks SET owner = 1')",
    ],
)
def test_what_only_adds_is_allowed(upgrade: str) -> None:
    assert contractions(migration(upgrade)) == []
