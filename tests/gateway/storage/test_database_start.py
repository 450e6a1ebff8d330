"""A database that can't be begun with is said in one line, and one that is away is waited for."""

from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from gateway.storage.database import engine_for
from gateway.storage.database_start import RETRY_SECONDS, DatabaseUnusable, DatabaseWait, describe_location, wait_for_database
from tests.fakes.clock import Clock
from tests.fakes.ports import free_port


def away() -> Engine:
    return engine_for(f"postgresql://gateway:s3cret@127.0.0.1:{free_port()}/interlock")


class Waiting:
    """A clock that goes on by what is slept, and what was told meanwhile."""

    def __init__(self, seconds: float) -> None:
        self.clock = Clock(0.0)
        self.told: list[str] = []
        self.slept = 0
        self.patience = DatabaseWait(seconds, self.told.append, self.clock, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.clock.now += seconds


def test_a_server_that_is_away_is_waited_for_and_then_told_of() -> None:
    waiting = Waiting(5)
    with pytest.raises(DatabaseUnusable) as refused:
        wait_for_database(away(), waiting.patience)
    assert waiting.slept == 5 / RETRY_SECONDS
    assert len(waiting.told) == 1 and "waiting up to 5 s" in waiting.told[0]
    for text in (str(refused.value), waiting.told[0]):
        assert text.startswith("the database interlock at 127.0.0.1:") and "Connection refused" in text
        assert "s3cret" not in text and "\n" not in text
    assert "database.wait" in refused.value.todo


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("interlock@db.example/shop", "db.example:5432"),
        ("interlock@/shop?host=/var/run/postgresql&port=5433", "/var/run/postgresql:5433"),
        ("interlock@/shop?host=one&host=two", "one,two:5432"),
        ("/shop", "the local socket:5432"),
    ],
)
def test_errors_name_the_host_and_port_that_libpq_takes(address: str, place: str) -> None:
    assert describe_location(engine_for(f"postgresql://{address}")) == f"the database shop at {place}"


def test_a_server_that_comes_back_is_begun_with(postgres_url: str) -> None:
    waiting, real = Waiting(60), engine_for(postgres_url)
    gone = away()
    connect, tries = gone.connect, []

    def connects() -> object:
        tries.append(1)
        return connect() if len(tries) < 4 else real.connect()

    gone.connect = connects  # type: ignore[method-assign,assignment]  # the server starts after three tries
    wait_for_database(gone, waiting.patience)
    assert (len(tries), waiting.slept, len(waiting.told)) == (4, 3, 1)


def test_nobody_waits_where_nothing_is_to_be_waited_for(postgres_url: str) -> None:
    waiting = Waiting(0)
    wait_for_database(engine_for(postgres_url), waiting.patience)
    with pytest.raises(DatabaseUnusable):
        wait_for_database(away(), waiting.patience)
    assert waiting.told == [] and waiting.slept == 0


def test_a_user_or_a_database_that_is_not_there_is_told_at_once(postgres_url: str) -> None:
    url = make_url(postgres_url)
    for wrong in (url.set(username="nobody"), url.set(database="nothing")):
        waiting = Waiting(60)
        with pytest.raises(DatabaseUnusable, match="does not exist") as refused:
            wait_for_database(engine_for(wrong.render_as_string(hide_password=False)), waiting.patience)
        assert waiting.slept == 0 and "database.url" in refused.value.todo


def test_a_file_that_can_not_be_opened_is_told_at_once(tmp_path: Path) -> None:
    waiting = Waiting(60)
    with pytest.raises(DatabaseUnusable) as refused:
        wait_for_database(engine_for(f"sqlite:///{tmp_path}/none/interlock.db"), waiting.patience)
    assert str(refused.value) == f"the database {tmp_path}/none/interlock.db: unable to open database file"
    assert waiting.slept == 0 and "folder" in refused.value.todo
