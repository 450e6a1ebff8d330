"""The benchmark's own arithmetic, and that no wrong reply gets past its load client."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench import __main__ as command
from tests.bench import figures
from tests.bench import ruling as alone
from tests.bench.echo import OLDER, THOUSAND, answer_request
from tests.bench.echo_agents import agent_card
from tests.bench.figures import Ruling, Run, Subscribers, Whole, summarize
from tests.bench.floor import UPSTREAM
from tests.bench.load import Job, Sample, percentile, run, whole_reply
from tests.bench.processes import BenchFailure, Running, asgi_server, cpu_seconds, environment, resident_mb, run_process
from tests.bench.profiled import Samples
from tests.bench.rounds import LoadClient, Plan, Target, measure_rows, run_interleaved
from tests.bench.workload import FIRST_ID, WORKLOADS, Script
from tests.fakes.ports import free_port

PATHS = {
    "mcp": "/mcp",
    "mcp_session": OLDER,
    "mcp_many": THOUSAND,
    "mcp_list": THOUSAND,
    "a2a": "/a2a",
    "a2a_stream": "/streaming",
    "a2a_burst": "/burst",
    "a2a_get": "/a2a",
    "a2a_list": "/a2a",
    "a2a_from_0_3": "/older",
    "a2a_to_0_3": "/a2a",
}
Answer = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with asgi_server("tests.bench.echo:app", tmp_path_factory.mktemp("echo")) as running:
        yield running


def job(port: int, workload: str = "mcp", **given: Any) -> Job:
    plain: dict[str, Any] = {
        "tokens": ["one", "two"],
        "connections": 4,
        "nonce": "0123abcd",
        "seconds": 0.2,
        "warmup": 0.0,
        "path": PATHS[workload],
        "sessions": ["s-1", "s-2"] if workload == "mcp_session" else [],
    }
    return Job(workload=workload, port=port, **{**plain, **given})


def honest(body: bytes) -> bytes:
    request = json.loads(body)
    text = request["params"]["arguments"]["text"]
    result = {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}
    return http(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode())


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """The port of a server that answers every request body with the bytes of `answer`, and hangs up after empty ones."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while reply := answer(await _body(reader)):
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _body(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(line for line in head.splitlines() if line.startswith("content-length:"))
    return await reader.readexactly(int(length.split(":")[1]))


def test_a_ruling_by_itself_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "WARM", 200)
    monkeypatch.setattr(alone, "COLD", 20)
    measured_alone = alone.measure_ruling()
    assert measured_alone.cold_p50_ms > 0 and measured_alone.warm_cpu_us > 0
    found = {figure.name: figure for figure in figures.figures([], Whole(ruling=Ruling(1.2, 61.0)))}
    assert found["whole ruling, cold, p50"].missed and found["whole ruling without minting, warm, CPU"].missed


def test_a_percentile_is_the_nearest_rank() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert (percentile(hundred, 0.5), percentile(hundred, 0.99), percentile([7.0], 0.99), percentile([], 0.5)) == (50, 99, 7, 0)


def test_a_row_holds_medians_and_the_sum_of_errors() -> None:
    samples = [Sample(calls, 2.0, cpu, 0.002, 0.009, wrong, "") for calls, cpu, wrong in ((100, 0.1, 1), (300, 0.1, 0), (200, 0.1, 2))]
    row = summarize("floor", "mcp.tools_call", 16, samples)
    assert row == Run("floor", "mcp.tools_call", 16, req_s=100.0, p50_ms=2.0, p99_ms=9.0, cpu_us=500.0, errors=3)


def test_a_row_without_a_call_is_a_row_of_zeros() -> None:
    row = summarize("floor", "mcp.tools_call", 16, [Sample(0, 1.0, 0.5, 0.0, 0.0, 4, "")])
    assert (row.req_s, row.p99_ms, row.cpu_us, row.errors) == (0, 0, 0, 4)


def rows(ours: float) -> list[Run]:
    return [
        Run(target, "mcp.tools_call", count, req_s, p50_ms, p50_ms * 3, cpu, 0)
        for target, req_s, p50_ms, cpu in (("direct", 10_000.0, 0.1, 40.0), ("floor", 2_500.0, 0.3, 180.0), ("interlock", ours, 1.0, 400.0))
        for count in (1, 16, 64)
    ]


def test_a_figure_missed_is_called_missed_and_one_not_measured_is_not() -> None:
    found = {figure.name: figure for figure in figures.figures(rows(ours=1_499.0), Whole(cold_start_s=3.1))}
    floor, direct = found["MCP share of the floor, 16 connections"], found["MCP share of direct, 16 connections"]
    assert floor.cells == ("0.6", ">= 0.6", "MISSED")
    assert direct.cells == ("0.15", ">= 0.08", "met")
    assert found["MCP added p50, 1 connection"].value == pytest.approx(0.9)
    assert found["cold start to first correct call"].missed
    assert found["A2A CPU per call, 16 connections"].cells == ("not measured", "<= 750", "-")


def test_the_fsyncs_that_a_call_waits_for_are_taken_from_what_it_adds() -> None:
    found = {figure.name: figure for figure in figures.figures(rows(ours=1_600.0), Whole(fsync_ms=0.4))}
    assert found["MCP added p50 less 1 fsync"].cells == ("0.5 ms", "<= 0.45", "MISSED")


def test_a_call_in_a_session_names_the_session_of_its_person() -> None:
    script = Script(WORKLOADS["mcp_session"], ("h", 1, "/x"), ["alice", "bob"], "0123abcd", sessions=["s-a", "s-b"])
    for number in range(FIRST_ID, FIRST_ID + 4):
        request = script.request(number)
        assert (b"Bearer alice" in request) == (b"Mcp-Session-Id: s-a\r\n" in request)


def test_side_figures_are_compared_with_the_floor_and_an_untranslated_call() -> None:
    runs = [
        Run("floor", "a2a.stream", 16, 1.0, 1.0, 1.0, 500.0, 0),
        Run("interlock", "a2a.stream", 16, 1.0, 1.0, 1.0, 2_000.0, 0),
        Run("interlock", "a2a.send+pair", 1, 1.0, 2.0, 1.0, 1.0, 0),
        Run("interlock", "a2a.send_0.3_to_1.0+pair", 1, 1.0, 2.25, 1.0, 1.0, 0),
        Run("interlock", "a2a.send_1.0_to_0.3+pair", 1, 1.0, 2.5, 1.0, 1.0, 0),
    ]
    found = {figure.name: figure for figure in figures.figures(runs, Whole(subscribers=Subscribers(2000, 15.5, 3.0)))}
    assert found["A2A stream, CPU per event, 16 streams"].value == 100.0
    assert found["A2A stream, CPU per event, times the floor's"].cells == ("4", "<= 2.5", "MISSED")
    assert found["A2A 0.3 to 1.0, added p50"].cells == ("0.25 ms", "<= 0.3", "met")
    assert found["A2A 1.0 to 0.3, added p50"].missed and found["memory of an idle subscriber"].missed
    assert found["CPU of 2,000 idle subscribers"].cells[0] == "3 % of a core"


def test_wrong_replies_are_a_figure_with_the_target_none() -> None:
    wrong = Run("floor", "a2a.send", 1, 1.0, 1.0, 1.0, 1.0, errors=1)
    assert next(f for f in figures.figures([wrong], Whole()) if f.name == "wrong replies").missed


def test_the_document_has_the_published_shape() -> None:
    document = json.loads(
        json.dumps(figures.document(rows(1_100.0), Whole(cold_start_s=1.0, idle_mb=100.0, loaded_mb=120.0, fsync_ms=0.5), {"commit": "x"}))
    )
    assert {"runs", "cold_start_s", "idle_mb", "fsync_ms"} <= document.keys()
    assert all(
        row.keys() == {"target", "workload", "connections", "req_s", "p50_ms", "p99_ms", "cpu_us", "errors"} for row in document["runs"]
    )


def test_the_table_has_a_line_for_every_row_and_every_figure() -> None:
    text = figures.table(rows(1_600.0), Whole(fsync_ms=0.5))
    assert sum(line.startswith("mcp.tools_call ") for line in text.splitlines()) == 9
    assert "0.5 ms" in text and "MISSED" not in text


def test_a_reply_in_pieces_is_waited_for() -> None:
    whole = http(b'{"a":1}')
    assert all(whole_reply(whole[:cut]) is None for cut in range(len(whole)))
    assert whole_reply(whole) == (200, b'{"a":1}')


def test_a_chunked_reply_is_joined() -> None:
    reply = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'
    assert whole_reply(reply[:-1]) is None
    assert whole_reply(reply) == (200, b'{"a":1}')


@pytest.mark.parametrize("reply", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", http(b"{}") + b"more"])
def test_what_is_no_reply_to_one_call_is_refused(reply: bytes) -> None:
    with pytest.raises(ValueError, match="reply"):
        whole_reply(reply)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_two_requests_have_one_text_and_people_take_turns(workload: str) -> None:
    script = Script(WORKLOADS[workload], ("h", 1, "/x"), ["alice", "bob"], "0123abcd")
    requests = [script.request(FIRST_ID + n) for n in range(100)]
    assert len({request.partition(b"\r\n\r\n")[2] for request in requests}) == 100
    assert [b"Bearer alice" in request for request in requests[:4]] == [True, False, True, False]
    for request in requests:
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"
        json.loads(body)


def test_the_echo_server_speaks_the_revision_and_refuses_what_is_not_it() -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}

    def code(method: str, headers: dict[bytes, bytes], **params: object) -> tuple[int, object]:
        sent = {b"mcp-protocol-version": b"2026-07-28", b"mcp-method": method.encode(), **headers}
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}
        status, body = answer_request("/mcp", sent, json.dumps(request).encode())
        return status, json.loads(body).get("error", {}).get("code")

    assert code("server/discover", {}) == code("tools/list", {}) == (200, None)
    assert code("tools/call", {b"mcp-name": b"echo"}, name="echo", arguments={"text": "t"}) == (200, None)
    assert code("tools/call", {b"mcp-name": b"other"}, name="echo", arguments={"text": "t"}) == (400, -32020)
    assert code("tools/list", {}, _meta={}) == (400, -32602)
    assert code("tools/list", {}, _meta={**meta, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}) == (400, -32022)
    assert code("initialize", {}) == (404, -32601)
    assert answer_request("/mcp", {}, b"\xff")[0] == answer_request("/a2a", {b"a2a-version": b"1.0"}, b"[]")[0] == 400


def test_the_echo_agents_card_names_its_address() -> None:
    assert agent_card("http://127.0.0.1:1")["supportedInterfaces"][0]["url"] == "http://127.0.0.1:1/a2a"
    assert agent_card("http://127.0.0.1:1", "/older")["url"] == "http://127.0.0.1:1/older"


def test_a_call_may_be_about_a_subject_of_its_person() -> None:
    script = Script(WORKLOADS["a2a_get"], ("h", 1, "/x"), ["alice", "bob"], "0123abcd", ["t_alice", "t_bobby"])
    for number in range(FIRST_ID, FIRST_ID + 4):
        request = script.request(number)
        assert (b"Bearer alice" in request, b'"t_alice"' in request) in ((True, True), (False, False))
        assert script.text(number).encode() in request


@pytest.mark.parametrize("workload", WORKLOADS)
async def test_an_honest_upstream_has_no_error(upstream: Running, workload: str) -> None:
    sample = await run(job(upstream.port, workload, warmup=0.05, pid=upstream.pid))
    assert (sample.errors, sample.fault) == (0, "")
    assert sample.calls > 0
    assert 0 < sample.p50_s <= sample.p99_s < sample.wall_s


async def test_a_bounded_job_makes_exactly_its_calls() -> None:
    heard: list[bytes] = []

    def answer(body: bytes) -> bytes:
        heard.append(body)
        return honest(body)

    async with answering(answer) as port:
        sample = await run(job(port, calls=37, seconds=20.0))
    assert (sample.calls, len(set(heard)), sample.errors) == (37, 37, 0)


LIES: dict[str, Answer] = {
    "another text": lambda body: honest(body.replace(b"kettle", b"teapot")),
    "the reply to another call": lambda body: honest(body.replace(b'"id":1', b'"id":2')),
    "HTTP 500": lambda body: honest(body).replace(b"200 OK", b"500 Oh"),
    "no JSON": lambda body: http(b"<html>"),
    "two replies": lambda body: honest(body) * 2,
    "hanging up": lambda body: b"",
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_upstream_is_found_out(lie: str) -> None:
    async with answering(LIES[lie]) as port:
        sample = await run(job(port, calls=8, seconds=20.0))
    assert sample.errors >= 4, sample
    assert sample.fault


async def test_one_lie_among_many_replies_is_counted() -> None:
    def answer(body: bytes) -> bytes:
        return honest(body.replace(b"kettle", b"teapot") if b'"id":1000000005' in body else body)

    async with answering(answer) as port:
        sample = await run(job(port, calls=20, seconds=20.0))
    assert (sample.calls, sample.errors) == (20, 1)


async def test_a_job_without_one_reply_is_an_error_too(upstream: Running) -> None:
    sample = await run(job(upstream.port, seconds=0.0))
    assert (sample.calls, sample.errors) == (0, 1)


def test_the_floor_passes_calls_through_and_the_client_has_its_own_process(upstream: Running, tmp_path: Path) -> None:
    plan = Plan(rounds=2, seconds=0.3, warmup=0.0)
    with (
        asgi_server("tests.bench.floor:app", tmp_path, **{UPSTREAM: upstream.url}) as floor,
        LoadClient.started(tmp_path) as client,
    ):
        targets = [Target(name, running, PATHS, ["t"]) for name, running in (("direct", upstream), ("floor", floor))]
        found = measure_rows(client, plan, targets, connections=(2,))
    assert [(row.workload, row.target, row.errors) for row in found] == [
        ("mcp.tools_call", "direct", 0),
        ("mcp.tools_call", "floor", 0),
        ("a2a.send", "direct", 0),
        ("a2a.send", "floor", 0),
    ]
    assert all(row.req_s > 0 for row in found)


def test_a_load_client_that_dies_ends_the_benchmark(upstream: Running, tmp_path: Path) -> None:
    with LoadClient.started(tmp_path) as client, pytest.raises(BenchFailure, match="the load client ended"):
        client.run(job(free_port()))


class RecordingClient(LoadClient):
    """Runs nothing; keeps the jobs."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job) -> Sample:
        self.jobs.append(job)
        return Sample(1, 1.0, 0.0, 0.001, 0.001, 0, "")


def test_targets_take_turns_and_each_round_begins_with_another() -> None:
    client = RecordingClient()
    targets = [Target(name, Running(1, port, Path()), PATHS, ["t"]) for port, name in enumerate(("direct", "floor", "interlock"))]
    order = [name for _, _, name, _ in run_interleaved(client, Plan(workloads=("mcp",), rounds=3), targets, connections=(16,))]
    assert order == ["direct", "floor", "interlock", "floor", "interlock", "direct", "interlock", "direct", "floor"]
    assert len({sent.nonce for sent in client.jobs}) == len(client.jobs)


def test_a_server_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(BenchFailure, match="no_such_app"), asgi_server("tests.bench.no_such_app:app", tmp_path):
        pass


def test_own_processes_are_measured_through_proc() -> None:
    assert cpu_seconds(os.getpid()) > 0
    assert resident_mb(os.getpid()) > 1


def test_no_setting_of_a_gateway_leaks_into_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_TELEMETRY__SAMPLE", "0")
    assert "INTERLOCK_TELEMETRY__SAMPLE" not in environment()


def test_a_process_that_ends_early_is_a_failure(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchFailure, match="ended by itself"),
        run_process(["true"], port=free_port(), cwd=tmp_path, log=tmp_path / "log", env={}) as gone,
    ):
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)


def test_a_profile_puts_time_down_to_the_running_function_and_all_that_called_it() -> None:
    samples = Samples()
    samples.take(sys._getframe(), 3.0, "main")
    samples.take(sys._getframe().f_back, 1.0, "main")
    own = next(
        name for name in samples.own if name.endswith("test_a_profile_puts_time_down_to_the_running_function_and_all_that_called_it")
    )
    assert samples.own[own] == samples.within[own] == 3.0
    assert samples.threads == {"main": 4.0}
    assert f" 75.0%  {own}" in samples.report()


def test_options_change_the_plan() -> None:
    assert command.plan_of([]) == Plan()
    quick = command.plan_of(["--quick", "--only", "a2a", "--seconds", "1.5", "--targets", "direct,floor"])
    assert (quick.rounds, quick.workloads, quick.seconds, quick.targets) == (1, ("a2a",), 1.5, ("direct", "floor"))
