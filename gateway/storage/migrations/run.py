"""Migrates a database to the schema of this version, with Alembic."""

from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

LOCK_KEY = 4_242_001  # advisory lock, so that processes that start together do not both migrate


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Applies what is missing, in one transaction."""
    _run(engine, command.upgrade, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Takes migrations back; loses what their tables held."""
    _run(engine, command.downgrade, revision)


def _run(engine: Engine, command: object, revision: str) -> None:
    with as_file(files("gateway.storage.migrations")) as folder, engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_KEY})"))
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        assert callable(command)
        command(config, revision)
