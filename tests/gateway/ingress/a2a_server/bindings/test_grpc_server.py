"""The gRPC door by itself: all operations in both versions, every error, and clients that leave."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from a2a.client.errors import A2AClientError
from a2a.compat.v0_3 import a2a_v0_3_pb2 as pb03
from a2a.types import a2a_pb2 as pb1
from a2a.utils.errors import A2AError
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2

from adapters.a2a_client.protobuf import STATUS_DETAILS_KEY, to_json
from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import Role, TaskState
from gateway.calls.authorizer import CallRefused
from gateway.ingress.a2a_server.bindings.grpc_methods import SERVICE_0_3, SERVICE_1_0
from gateway.ingress.http.errors import ERROR_MAPPINGS, FIELD_ERRORS, UNEXPECTED_ERROR, VersionNotSupported
from tests.fakes.grpc_door import CARD, EVENTS, MESSAGE, TASK, Canned, Gate, Opened, opened
from tests.fakes.waiting import until

HELLO = pb1.Message(message_id="m-1", role="ROLE_USER", parts=[pb1.Part(text="hi")], metadata={"n": 1})
PUSH = pb1.TaskPushNotificationConfig(tenant="sales", task_id="t", id="p", url="https://hook.example/", token="secret")


def send(**configuration: Any) -> pb1.SendMessageRequest:
    given = pb1.SendMessageConfiguration(accepted_output_modes=["text/plain"], history_length=2, **configuration)
    return pb1.SendMessageRequest(tenant="sales", message=HELLO, configuration=given)


@pytest.fixture
async def canned() -> Canned:
    return Canned()


@pytest.fixture
async def door(canned: Canned) -> AsyncIterator[Opened]:
    async with opened(canned, Gate()) as built:
        yield built


def context(version: str, **metadata: str) -> Any:
    """Where 1.0 names the agent in the request, 0.3 names it beside."""
    return Opened.as_(**metadata, **({"a2a_tenant": "sales"} if version == "0.3" else {}))


both_versions = pytest.mark.parametrize("version", ["1.0", "0.3"])


@both_versions
async def test_the_reference_client_sends_and_reads_tasks(door: Opened, canned: Canned, version: str) -> None:
    client = door.clients[version]
    sent = await client.send_message(send(), context=context(version))
    read = await client.get_task(pb1.GetTaskRequest(tenant="sales", id="t", history_length=3), context=context(version))
    canceled = await client.cancel_task(pb1.CancelTaskRequest(tenant="sales", id="t"), context=context(version))
    assert to_json(sent.task) == to_json(read) == to_json(canceled)
    assert (read.id, read.status.state, read.artifacts[0].name) == ("t", pb1.TASK_STATE_CANCELED, "result")
    assert read.status.message.parts[2].raw == b"hi"
    assert [name for name, _, _ in canned.asked] == ["send", "get_task", "cancel"]
    assert all((asked.agent, asked.caller) == ("sales", "alice") for _, asked, _ in canned.asked)
    params = canned.asked[0][2]
    assert (params.message.message_id, params.message.role, params.message.metadata) == ("m-1", Role.USER, {"n": 1})
    assert (params.configuration.history_length, params.configuration.accepted_output_modes) == (2, ("text/plain",))
    assert not params.configuration.return_immediately
    assert (canned.asked[1][2].id, canned.asked[1][2].history_length) == ("t", 3)


async def test_a_client_says_until_when_it_waits(door: Opened, canned: Canned) -> None:
    called = door.channel.unary_unary(f"/{SERVICE_1_0.name}/SendMessage")
    for text, last in (("2026-11-21T10:00:00.5Z", 1795255200.5), ("tomorrow", None)):
        metadata = (("authorization", "Bearer good"), ("a2a-version", "1.0"), ("interlock-deadline", text))
        try:
            await called(send().SerializeToString(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            assert last is None and error.code() is grpc.StatusCode.INVALID_ARGUMENT
        else:
            assert canned.asked[-1][1].trace_context.deadline == last
    assert len(canned.asked) == 1


@both_versions
async def test_a_client_that_does_not_wait_says_so(door: Opened, canned: Canned, version: str) -> None:
    await door.clients[version].send_message(send(return_immediately=True), context=context(version))
    assert canned.asked[0][2].configuration.return_immediately


@both_versions
async def test_a_message_may_be_the_answer(door: Opened, canned: Canned, version: str) -> None:
    canned.answers["send"] = MESSAGE
    sent = await door.clients[version].send_message(send(), context=context(version))
    assert [part.WhichOneof("content") for part in sent.message.parts] == ["text", "data", "raw"]


@both_versions
async def test_a_stream_brings_every_event_and_ends(door: Opened, canned: Canned, version: str) -> None:
    client = door.clients[version]
    streamed = [to_json(event) async for event in client.send_message_streaming(send(), context=context(version))]
    subscribed = [
        to_json(event) async for event in client.subscribe(pb1.SubscribeToTaskRequest(tenant="sales", id="t"), context=context(version))
    ]
    assert streamed == subscribed
    assert [next(iter(event)) for event in streamed] == ["task", "message", "artifactUpdate", "statusUpdate"]
    assert streamed[2]["artifactUpdate"] | {"artifact": {}} == {
        "taskId": "t",
        "contextId": "c",
        "artifact": {},
        "append": True,
        "lastChunk": True,
    }
    assert [name for name, _, _ in canned.asked] == ["stream", "subscribe"]


async def test_in_0_3_the_last_event_of_a_stream_is_marked(door: Opened) -> None:
    request = pb03.TaskSubscriptionRequest(name="tasks/t").SerializeToString()
    call = door.channel.unary_stream("/a2a.v1.A2AService/TaskSubscription")
    events = call(request, metadata=(("authorization", "Bearer good"), ("a2a-tenant", "sales")))
    last = [pb03.StreamResponse.FromString(event) async for event in events][-1]
    assert last.status_update.final
    assert last.status_update.status.state == pb03.TASK_STATE_CANCELLED


async def test_tasks_are_listed(door: Opened, canned: Canned) -> None:
    request = pb1.ListTasksRequest(
        tenant="sales", context_id="c", status="TASK_STATE_WORKING", page_size=10, page_token="k", history_length=1, include_artifacts=True
    )
    request.status_timestamp_after.FromJsonString("2026-01-02T03:04:05Z")
    page = await door.clients["1.0"].list_tasks(request, context=context("1.0"))
    assert (page.next_page_token, page.page_size, page.total_size, page.tasks[0].id) == ("next", 10, 11, "t")
    params = canned.asked[0][2]
    assert (params.context_id, params.status, params.page_size, params.page_token) == ("c", TaskState.WORKING, 10, "k")
    assert (params.history_length, params.include_artifacts, params.status_timestamp_after) == (1, True, "2026-01-02T03:04:05Z")


@both_versions
async def test_push_configs_are_made_read_listed_and_deleted(door: Opened, canned: Canned, version: str) -> None:
    client, given = door.clients[version], context(version)
    made = await client.create_task_push_notification_config(PUSH, context=given)
    request = pb1.GetTaskPushNotificationConfigRequest(tenant="sales", task_id="t", id="p")
    read = await client.get_task_push_notification_config(request, context=given)
    listing = pb1.ListTaskPushNotificationConfigsRequest(tenant="sales", task_id="t")
    listed = await client.list_task_push_notification_configs(listing, context=given)
    await client.delete_task_push_notification_config(
        pb1.DeleteTaskPushNotificationConfigRequest(tenant="sales", task_id="t", id="p"), context=given
    )
    for config in (made, read, listed.configs[0]):
        assert (config.task_id, config.id, config.url, config.token) == ("t", "p", "https://hook.example/", "")
        assert config.authentication.scheme == "Bearer"
    assert [name for name, _, _ in canned.asked] == ["create_push", "get_push", "list_push", "delete_push"]
    params = canned.asked[0][2]
    assert (params.task_id, params.id, params.url, params.token) == ("t", "p", "https://hook.example/", "secret")
    assert all((params.task_id, getattr(params, "id", "p")) == ("t", "p") for _, _, params in canned.asked)


async def test_a_config_may_come_with_a_message_of_0_3(door: Opened, canned: Canned) -> None:
    await door.clients["0.3"].send_message(send(task_push_notification_config=PUSH), context=context("0.3"))
    config = canned.asked[0][2].configuration.task_push_notification_config
    assert "hook.example" in str(config) or "hook.example" in config.url


async def test_the_extended_card_comes_in_both_versions(door: Opened) -> None:
    card = await door.clients["1.0"].get_extended_agent_card(pb1.GetExtendedAgentCardRequest(tenant="sales"), context=context("1.0"))
    assert MessageToDict(card) == CARD
    raw = await door.call("/a2a.v1.A2AService/GetAgentCard", b"", {"authorization": "Bearer good", "a2a-tenant": "sales"})
    older = MessageToDict(pb03.AgentCard.FromString(raw))
    assert (older["name"], older["url"], older["preferredTransport"], older["protocolVersion"]) == (
        "Sales",
        "http://x/agents/sales",
        "JSONRPC",
        "0.3.0",
    )
    assert older["additionalInterfaces"] == [{"url": "x:9", "transport": "GRPC"}]
    assert older["security"] == [{"schemes": {"bearer": {"list": ["agent:sales"]}}}]
    assert older["skills"][0]["id"] == "s"
    assert older["supportsAuthenticatedExtendedCard"] is True
    assert "signatures" not in older


def test_every_method_of_both_services_is_served() -> None:
    for service, described in ((SERVICE_1_0, pb1.DESCRIPTOR), (SERVICE_0_3, pb03.DESCRIPTOR)):
        (theirs,) = described.services_by_name.values()
        assert service.name == theirs.full_name
        served = {
            name: (method.request.DESCRIPTOR.name, method.response.DESCRIPTOR.name, method.a2a.is_streaming)
            for name, method in service.methods.items()
        }
        assert served == {
            method.name: (method.input_type.name, method.output_type.name, method.server_streaming) for method in theirs.methods
        }


GET = "/lf.a2a.v1.A2AService/GetTask"
GOOD = {"authorization": "Bearer good"}
ASKING = pb1.GetTaskRequest(tenant="sales", id="t").SerializeToString()


async def refused(door: Opened, method: str = GET, body: bytes = ASKING, metadata: Any = None) -> tuple[str, list[Any], str]:
    """The code, the details, and the message."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await door.call(method, body, GOOD if metadata is None else metadata)
    error = raised.value
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing[STATUS_DETAILS_KEY])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    details = []
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()):
            if packed.Unpack(kind):
                details.append(kind)
    return error.code().name, details, str(error.details())


def instance(kind: type[Exception]) -> Exception:
    if kind is VersionNotSupported:
        return VersionNotSupported(("1.0",))
    error = kind.__new__(kind)
    Exception.__init__(error, "field says why")
    vars(error).update(public="says why", reason="missing", retry_after=1, error="invalid_dpop_proof", nonce="", task_id="t-1")
    vars(error).update(field="message.parts", problem="is empty")
    return error


NAMED = {  # A2A 1.0 s5.4
    "TASK_NOT_FOUND": "NOT_FOUND",
    "CONTENT_TYPE_NOT_SUPPORTED": "INVALID_ARGUMENT",
    "INVALID_AGENT_RESPONSE": "INTERNAL",
}


@pytest.mark.parametrize("kind", [kind for kind in ERROR_MAPPINGS if not issubclass(kind, CallRefused)], ids=lambda kind: kind.__name__)
async def test_every_error_has_its_status_and_its_details(door: Opened, canned: Canned, kind: type[Exception]) -> None:
    canned.error, row = instance(kind), ERROR_MAPPINGS[kind]
    code, (*wrong, info), _ = await refused(door)
    assert code == (NAMED.get(row.a2a_reason, "FAILED_PRECONDITION") if row.a2a_reason else row.rpc_code)
    assert (info.reason, info.domain) == (
        (row.a2a_reason, "a2a-protocol.org") if row.a2a_reason else (row.reason_id.upper().replace("-", "_"), "interlock")
    )
    assert [each.field_violations[0].field for each in wrong] == (["message.parts"] if issubclass(kind, FIELD_ERRORS) else [])


async def test_what_nobody_foresaw_is_an_internal_error_that_tells_nothing(door: Opened, canned: Canned) -> None:
    canned.error = RuntimeError("the gateway's secret")
    code, _, text = await refused(door)
    assert (code, text) == ("INTERNAL", UNEXPECTED_ERROR.public_text)


async def test_an_error_of_a_stream_is_a_status_too(door: Opened, canned: Canned) -> None:
    canned.error = BadMessage("message.parts", "is empty")
    with pytest.raises((A2AError, A2AClientError), match=r"message\.parts"):
        async for _ in door.clients["1.0"].send_message_streaming(send(), context=context("1.0")):
            pass


@pytest.mark.parametrize(
    "method", [GET, "/lf.a2a.v1.A2AService/SendMessage", "/a2a.v1.A2AService/GetTask", "/a2a.v1.A2AService/CancelTask"]
)
@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"", b"\x0a"])
async def test_a_request_that_can_not_be_read_is_the_clients_fault(door: Opened, canned: Canned, method: str, body: bytes) -> None:
    code, (detail, _), _ = await refused(door, method, body, {**GOOD, "a2a-tenant": "sales"})
    assert code == "INVALID_ARGUMENT"
    assert detail.field_violations[0].description
    assert not canned.asked


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Bearer bad"}, {"authorization": "Basic good"}])
async def test_nobody_enters_without_a_token(door: Opened, canned: Canned, metadata: dict[str, str]) -> None:
    code, _, _ = await refused(door, metadata=metadata)
    assert code == "UNAUTHENTICATED"
    assert not canned.asked


async def test_a_token_is_asked_for_before_anything_is_said_of_agents(door: Opened) -> None:
    for tenant in ("", "No Such Agent", "nobody"):
        assert (await refused(door, body=pb1.GetTaskRequest(tenant=tenant, id="t").SerializeToString(), metadata={}))[
            0
        ] == "UNAUTHENTICATED"


async def test_a_token_is_vetted_for_the_agent_that_is_called() -> None:
    gate = Gate()
    async with opened(Canned(), gate) as door:
        await door.call(GET, ASKING, GOOD)
        await door.call(
            "/a2a.v1.A2AService/GetTask", pb03.GetTaskRequest(name="tasks/t").SerializeToString(), {**GOOD, "a2a-tenant": "support"}
        )
    assert gate.resources == ["/agents/sales", "/agents/support"]


async def test_an_agent_has_to_be_named_once(door: Opened) -> None:
    nameless = pb1.GetTaskRequest(id="t").SerializeToString()
    code, (detail, _), _ = await refused(door, body=nameless)
    assert (code, detail.field_violations[0].field) == ("INVALID_ARGUMENT", "tenant")
    assert await door.call(GET, nameless, {**GOOD, "a2a-tenant": "sales"})
    assert await door.call(GET, ASKING, {**GOOD, "a2a-tenant": "sales"})
    code, (detail, _), _ = await refused(door, metadata={**GOOD, "a2a-tenant": "support"})
    assert (code, detail.field_violations[0].field) == ("INVALID_ARGUMENT", "tenant")
    assert (await refused(door, body=pb1.GetTaskRequest(tenant="../x", id="t").SerializeToString()))[0] == "NOT_FOUND"


@pytest.mark.parametrize("version", ["1.0", "1.0.1", ""])
async def test_a_version_that_is_served_may_be_named(door: Opened, version: str) -> None:
    assert await door.call(GET, ASKING, {**GOOD, "a2a-version": version})


@pytest.mark.parametrize("version", ["1", "1.7", "0.3", "2.0", "1.0.x", "one"])
async def test_another_version_is_not_supported(door: Opened, version: str) -> None:
    code, (detail,), _ = await refused(door, metadata={**GOOD, "a2a-version": version})
    assert (code, detail.reason) == ("FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED")


@pytest.mark.parametrize("key", ["authorization", "a2a-tenant", "a2a-version", "idempotency-key"])
async def test_what_decides_something_may_not_be_said_twice(door: Opened, key: str) -> None:
    pairs = (("authorization", "Bearer good"), ("a2a-tenant", "sales"), ("a2a-version", "1.0"), ("idempotency-key", "k"))
    value = dict(pairs)[key]
    assert (await refused(door, metadata=(*pairs, (key, value))))[0] == "INVALID_ARGUMENT"


async def test_extensions_and_the_idempotency_key_are_metadata(door: Opened, canned: Canned) -> None:
    pairs = (("authorization", "Bearer good"), ("a2a-extensions", "urn:a, urn:b"), ("x-a2a-extensions", "urn:c"), ("idempotency-key", "k"))
    call = door.channel.unary_unary(GET)(ASKING, metadata=pairs, timeout=60)
    await call
    assert dict(await call.initial_metadata())["a2a-extensions"] == "urn:a, urn:b, urn:c"  # those in force
    asked = canned.asked[0][1]
    assert (asked.extensions, asked.idempotency_key) == ({"urn:a", "urn:b", "urn:c"}, "k")
    assert (await refused(door, metadata={**GOOD, "idempotency-key": "k" * 257}))[0] == "INVALID_ARGUMENT"


async def test_a_request_has_a_limit() -> None:
    async with opened(Canned(), Gate(), max_body=2048) as door:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await door.call(GET, pb1.GetTaskRequest(tenant="sales", id="t" * 4096).SerializeToString(), GOOD)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


class Slow(Canned):
    """Works until the test lets it end."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.end, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def send(self, asked: Any, params: Any) -> Any:
        self.begun.set()
        await self.end.wait()
        self.ended.set()
        return TASK


@pytest.mark.parametrize("way", ["leaves", "deadline"])
async def test_a_client_that_does_not_wait_for_the_end_stops_nothing(way: str) -> None:
    slow = Slow()
    async with opened(slow, Gate()) as door:
        request = pb1.SendMessageRequest(tenant="sales", message=HELLO).SerializeToString()
        call = door.channel.unary_unary("/lf.a2a.v1.A2AService/SendMessage")
        for seconds in (0.3, 3.0, 30.0):  # more, if it was over before the door heard of it
            calling = call(request, metadata=(("authorization", "Bearer good"),), timeout=seconds if way == "deadline" else None)
            await until(lambda calling=calling: slow.begun.is_set() or calling.done())  # type: ignore[misc]  # what it is now
            if slow.begun.is_set():
                break
        if way == "leaves":
            calling.cancel()
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            await calling
        slow.end.set()
        async with asyncio.timeout(60):
            await slow.ended.wait()


async def test_a_listener_that_leaves_ends_its_stream_alone() -> None:
    left = asyncio.Event()

    class Endless(Canned):
        async def _events(self) -> AsyncIterator[Any]:
            try:
                async for numbered in super()._events():
                    yield numbered
                await asyncio.Event().wait()
            finally:
                left.set()

    async with opened(Endless(), Gate()) as door:
        events = door.channel.unary_stream("/lf.a2a.v1.A2AService/SubscribeToTask")
        request = pb1.SubscribeToTaskRequest(tenant="sales", id="t").SerializeToString()
        listening = events(request, metadata=(("authorization", "Bearer good"),))
        heard = [await listening.read() for _ in EVENTS]
        assert len(heard) == len(EVENTS)
        listening.cancel()
        async with asyncio.timeout(60):
            await left.wait()
        assert await door.call(GET, ASKING, GOOD)


async def test_a_port_that_is_taken_leaves_the_other_doors_open(capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(Canned(), Gate()) as door:
        second = type(door.door)(Gate(), Canned(), door.door._request_traces, 1024)  # type: ignore[arg-type]  # what an Admission does is all
        await second.open("127.0.0.1", door.door.port)
        assert second.port == 0
        await second.close()
