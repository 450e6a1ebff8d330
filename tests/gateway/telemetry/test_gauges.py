"""Gauges of a process, and of what waits in its database, as /metrics shows them."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import event

from gateway.server.composition.telemetry import _build_metrics_export
from gateway.server.watchdog import Watchdog
from gateway.storage.batch import Batch
from gateway.storage.database import Database, engine_for
from gateway.telemetry.backlog import read_backlog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.worker_figures import WorkerFigures
from tests.fakes.house import CallbackAgent, House
from tests.fakes.ports import nowhere


def shown(home: House, name: str, /, **labels: str) -> float | None:
    return home.gateway.metrics.registry.get_sample_value(f"interlock_{name}", labels)


async def test_tasks_that_wait_for_a_person_are_shown_with_their_age(home: House) -> None:
    agent = CallbackAgent("sales")
    agent.state = "TASK_STATE_INPUT_REQUIRED"
    await home.agent(agent)
    await home.send(home.token("alice"), "sales", "hello")
    await home.gateway.backlog_gauges.run_once()
    assert shown(home, "tasks_waiting", state="input-required") == 1
    assert shown(home, "tasks_waiting", state="auth-required") == 0
    assert 0 < (shown(home, "tasks_waiting_oldest_seconds", state="input-required") or 0) < 600


async def test_agents_and_servers_are_shown_by_status(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    await home.registered("away", nowhere())
    await home.server("inventory", "check")
    await home.gateway.backlog_gauges.run_once()
    assert (shown(home, "agents", status="active"), shown(home, "agents", status="quarantined")) == (2, 0)
    assert shown(home, "servers", status="active") == 1


async def test_sizes_of_the_database_and_the_process_are_shown(home: House) -> None:
    await home.gateway.backlog_gauges.run_once()
    assert (shown(home, "database_bytes") or 0) > 100_000
    for name in ("memory_bytes", "open_files", "open_files_max", "disk_free_bytes", "signing_key_age_seconds", "call_slots"):
        assert (shown(home, name) or 0) > 0, name
    assert [shown(home, "ready", check=check) for check in ("serving", "database", "policies")] == [1, 1, 1]


async def test_a_slot_is_in_use_while_its_call_runs(home: House) -> None:
    seen: list[float | None] = []
    agent = CallbackAgent("sales")

    async def act(token: str, text: str) -> str:
        seen.append(shown(home, "call_slots_used"))
        return "done"

    agent.act = act
    await home.agent(agent)
    await home.send(home.token("alice"), "sales", "hello")
    assert seen == [1] and shown(home, "call_slots_used") == 0


async def test_each_commit_is_timed_from_its_oldest_write(light_url: str) -> None:
    waits: list[float] = []
    database = Database(engine_for(light_url), observe_commit=waits.append)
    database.start()

    def work(batch: Batch) -> int:
        return len(waits)

    before = await asyncio.gather(database.write(work), database.write(work))
    after = await database.write(work)
    database.close()
    assert before == [0, 0] and after == 1
    assert len(waits) == 2 and all(seconds > 0 for seconds in waits)


async def test_the_lag_of_the_event_loop_is_observed_while_nothing_blocks_it() -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    watchdog = Watchdog(lambda seconds: None, observe_lag=lambda seconds: loop.call_soon_threadsafe(seen.put_nowait, seconds) and None)
    await watchdog.start()
    lags = [await seen.get() for _ in range(3)]
    await watchdog.stop()
    assert all(lag >= 0 for lag in lags)


async def test_of_several_workers_only_the_first_exports_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", nowhere())
    first, second = WorkerFigures(tmp_path), WorkerFigures(tmp_path)
    built = [_build_metrics_export(Metrics(), worker) for worker in (None, first, second)]
    first.close()
    second.close()
    assert [each is not None for each in built] == [True, True, False]


def test_no_look_at_what_waits_reads_all_tasks(light_url: str) -> None:
    engine = engine_for(light_url)
    read: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _connection, _cursor, statement, *_: read.append(statement))
    with engine.connect() as connection:
        read_backlog(connection.execution_options(interlock_read=True), 1)
        statements = [statement for statement in read if " tasks" in statement]
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all() for statement in statements]
    engine.dispose()
    steps = [row.detail for plan in plans for row in plan]
    assert len(steps) == 2 and all(" USING INDEX tasks_asking" in step or " USING INDEX tasks_awaiting" in step for step in steps), steps
