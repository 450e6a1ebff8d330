"""An outage is a few lines in the log, however often something is tried meanwhile."""

import asyncio
import io
import json
from typing import Any

import pytest

from gateway.server.periodic import _repeat
from gateway.storage.database import Database, ReadFailed, engine_for
from gateway.storage.outage_log import LOG_SECONDS, Outage
from gateway.telemetry.logs import configure_logging
from tests.fakes.clock import Clock
from tests.fakes.ports import free_port
from tests.fakes.waiting import until


@pytest.fixture
def sink() -> io.StringIO:
    stream = io.StringIO()
    configure_logging("info", str, stream)
    return stream


def lines(sink: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(text) for text in sink.getvalue().splitlines()]


def test_a_failure_is_told_at_once_then_now_and_then_with_a_count() -> None:
    clock = Clock()
    outage = Outage(clock)
    assert outage.record_success() is None
    assert [outage.record_failure() for _ in range(100)] == [0] + [None] * 99
    clock.now += LOG_SECONDS
    assert [outage.record_failure() for _ in range(3)] == [99, None, None]
    clock.now += 5
    assert (outage.record_success(), outage.record_success()) == (LOG_SECONDS + 5, None)
    assert outage.record_failure() == 0  # another one begins


async def test_a_database_that_is_away_is_one_line_for_many_readers(sink: io.StringIO) -> None:
    database = Database(engine_for(f"postgresql://gateway:s3cret@127.0.0.1:{free_port()}/interlock"))
    outcomes = await asyncio.gather(*(database.read(lambda connection: None) for _ in range(50)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ReadFailed}
    (line,) = lines(sink)
    assert (line["event"], line["problem"], line["left_out"]) == ("database_not_read", "Connection refused", 0)
    database._readers._engine = engine_for("sqlite://")
    await database.read(lambda connection: None)
    assert [each["event"] for each in lines(sink)] == ["database_not_read", "database_read_again"]
    database.close()


@pytest.mark.parametrize(("error", "told"), [(ReadFailed(), 0), (RuntimeError("no luck"), 1)])
async def test_a_chore_that_keeps_failing_is_one_line_at_most(sink: io.StringIO, error: Exception, told: int) -> None:
    tries: list[int] = []

    async def fails() -> None:
        tries.append(1)
        raise error

    loop = asyncio.create_task(_repeat(0, fails))
    await until(lambda: len(tries) > 50, every=0.001)
    loop.cancel()
    assert [line["event"] for line in lines(sink)] == ["periodic_task_failed"] * told
