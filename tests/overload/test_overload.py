"""What `make overload` says, and that a gateway without time refuses calls and answers operators."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.gateway_runs import serve_registered
from tests.bench.interlock import Home, send_request
from tests.bench.load import Sample
from tests.bench.processes import Running, asgi_server
from tests.bench.rounds import LoadClient, Target
from tests.overload import report
from tests.overload.measuring import Storm, await_served, lock, own_refusals, storm
from tests.overload.open_loop import Answers
from tests.overload.probing import Probes, call_once

ANSWERS = Answers(
    sent=40_000,
    served=9000,
    refused=31_000,
    errors=0,
    fault="",
    served_p50=0.3,
    served_p99=0.6,
    refused_p50=0.004,
    refused_p99=0.03,
    connections=300,
    skipped=0,
    cpu_s=1.0,
)
RUNNING = Running(1, 1, Path("log"))


def sample(calls: int, cpu_s: float) -> Sample:
    return Sample(calls, 1.0, cpu_s, 0.01, 0.02, 0, "")


def measured() -> report.Measured:
    """c = 1 ms and r = 0.1 ms at a capacity of 1,000 a second, and 10 s of four times that."""
    storm = Storm(ANSWERS, 10.0, 10.0, 11.0, Probes(RUNNING, "", 0.0), 0.4, 150.0, 170.0, 153.0)
    return report.Measured([sample(1000, 1.0)], [sample(980, 1.0)], [sample(10_000, 1.0)], [sample(10_000, 1.0)], storm)


def test_the_goodput_and_what_is_possible_are_in_capacities() -> None:
    found = measured()
    assert (found.capacity, found.goodput) == (1000.0, 0.9)
    assert found.possible == pytest.approx(0.9 * (1 - 0.4) / (1 - 0.1))


def test_the_document_has_the_members_that_others_read() -> None:
    document = report.document(measured(), {})
    assert {"capacity_req_s", "goodput", "possible", "shed_p50_ms", "recovered_s"} <= document.keys()
    assert document["shed_p50_ms"] == 4.0 and not any(figure["missed"] for figure in document["figures"])
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("served p99", {"served_p99": 2.1}),
        ("refused p50", {"refused_p50": 0.06}),
        ("goodput, of capacity", {"served": 5000}),
        ("neither served nor refused", {"errors": 1}),
    ],
)
def test_a_figure_beyond_its_target_is_missed(name: str, change: dict[str, float]) -> None:
    found = measured()
    changed = Answers(**{**{field: getattr(ANSWERS, field) for field in ANSWERS.__struct_fields__}, **change})
    worse = replace(found, storm=replace(found.storm, answers=changed))
    assert name in {figure.name for figure in report.figures(worse) if figure.missed}
    assert "MISSED" in report.table(worse) and "MISSED" not in report.table(found)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Target, Path]]:
    """A gateway that lets no request wait."""
    folder = tmp_path_factory.mktemp("overload")
    home = Home.fresh(folder / "gateway", {"server": {"admission_queue": 0}})
    with ExitStack() as stack:
        upstream = stack.enter_context(asgi_server("tests.bench.echo:app", folder))
        yield home, stack.enter_context(serve_registered(home, upstream, 4)), folder


# attack PRO-12
def test_a_gateway_whose_writer_is_behind_refuses_calls_and_answers_operators(refusing: tuple[Home, Target, Path]) -> None:
    home, target, _ = refusing
    admin = home.admin_token()
    with lock(home, target):
        assert call_once(target.running, target.tokens[1]) == 503
        statuses = {path: send_request(target.running, path, admin)[0] for path in ("/livez", "/readyz", "/api/kill", "/metrics")}
    assert statuses == dict.fromkeys(statuses, 200)
    await_served(target)


def test_refusals_are_measured_by_their_cpu(refusing: tuple[Home, Target, Path]) -> None:
    home, target, folder = refusing
    with LoadClient.started(folder) as client:
        found = own_refusals(client, home, target, 0.3)
    assert found.calls > 0 and not found.errors
    await_served(target)


def test_every_request_of_an_open_loop_is_served_or_refused(refusing: tuple[Home, Target, Path]) -> None:
    home, target, folder = refusing
    found = storm(folder, "mcp", target, home.admin_token(), rate=200.0, seconds=1.0)
    answers = found.answers
    assert answers.sent == answers.served + answers.refused and answers.served and not answers.errors
    assert not found.probes.failed and found.mb_before > 0
