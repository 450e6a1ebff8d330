"""What a client sees of admission: it waits, or it is refused before its request is read, and probes are answered."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.calls.limits.slots import Overloaded
from gateway.concurrency.admission import WAIT_SECONDS, Admission, AdmissionLimits
from gateway.ingress.http.asgi import read_body, respond
from gateway.server.sockets.admission.admitted_requests import RefusalReports, RequestAdmission
from gateway.server.sockets.client_limits import PIPELINED_MAX, ClientLimits, Connections
from tests.fakes.sockets import Client, FakeLoop
from tests.fakes.waiting import until
from tests.gateway.concurrency.test_admission import TARGET, Loop

OWNERS = {"ann-token": "t|i|ann", "bob-token": "t|i|bob", "ann-session": "t|i|ann"}
LIMITS = ClientLimits(header_seconds=3600, body_seconds=3600, idle_seconds=3600, send_seconds=3600)


class Application:
    """Answers with the body, and to /stream with an event whenever the test says."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.next_event = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        if scope["path"] != "/stream":
            await respond(send, 200, await read_body(scope, receive, 1 << 20))
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in (1, 2):
            await send({"type": "http.response.body", "body": b"event %d" % number, "more_body": number == 1})
            await self.next_event.wait()


class Process:
    """The sockets of a gateway whose writer the test holds, so that nothing starts."""

    def __init__(self, waiting_max: int = 0, limits: ClientLimits = LIMITS) -> None:
        self.app = Application()
        self.turns = Loop()
        self.writer_wait = 0.0
        self.admission = Admission(AdmissionLimits(TARGET, waiting_max), lambda: self.writer_wait, self.turns.clock, self.turns)
        self.counted: list[str] = []
        self.reported: dict[str, int] = {}
        self.released = asyncio.Event()
        release = asyncio.get_running_loop().call_soon_threadsafe
        self.reports = RefusalReports(self.admission, self.counted.append, self.reported.__setitem__, lambda: release(self.released.set))
        self.requests = RequestAdmission(self.admission, lambda token: OWNERS.get(token, ""), self.reports)
        self._connections = Connections(limits, admission=self.requests)
        self._loop = FakeLoop()

    def connect(self) -> Client:
        return Client(self.app, self._connections, self._loop)

    def overload(self) -> None:
        self.writer_wait = 60.0
        self.admission.has_room("")
        self.turns.iterate(TARGET / 100)
        assert not self.admission.can_start()

    def calm(self) -> None:
        self.writer_wait = 0.0
        for _ in range(3):
            self.turns.iterate(TARGET)


@pytest.fixture
async def process() -> Process:
    return Process()


def post(path: str = "/mcp", token: str = "ann-token", body: bytes = b"hello", extra: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path.encode(), token.encode(), extra, len(body)) + body


def get(path: str, token: str = "ann-token") -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % (path.encode(), token.encode())


def statuses(client: Client) -> list[int]:
    return [int(answer[:3]) for answer in client.wire.sent.split(b"HTTP/1.1 ")[1:]]


def send_in_pieces(client: Client, data: bytes) -> None:
    client.send(data[:30])
    client.send(data[30:])


WAYS: dict[str, Callable[[Client, bytes], None]] = {"whole": Client.send, "in pieces": send_in_pieces}


# attack PRO-12
@pytest.mark.parametrize("way", WAYS)
async def test_a_refused_request_is_answered_before_it_is_read_by_the_gateway(process: Process, way: str) -> None:
    client = process.connect()
    process.overload()
    WAYS[way](client, post())
    await until(lambda: client.status > 0)
    head, _, body = client.wire.sent.partition(b"\r\n\r\n")
    assert client.status == 503 and b"retry-after: " in head and b"application/problem+json" in head
    assert json.loads(body)["reason_id"] == "overloaded" and not process.app.paths and process.counted == ["known"]


@pytest.mark.parametrize("way", WAYS)
async def test_the_connection_of_a_refused_request_serves_the_next_one(process: Process, way: str) -> None:
    client = process.connect()
    process.overload()
    for _ in range(3):
        WAYS[way](client, post())
    process.calm()
    WAYS[way](client, post(body=b"again"))
    await client.answered()
    assert statuses(client) == [503, 503, 503, 200] and client.wire.sent.endswith(b"again") and not client.wire.closed


async def test_a_body_that_comes_after_its_refusal_is_dropped(process: Process) -> None:
    client = process.connect()
    process.overload()
    request = post(body=b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    client.send(request[:90])
    process.calm()
    client.send(request[90:])
    client.send(post(body=b"next"))
    await client.answered()
    assert statuses(client) == [503, 200] and process.app.paths == ["/mcp"]


async def test_a_client_that_waits_for_leave_to_send_its_body_is_refused_and_closed(process: Process) -> None:
    client = process.connect()
    process.overload()
    client.send(post(extra=b"Expect: 100-continue\r\n", body=b"")[:-4] + b"\r\n\r\n")
    assert client.status == 503 and client.wire.closed == "closed" and b"100 Continue" not in client.wire.sent


async def test_a_refused_head_request_gets_no_body(process: Process) -> None:
    client = process.connect()
    process.overload()
    client.send(get("/mcp").replace(b"GET", b"HEAD"))
    assert client.status == 503 and client.wire.sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_are_answered_while_nothing_starts(process: Process, path: str) -> None:
    client = process.connect()
    process.overload()
    client.send(get(path))
    await client.answered()
    assert client.status == 200


@pytest.mark.parametrize("path", ["/api/kill", "/metrics", "/console/tasks", "/api/grants/g_1"])
async def test_administration_is_answered_while_nothing_else_starts(process: Process, path: str) -> None:
    client = process.connect()
    process.overload()
    client.send(get(path))
    assert client.status == 0
    process.turns.iterate(0.05)
    await client.answered()
    assert client.status == 200


async def test_a_request_that_may_wait_starts_when_there_is_time() -> None:
    process = Process(waiting_max=100)
    client = process.connect()
    process.overload()
    client.send(post())
    assert client.status == 0 and process.admission.waiting_count == 1
    process.calm()
    await client.answered()
    assert client.status == 200 and process.admission.waiting_count == 0


async def test_a_request_that_waited_too_long_is_refused() -> None:
    process = Process(waiting_max=100)
    client = process.connect()
    process.overload()
    client.send(post())
    process.turns.iterate(WAIT_SECONDS * 2)
    assert client.status == 503 and not client.wire.closed


async def test_a_request_whose_client_has_gone_is_never_started() -> None:
    process = Process(waiting_max=100)
    client = process.connect()
    process.overload()
    client.send(post())
    client.wire.close()
    process.calm()
    await client.answered()
    assert not process.app.paths


# attack AVL-03
async def test_a_flood_by_one_user_refuses_that_user_and_serves_another() -> None:
    process = Process(waiting_max=100)
    flood = [process.connect() for _ in range(300)]
    process.overload()
    for client in flood:
        client.send(post())
    bob = process.connect()
    bob.send(post(token="bob-token"))
    process.requests.refusal_batch.write()
    assert bob.status == 0 and sum(client.status == 503 for client in flood) == 250
    process.calm()
    await bob.answered()
    assert bob.status == 200


async def test_a_refused_client_is_answered_before_its_connection_makes_room() -> None:
    process = Process(limits=replace(LIMITS, connections=1))
    refused = process.connect()
    process.overload()
    refused.send(post())
    process.connect()
    assert refused.wire.closed and refused.status == 503


async def test_unknown_tokens_share_the_place_of_their_address() -> None:
    process = Process(waiting_max=100)
    strangers = [process.connect() for _ in range(200)]
    process.overload()
    for number, client in enumerate(strangers):
        client.send(post(token=f"made-up-{number}"))
    process.requests.refusal_batch.write()
    assert sum(client.status == 503 for client in strangers) == 150 and set(process.counted) == {"unknown"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["__Host-interlock-console", "interlock-console-8080"])
async def test_an_operator_in_the_console_has_a_place_beside_strangers(process: Process, way: str, name: str) -> None:
    """A session's cookie says whose a request is, so that a flood of pages without one does not shut operators out."""
    strangers = [process.connect() for _ in range(100)]
    process.overload()
    for client in strangers:
        client.send(b"GET /console HTTP/1.1\r\nHost: x\r\nCookie: %s=made-up\r\n\r\n" % name.encode())
    operator = process.connect()
    WAYS[way](operator, b"GET /console HTTP/1.1\r\nHost: x\r\nCookie: a=b; %s=ann-session; c=d\r\n\r\n" % name.encode())
    assert set(process.counted) == {"unknown"} and operator.status == 0
    for _ in range(2):
        process.turns.iterate(0.05)
    await operator.answered()
    assert operator.status == 200


async def test_a_stream_that_was_admitted_before_goes_on(process: Process) -> None:
    reader, other = process.connect(), process.connect()
    reader.send(get("/stream"))
    await until(lambda: b"event 1" in reader.wire.sent)
    process.overload()
    other.send(post())
    process.app.next_event.set()
    await reader.answered()
    assert other.status == 503 and b"event 2" in reader.wire.sent and not reader.wire.closed


async def test_pipelined_requests_are_refused_one_after_the_other(process: Process) -> None:
    client = process.connect()
    process.overload()
    client.send(post() * 3)
    assert statuses(client) == [503, 503, 503]


# attack PRO-12
@pytest.mark.parametrize("offer", [b"", b"Connection: upgrade\r\nUpgrade: h2c\r\n"])
async def test_no_read_has_more_refused_requests_than_requests_that_may_wait(process: Process, offer: bytes) -> None:
    client = process.connect()
    process.overload()
    client.send(post(extra=offer) * 2000)
    assert statuses(client) == [503] * (PIPELINED_MAX + 1) and client.wire.closed
    assert len(process.counted) == PIPELINED_MAX + 1


# attack PRO-07
async def test_nothing_starts_behind_a_refusal_that_closes_the_connection(process: Process) -> None:
    client = process.connect()
    process.overload()
    client.send(post(extra=b"Connection: close\r\n") + get("/livez"))
    await client.answered()
    assert statuses(client) == [503] and client.wire.closed and not process.app.paths


async def test_refusals_are_written_after_all_requests_of_an_iteration_were_read(process: Process) -> None:
    clients = [process.connect() for _ in range(3)]
    process.overload()
    for client in clients:
        client.send(post())
    assert not any(client.wire.sent for client in clients)
    await until(lambda: clients[0].status > 0)
    assert [statuses(client) for client in clients] == [[503], [503], [503]]


async def test_the_answer_to_the_next_request_never_overtakes_a_refusal(process: Process) -> None:
    client = process.connect()
    process.overload()
    client.send(post())
    client.send(b"not HTTP\r\n\r\n")
    assert statuses(client) == [503, 400] and client.wire.closed


async def test_a_refusal_for_a_client_that_has_gone_stops_no_other(process: Process) -> None:
    gone, waiting = process.connect(), process.connect()
    process.overload()
    gone.send(post())
    waiting.send(post())
    gone.wire.closed = "by the client"
    await until(lambda: waiting.status > 0)
    assert (statuses(gone), statuses(waiting)) == ([], [503])


async def test_a_process_that_stops_writes_its_last_refusals(process: Process) -> None:
    client = process.connect()
    process.overload()
    client.send(post())
    client.protocol.shutdown()
    assert statuses(client) == [503] and client.wire.closed


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_reads_no_refusal_is_closed(process: Process, way: str) -> None:
    client = process.connect()
    process.overload()
    client.protocol.pause_writing()
    client.wire.waiting = 1
    WAYS[way](client, post())
    assert client.wire.closed == "aborted" and client.wire.sent == b""


async def test_refusals_are_reported_with_their_numbers(process: Process) -> None:
    process.overload()
    for token in ("ann-token", "ann-token", "bob-token", "made-up"):
        process.connect().send(post(token=token))
    with capture_logs() as lines:
        process.reports.report()
    (line,) = lines
    assert (line["event"], line["known"], line["unknown"]) == ("overload_refused", 3, 1)
    assert process.reported == {"t|i|ann": 2, "t|i|bob": 1}
    await process.released.wait()


async def test_a_call_over_grpc_waits_or_is_refused_like_a_request() -> None:
    process = Process(waiting_max=10)
    process.overload()
    waiting = [asyncio.create_task(process.requests.admit_call("Bearer ann-token", "ipv4:10.0.0.1")) for _ in range(8)]
    await asyncio.sleep(0)
    refused = [task for task in waiting if task.done()]
    assert len(refused) == 3 and all(isinstance(task.exception(), Overloaded) for task in refused)
    process.calm()
    await asyncio.gather(*(task for task in waiting if task not in refused))


async def test_a_canceled_call_over_grpc_does_not_use_up_a_start() -> None:
    process = Process(waiting_max=10)
    process.overload()
    call = asyncio.create_task(process.requests.admit_call(None, ""))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    process.calm()
    assert process.admission.waiting_count == 0
